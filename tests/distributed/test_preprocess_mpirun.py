"""A dataset by several ranks: that do not start together, or of which one is killed."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deeph_tracegrad.dataset import GraphDataset
from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.preprocess.build import build_dataset

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


# The second rank is killed while it writes a shard, once each rank has written one.
KILLED_SECOND_RANK = """
import os, signal, sys, time
from pathlib import Path
from deeph_tracegrad.parallel import world
from deeph_tracegrad.preprocess import build
from deeph_tracegrad.shards import ShardWriter
out, append = Path(sys.argv[1]), ShardWriter.append
def killed(writer, sample):
    append(writer, sample)
    if world().rank == 1 and samples:
        while len(list(out.glob("shards/[!.]*.h5"))) < 3:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    samples.append(sample)
samples = []
ShardWriter.append = killed
build.build_dataset(sys.argv[2:], out)
"""


def test_the_same_command_goes_on_after_the_kill_of_a_rank(tmp_path):
    out, patterns = tmp_path / "dataset", [str(RUNS)]
    program = [MPIRUN, "-n", "3", sys.executable, "-c", KILLED_SECOND_RANK, out, RUNS]
    killed = subprocess.run(list(map(str, program)), capture_output=True, timeout=120, check=False)
    assert killed.returncode != 0
    whole = {shard.name: shard.stat().st_mtime_ns for shard in out.glob("shards/[!.]*.h5")}
    assert 3 <= len(whole) < 18
    (out / "shards" / ".half.h5.1.part.h5").write_bytes(b"half a shard")
    with pytest.raises(ReadError, match="no dataset here"):
        GraphDataset(out)

    again = [MPIRUN, "-n", "3", MPIRUN.parent / "deeph-tracegrad", "preprocess", RUNS, "--out", out]
    result = subprocess.run(list(map(str, again)), capture_output=True, timeout=120, check=True, text=True)
    assert f"{len(whole)} of them in" in result.stdout
    assert {shard.name: shard.stat().st_mtime_ns for shard in out.glob("shards/*") if shard.name in whole} == whole
    assert not list(out.glob("shards/.*"))
    build_dataset(patterns, tmp_path / "alone", workers=1)
    ours, alone = GraphDataset(out), GraphDataset(tmp_path / "alone")
    assert (ours.labels, ours.fingerprint) == (alone.labels, alone.fingerprint)
    for place in range(len(alone)):
        np.testing.assert_array_equal(ours.sample(place).blocks, alone.sample(place).blocks)
