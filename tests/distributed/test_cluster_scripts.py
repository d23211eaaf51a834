"""The job scripts of examples/cluster, run with stand-ins for the programs of a queue."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from deeph_tracegrad.training import loop

SCRIPTS = Path(__file__).parents[2] / "examples" / "cluster"

# each stand-in tells what it was called with; those that start programs do so
STAND_INS = {
    "srun": 'echo "srun $*" >> "$CALLS"; while [ "${1#-}" != "$1" ]; do shift; done; exec "$@"',
    "mpirun": 'echo "mpirun $*" >> "$CALLS"; shift 2; exec "$@"',
    "scontrol": 'echo "scontrol $*" >> "$CALLS"; echo node1; echo node2',
    "qsub": 'echo "qsub $*" >> "$CALLS"',
    "deeph-tracegrad": 'printf "%s\\n" "$@" > "$ARGUMENTS"; env > "$ARGUMENTS.env"; exit "$CODE"',
}
QUEUE = {
    "SLURM_CPUS_PER_TASK": "4",
    "SLURM_NTASKS": "8",
    "SLURM_NTASKS_PER_NODE": "4",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_JOB_ID": "123456",
    "SLURM_JOB_NODELIST": "node[1-2]",
}


@pytest.mark.parametrize("code", [0, 2, 75])
@pytest.mark.parametrize("name", sorted(path.name for path in SCRIPTS.glob("*.sh")))
def test_a_job_script_trains_and_comes_again_when_it_was_stopped(
    command: Callable[..., int],
    tiny_training: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    code: int,
) -> None:
    programs, calls, arguments = tmp_path / "bin", tmp_path / "calls", tmp_path / "arguments"
    programs.mkdir()
    for program, text in STAND_INS.items():
        (programs / program).write_text(f"#!/bin/bash\n{text}\n")
        (programs / program).chmod(0o755)
    (tmp_path / "nodes").write_text("node1\nnode1\nnode2\n")
    environment = {
        **os.environ,
        **QUEUE,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "CALLS": str(calls),
        "ARGUMENTS": str(arguments),
        "CODE": str(code),
        "CONFIG": str(tiny_training),
        "PBS_O_WORKDIR": str(tmp_path),
        "PBS_NODEFILE": str(tmp_path / "nodes"),
    }
    done = subprocess.run(
        ["bash", SCRIPTS / name, tiny_training],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (code, "")
    again = "qsub -v CONFIG=" if name == "pbs.sh" else "scontrol requeue 123456"
    assert (again in calls.read_text()) == (code == 75)

    taken = []
    monkeypatch.setattr(loop, "train", lambda config, resume: taken.append((config, resume)))
    assert command(*arguments.read_text().splitlines()) == 0
    (config, resume) = taken[0]
    assert resume == "auto"
    assert config.training.device == ("cuda" if name == "slurm_gpu.sh" else "cpu")
    if name == "slurm_gpu.sh":
        variables = set(Path(f"{arguments}.env").read_text().splitlines())
        assert variables >= {
            "RANK=5",
            "LOCAL_RANK=1",
            "WORLD_SIZE=8",
            "LOCAL_WORLD_SIZE=4",
            "MASTER_ADDR=node1",
            "MASTER_PORT=23456",
        }


@pytest.mark.parametrize("name", sorted(path.name for path in SCRIPTS.glob("*.sh")))
def test_the_syntax_of_a_job_script(name: str) -> None:
    subprocess.run(["bash", "-n", SCRIPTS / name], check=True)
