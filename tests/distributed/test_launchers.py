"""Every way to start several ranks gives one training; what cannot be one says what to set."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deeph_tracegrad.training.metrics import read_metrics
from launching import MPIRUN, changed, finish, free_port, mpirun, start, torchrun

Command = Callable[..., int]

needs_mpirun = pytest.mark.skipif(not MPIRUN.exists(), reason="needs mpirun beside the interpreter")
pytestmark = [pytest.mark.mpi]


def assert_same_losses(one: Path, other: Path) -> None:
    rows = list(zip(read_metrics(one / "metrics.csv"), read_metrics(other / "metrics.csv"), strict=True))
    assert rows
    for left, right in rows:
        for name in left.keys() - {"edges_per_second"}:
            assert float(right[name]) == pytest.approx(float(left[name]), rel=1e-9), name


def system_openmpi() -> Path | None:
    """Open MPI's mpirun, if this machine has one."""
    for folder in ("/usr/bin", "/usr/lib64/openmpi/bin", "/usr/local/bin"):
        found = Path(folder, "mpirun")
        if found.exists() and "Open MPI" in subprocess.check_output([found, "--version"], text=True):
            return found
    return None


@pytest.mark.slow
def test_torchrun_trains_as_one_rank(command: Command, tiny_training: Path, tmp_path: Path) -> None:
    assert command("train", tiny_training) == 0
    done = finish(start(torchrun(2), "train", tiny_training, "--set", f"training.run={tmp_path / 'together'}"))
    assert done.returncode == 0, done.stderr
    assert "2 ranks" in done.stdout
    assert_same_losses(tmp_path / "run", tmp_path / "together")


@pytest.mark.slow
def test_open_mpi_trains_as_one_rank(command: Command, tiny_training: Path, tmp_path: Path) -> None:
    """Also where MPICH stands beside the interpreter, which mpi4py would load by itself."""
    openmpi = system_openmpi()
    if openmpi is None:
        pytest.skip("no Open MPI here")
    assert command("train", tiny_training) == 0
    launcher = (str(openmpi), "--allow-run-as-root", "--oversubscribe", "-n", "2")
    done = finish(start(launcher, "train", tiny_training, "--set", f"training.run={tmp_path / 'together'}"))
    assert done.returncode == 0, done.stderr
    assert "2 ranks" in done.stdout
    assert_same_losses(tmp_path / "run", tmp_path / "together")


def test_the_operations_of_a_world_under_torchrun() -> None:
    program = """
import numpy as np
from deeph_tracegrad.parallel import world
ranks = world()
assert (ranks.size, ranks.local_size) == (2, 2) and ranks.rank == ranks.local_rank
assert ranks.broadcast(f"of {ranks.rank}") == "of 0"
assert ranks.gather(ranks.rank) == [0, 1]
assert ranks.summed(np.array([1.5, ranks.rank])).tolist() == [3.0, 1.0]
assert list(ranks.streamed(lambda item: (item, ranks.rank), "abc")) == (
    [("a", 0), ("b", 1), ("c", 0)] if ranks.is_main else [])
ranks.barrier()
"""
    done = finish(start(torchrun(2), program=(sys.executable, "-c", program)), 60.0)
    assert done.returncode == 0, done.stderr


def test_processes_that_do_not_find_each_other_do_not_train(tiny_training: Path, tmp_path: Path) -> None:
    """srun without PMI: each is told of four tasks, and MPI shows each only itself."""
    done = finish(start((), "train", tiny_training, SLURM_STEP_NUM_TASKS="4"), 60.0)
    assert done.returncode == 2
    assert re.search(r"SLURM_STEP_NUM_TASKS says that 4 processes were started together.*srun --mpi=pmi2", done.stderr)
    assert not (tmp_path / "run").exists()


def test_one_process_of_a_job_of_many_is_no_mistake(tiny_training: Path) -> None:
    """A job script has SLURM_NTASKS, but is no task of srun."""
    done = finish(start((), "train", tiny_training, "--set", "training.epochs=1", SLURM_NTASKS="4"), 60.0)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, r"RANK and WORLD_SIZE are set, as torchrun does, but not MASTER_ADDR, MASTER_PORT: set them too"),
        ({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "free"}, r"MASTER_PORT is 'free' in the environment; expected a"),
        (
            {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29999"},
            r"rank 1 on \S+ cannot reach 127\.0\.0\.1:29999.*MASTER",
        ),
    ],
)
def test_a_missing_rendezvous(tiny_training: Path, environment: dict[str, str], message: str) -> None:
    launched = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    impatient = changed("from deeph_tracegrad import rendezvous\nrendezvous.JOIN_SECONDS = 1.0")
    done = finish(start((), "train", tiny_training, program=impatient, **launched, **environment), 60.0)
    assert done.returncode == 2
    assert re.search(message, done.stderr), done.stderr
    assert "Traceback" not in done.stderr


