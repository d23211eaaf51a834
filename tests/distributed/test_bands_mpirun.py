"""Bands on two ranks against one, through mpirun."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deeph_tracegrad.inference.export import read_bands

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
