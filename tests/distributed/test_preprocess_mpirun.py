"""A dataset by two ranks that do not start together."""

import subprocess
import sys
from pathlib import Path

import pytest

from deeph_tracegrad.dataset import GraphDataset

RUNS = Path(__file__).parents[2] / "demo" / "runs"
MPIRUN = Path(sys.executable).parent / "mpirun"

pytestmark = [pytest.mark.mpi, pytest.mark.skipif(not MPIRUN.exists(), reason="needs mpirun beside the interpreter")]

LATE_SECOND_RANK = """
import sys, time
from pathlib import Path
from deeph_tracegrad.parallel import world
from deeph_tracegrad.preprocess.build import build_dataset
if not world().is_main:
    time.sleep(1.5)
build_dataset(sys.argv[2:], Path(sys.argv[1]))
"""


def test_a_late_rank_shares_the_runs_that_the_first_found(tmp_path):
    folders = [RUNS / f"a_{number:02}" for number in range(8)]
    program = [MPIRUN, "-n", "2", sys.executable, "-c", LATE_SECOND_RANK, tmp_path / "dataset", *folders]
    subprocess.run(list(map(str, program)), check=True, capture_output=True, timeout=120)
    assert GraphDataset(tmp_path / "dataset").labels == [folder.name for folder in folders]
