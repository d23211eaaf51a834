"""One structure predicted by several ranks together, through mpirun."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deeph_tracegrad.deeph_format import read_deeph

BIN = Path(sys.executable).parent
MPIRUN, COMMAND = BIN / "mpirun", BIN / "deeph-tracegrad"

pytestmark = [pytest.mark.mpi, pytest.mark.skipif(not MPIRUN.exists(), reason="needs mpirun beside the interpreter")]


def on_ranks(ranks, *arguments):
    return subprocess.run(
        [str(MPIRUN), "-n", str(ranks), str(COMMAND), *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_any_number_of_ranks_predicts_the_same(unpacked, command, tiny_training, tmp_path):
    assert command("train", tiny_training) == 0
    checkpoint, run = tmp_path / "run" / "best.pt", unpacked("openmx/demo_b_00")
    assert command("predict", checkpoint, run, "--out", tmp_path / "1", "--device", "cpu") == 0
    whole = read_deeph(tmp_path / "1" / run.name).hamiltonian[0]
    for ranks in (2, 3):
        out = tmp_path / str(ranks)
        done = on_ranks(ranks, "predict", checkpoint, run, "--out", out, "--device", "cpu")
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("8 atoms") == 1
        assert "MAE of H" in done.stdout
        shared = read_deeph(out / run.name).hamiltonian[0]
        assert np.abs(shared.on_pairs(whole.pairs).entries - whole.entries).max() < 1e-10


def test_a_bad_source_is_told_once_and_ends_all_ranks(unpacked, command, tiny_training, tmp_path):
    assert command("train", tiny_training) == 0
    run = tmp_path / "broken"
    shutil.copytree(unpacked("openmx/demo_b_00"), run)
    (run / "openmx.scfout").write_bytes((run / "openmx.scfout").read_bytes()[:1000])
    done = on_ranks(2, "predict", tmp_path / "run" / "best.pt", run, "--out", tmp_path / "out", "--device", "cpu")
    assert done.returncode == 1
    assert done.stderr.count("skipped") == 1
    assert not (tmp_path / "out").exists()
