"""One rank of several killed, as a machine without memory does it: the others end, and nothing half is left."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
MPIRUN, COMMAND = BIN / "mpirun", BIN / "deeph-tracegrad"
EXAMPLE = Path(__file__).parents[2] / "examples" / "twisted_bilayer"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.mpi,
    pytest.mark.skipif(not MPIRUN.exists(), reason="needs mpirun beside the interpreter"),
    pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the ranks in /proc"),
]


def ranks_of(launcher: int) -> list[int]:
    """Processes of the command below mpirun, by rank, without what they themselves started."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            parents[int(folder.name)] = int(fields[1])
        except OSError:  # ended meanwhile
            continue

    def is_rank(process: int) -> bool:
        try:
            words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        return str(COMMAND).encode() in words and str(MPIRUN).encode() not in words and b"python" in words[0]

    def ranks_below(process: int) -> Iterator[int]:
        if is_rank(process):
            yield process
            return
        for child in (child for child, parent in parents.items() if parent == process):
            yield from ranks_below(child)

    return sorted(ranks_below(launcher))


def kill_one(ranks: int, victim: int, word: str, *arguments: object) -> tuple[int, str, float]:
    """Start the command, kill one of its ranks once it has printed this word; exit code, output, seconds to the end."""
    running = subprocess.Popen(
        [str(MPIRUN), "-n", str(ranks), str(COMMAND), *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert running.stdout is not None
        before = []
        for line in running.stdout:
            before.append(line)
            if word in line:
                break
        processes = ranks_of(running.pid)
        assert len(processes) == ranks, "".join(before)
        killed = time.monotonic()
        os.kill(processes[victim], signal.SIGKILL)
        after, _ = running.communicate(timeout=60)
        seconds = time.monotonic() - killed
        for process in processes:
            assert not Path(f"/proc/{process}").exists()
        return running.returncode, "".join(before) + after, seconds
    finally:
        running.kill()


@pytest.mark.parametrize(("ranks", "victim"), [(2, 0), (3, 2)])
def test_bands(ranks: int, victim: int, tmp_path: Path) -> None:
    run = EXAMPLE / "runs" / "bilayer_1_2"
    options = ["--density", 400, "--fermi", -3.65, "--out", tmp_path / "out"]
    code, told, seconds = kill_one(ranks, victim, "28 atoms", "bands", run, *options)
    assert code != 0
    assert "signal 9" in told or "KILLED BY SIGNAL: 9" in told or "EXIT CODE: 9" in told
    assert seconds < 60
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith(".")]


@pytest.mark.parametrize(("ranks", "victim"), [(2, 1), (3, 0)])
def test_predict(
    ranks: int, victim: int, command: Callable[..., int], example_checkpoint: Path, tmp_path: Path
) -> None:
    assert command("twist", 9, 10, "--out", tmp_path / "large.vasp") == 0
    inputs = [example_checkpoint, tmp_path / "large.vasp"]
    options = ["--basis-dir", EXAMPLE, "--device", "cpu", "--out", tmp_path / "out"]
    code, told, seconds = kill_one(ranks, victim, "predicting", "predict", *inputs, *options)
    assert code != 0
    assert "KILLED BY SIGNAL: 9" in told or "EXIT CODE: 9" in told
    assert seconds < 60
    assert not (tmp_path / "out" / "large").exists()
