"""Starting commands on several ranks, by any launcher."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

BIN = Path(sys.executable).parent
MPIRUN, TORCHRUN, COMMAND = BIN / "mpirun", BIN / "torchrun", BIN / "deeph-tracegrad"

# A program that trains with a configuration, into a folder, several times: "name key=value ...". Gradients are in
# many buckets, as between machines. After "torch" the compiled kernels are left aside.
TRAININGS = (
    sys.executable,
    "-c",
    """
import sys
from deeph_tracegrad import cli
from deeph_tracegrad.nn.kernels import library
from deeph_tracegrad.training import gradients
gradients._bucket_bytes = lambda ranks: 2000
config, folder, *trainings = sys.argv[1:]
for training in trainings:
    if training == "torch":
        library._library = lambda: None
        continue
    name, *settings = training.split()
    settings = [f"training.run={folder}/{name}", *settings]
    sys.argv = ["deeph-tracegrad", "train", config, *(word for each in settings for word in ("--set", each))]
    try:
        cli.main()
    except SystemExit as leaving:
        if leaving.code:
            raise
""",
)

# of a launcher that started the tests themselves
_FOREIGN = ("PMI_", "PMIX_", "OMPI_", "SLURM_", "RANK", "WORLD_SIZE", "LOCAL_", "MASTER_")


def mpirun(ranks: int) -> list[str]:
    """MPICH's, beside the interpreter."""
    return [str(MPIRUN), "-n", str(ranks)]


def torchrun(ranks: int) -> list[str]:
    """For any program."""
    return [str(TORCHRUN), "--standalone", "--nproc-per-node", str(ranks), "--no-python"]


def start(
    launcher: Sequence[str], *arguments: object, program: Sequence[str] = (str(COMMAND),), **environment: str
) -> subprocess.Popen:
    """The command, by default `deeph-tracegrad`, under a launcher."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    return subprocess.Popen(
        [*launcher, *program, *map(str, arguments)],
        env={**own, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen, timeout: float = 240.0) -> subprocess.CompletedProcess:
    """What it printed and its exit code; one that hangs is ended, and the test with it."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def changed(change: str) -> tuple[str, ...]:
    """A program that is `deeph-tracegrad` after some lines of Python, which may replace parts of it."""
    return sys.executable, "-c", f"{change}\nfrom deeph_tracegrad import cli\ncli.main()"


def wait_until(condition: Callable[[], bool], process: subprocess.Popen, seconds: float = 120.0) -> None:
    """Until something is so while a process runs."""
    deadline = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise RuntimeError(f"it did not come to this: {process.communicate()}")
        time.sleep(0.05)


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