def test_ranks_that_do_not_come_are_named(tiny_training: Path) -> None:
    launched = {"RANK": "0", "WORLD_SIZE": "3", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "3"}
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    impatient = changed("from deeph_tracegrad import rendezvous\nrendezvous.JOIN_SECONDS = 2.0")
    done = finish(start((), "train", tiny_training, program=impatient, **launched, **meeting), 60.0)
    assert done.returncode == 2
    assert "1, 2 of the ranks 0 to 2 did not come within 2 s" in done.stderr


@pytest.fixture
def two_loopback_hosts(tmp_path: Path) -> list[str]:
    """A launcher for which 127.0.0.1 and 127.0.0.2 are two machines, each with one rank."""
    shell = tmp_path / "ssh"
    shell.write_text('#!/bin/sh\nwhile [ "${1#-}" != "$1" ]; do shift; done\nshift\nexec sh -c "$*"\n')
    shell.chmod(0o755)
    return [*mpirun(2), "-launcher", "ssh", "-launcher-exec", str(shell), "-hosts", "127.0.0.1,127.0.0.2"]


@needs_mpirun
@pytest.mark.slow
def test_two_hosts_by_loopback_addresses(
    command: Command, tiny_training: Path, tmp_path: Path, two_loopback_hosts: list[str]
) -> None:
    assert command("train", tiny_training) == 0
    together = ("train", tiny_training, "--set", f"training.run={tmp_path / 'together'}")
    done = finish(start(two_loopback_hosts, *together, MASTER_ADDR="127.0.0.1"))
    assert done.returncode == 0, done.stderr
    assert_same_losses(tmp_path / "run", tmp_path / "together")


@needs_mpirun
def test_a_host_name_that_leads_others_to_themselves(tiny_training: Path, two_loopback_hosts: list[str]) -> None:
    program = changed("import socket\nsocket.gethostname = lambda: 'localhost'")
    done = finish(start(two_loopback_hosts, "train", tiny_training, program=program), 60.0)
    assert done.returncode == 2
    assert re.search(r"the host name localhost of rank 0 stands for .*127\.0\.0\.1.*: set MASTER_ADDR", done.stderr)


@pytest.fixture
def two_namespaces() -> Iterator[list[str]]:
    """Two network namespaces with nothing in common but a cable: the nearest to two machines."""
    names = [f"dtg{os.getpid()}{letter}" for letter in "ab"]
    ip = shutil.which("ip")
    if ip is None or shutil.which("unshare") is None:
        pytest.skip("needs ip and unshare")
    if any(subprocess.run([ip, "netns", "add", name], capture_output=True, check=False).returncode for name in names):
        pytest.skip("network namespaces cannot be made here")
    try:
        cable = ["link", "add", "veth0", "netns", names[0], "type", "veth", "peer", "name", "veth0", "netns", names[1]]
        commands = [cable]
        for place, name in enumerate(names):
            commands += [
                ["-n", name, "addr", "add", f"10.77.0.{place + 1}/24", "dev", "veth0"],
                ["-n", name, "link", "set", "lo", "up"],
                ["-n", name, "link", "set", "veth0", "up"],
            ]
        if any(subprocess.run([ip, *command], capture_output=True, check=False).returncode for command in commands):
            pytest.skip("network namespaces cannot be connected here")
        yield [f"{ip} netns exec {name} unshare -u sh -c" for name in names]
    finally:
        for name in names:
            subprocess.run([ip, "netns", "del", name], capture_output=True, check=False)


@pytest.mark.slow
def test_two_hosts_by_network_namespaces(
    command: Command, tiny_training: Path, tmp_path: Path, two_namespaces: list[str]
) -> None:
    """Their host names resolve to nothing, as on many clusters: an interface must be named."""
    assert command("train", tiny_training) == 0
    command_line = f'hostname dtg$RANK; exec "$@" --set training.run={tmp_path / "together"}'
    launched = {
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": "10.77.0.1",
        "MASTER_PORT": "29555",
        "GLOO_SOCKET_IFNAME": "veth0",
    }
    ranks = [
        start([*host.split(), command_line, "sh"], "train", tiny_training, **launched, RANK=str(rank))
        for rank, host in enumerate(two_namespaces)
    ]
    done = [finish(process, 120.0) for process in ranks]
    assert [process.returncode for process in done] == [0, 0], [process.stderr for process in done]
    assert_same_losses(tmp_path / "run", tmp_path / "together")
