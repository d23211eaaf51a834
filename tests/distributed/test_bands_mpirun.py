"""Bands on two ranks against one, through mpirun."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deeph_tracegrad.errors import WriteError
from deeph_tracegrad.inference import band_run, kept_results
from deeph_tracegrad.inference.export import read_bands
from slow_bands import SLOW_BANDS, wait_for_results

BIN = Path(sys.executable).parent
MPIRUN, COMMAND = BIN / "mpirun", BIN / "deeph-tracegrad"

pytestmark = [pytest.mark.mpi, pytest.mark.skipif(not MPIRUN.exists(), reason="needs mpirun beside the interpreter")]


def on_two_ranks(*arguments):
    return subprocess.run(
        [str(MPIRUN), "-n", "2", str(COMMAND), *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_two_ranks_give_the_bands_of_one(unpacked, command, tmp_path):
    folder = unpacked("openmx/bi_soc")
    options = ["--density", 31, "--compare", folder]
    assert command("bands", folder, *options, "-o", tmp_path / "one") == 0
    done = on_two_ranks("bands", folder, *options, "-o", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Fermi level") == 2  # ours and the reference's, told once
    one, two = read_bands(tmp_path / "one.h5"), read_bands(tmp_path / "two.h5")
    np.testing.assert_array_equal(two.energies, one.energies)
    np.testing.assert_array_equal(two.path.k, one.path.k)
    assert two.fermi == one.fermi
    assert {file.name for file in tmp_path.iterdir()} == {"one.h5", "one.png", "two.h5", "two.png"}


def test_an_error_ends_both_ranks(unpacked, tmp_path):
    done = on_two_ranks("bands", unpacked("openmx/bi_soc"), "--window", 900, 901, "--fermi", 0, "-o", tmp_path / "x")
    assert done.returncode != 0
    assert "no band lies in the window" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_one_rank_goes_on_from_what_two_have_kept(unpacked, command, tmp_path, capfd, number):
    run = ["bands", unpacked("openmx/bi_soc"), "--density", 31, "--window", -3, 3, "-o"]
    assert command(*run, tmp_path / "whole") == 0
    arguments = [str(MPIRUN), "-n", "2", sys.executable, str(SLOW_BANDS), *map(str, run), str(tmp_path / "x")]
    with subprocess.Popen(arguments, env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
        wait_for_results(tmp_path / "x.unfinished", 6)  # the Fermi level and five k-points
        process.send_signal(number)
        assert process.wait(60) != 0
    capfd.readouterr()
    assert not (tmp_path / "x.h5").exists()
    assert command(*run, tmp_path / "x") == 0
    told = capfd.readouterr().out
    kept = re.search(r"kept +(\d+) of (\d+) k-points", told)
    assert kept is not None
    assert 5 <= int(kept[1]) < int(kept[2])
    one, two = read_bands(tmp_path / "x.h5"), read_bands(tmp_path / "whole.h5")
    np.testing.assert_array_equal(one.energies, two.energies)
    assert one.fermi == two.fermi
    assert {file.name for file in tmp_path.glob("x*")} == {"x.h5", "x.png"}


def test_two_ranks_go_on_from_what_one_has_kept(unpacked, command, tmp_path, monkeypatch):
    """A full disk where the bands should be written; all k-points were solved then."""

    def full_disk(*_):
        raise WriteError("no space left on device")

    run = ["bands", unpacked("openmx/bi_soc"), "--density", 31, "-o", tmp_path / "x"]
    with monkeypatch.context() as patch:
        patch.setattr(kept_results, "KEEP_SECONDS", 0.0)
        patch.setattr(band_run, "write_bands", full_disk)
        assert command(*run) == 2
    done = on_two_ranks(*run)
    assert done.returncode == 0, done.stderr
    assert re.search(r"kept +(\d+) of \1 k-points", done.stdout)
    assert {file.name for file in tmp_path.iterdir()} == {"x.h5", "x.png"}
