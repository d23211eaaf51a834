"""What clusters do to trainings: preemption, killed ranks, full disks, damaged data; and weights that run away."""

import csv
import math
import os
import re
import shutil
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from deeph_tracegrad.config import load_config
from deeph_tracegrad.dataset import GraphDataset
from deeph_tracegrad.preprocess.inspection import training_findings
from deeph_tracegrad.training.checkpoint import load_checkpoint
from deeph_tracegrad.training.loop import Training
from deeph_tracegrad.training.metrics import read_metrics
from launching import MPIRUN, changed, finish, free_port, mpirun, start, torchrun, wait_until

Command = Callable[..., int]

needs_mpirun = pytest.mark.skipif(not MPIRUN.exists(), reason="needs mpirun beside the interpreter")
pytestmark = [pytest.mark.mpi]

ENDLESS = ("--set", "training.epochs=100000")
SIGTERM_ON_RANK_1 = """
import os, signal
from deeph_tracegrad.parallel import world
from deeph_tracegrad.training.loop import Training
step, done = Training.step, []
def interrupted(self, graph):
    step(self, graph)
    done.append(graph)
    if len(done) == 3 and world().rank == 1:
        os.kill(os.getpid(), signal.SIGTERM)
Training.step = interrupted
"""
PIDS = """
import os
from pathlib import Path
from deeph_tracegrad.parallel import world
Path(os.environ["PIDS"], str(world().rank)).write_text(str(os.getpid()))
"""


def events(run: Path) -> list[tuple[str, str]]:
    """What happened, and the text of it."""
    with (run / "events.csv").open(newline="", encoding="utf-8") as file:
        return [(row["event"], row["text"]) for row in csv.DictReader(file)]


@needs_mpirun
@pytest.mark.slow
def test_preempted_and_resumed_on_two_one_and_three_ranks(
    command: Command, tiny_training: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM reaches one rank alone, in the middle of an epoch of two batches; the losses are those of one run."""
    assert command("train", tiny_training) == 0
    run = tmp_path / "again"
    again = ("train", tiny_training, "--set", f"training.run={run}", "--resume", "auto")

    done = finish(start(mpirun(2), *again, program=changed(SIGTERM_ON_RANK_1)))
    assert done.returncode == 75, done.stderr
    assert re.search(r"stopped in epoch 2 by SIGTERM; the same command with --resume goes on", done.stdout)
    state = load_checkpoint(run / "last.pt").training
    assert (state["epoch"], state["batch"]) == (1, 1)

    step, steps = Training.step, []

    def interrupted(self: Training, graph: object) -> None:
        step(self, graph)
        steps.append(graph)
        if len(steps) == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Training, "step", interrupted)
    assert command(*again) == 75
    assert load_checkpoint(run / "last.pt").training["epoch"] == 3  # complete, but not validated yet

    done = finish(start(mpirun(3), *again))
    assert done.returncode == 0, done.stderr
    rows = list(zip(read_metrics(tmp_path / "run" / "metrics.csv"), read_metrics(run / "metrics.csv"), strict=True))
    assert len(rows) == 4
    for one, other in rows:
        for name in one.keys() - {"edges_per_second"}:
            assert float(other[name]) == pytest.approx(float(one[name]), rel=1e-9), name
    weights = [load_checkpoint(folder / "last.pt").weights for folder in (tmp_path / "run", run)]
    assert all(torch.allclose(weights[0][name], weights[1][name], rtol=1e-7, atol=1e-9) for name in weights[0])
    assert [event for event, _ in events(run)] == ["started", "stopped", "started", "stopped", "started", "finished"]


@needs_mpirun
def test_sigterm_to_mpirun_reaches_the_ranks(tiny_training: Path, tmp_path: Path) -> None:
    process = start(mpirun(2), "train", tiny_training, *ENDLESS)
    wait_until((tmp_path / "run" / "last.pt").exists, process)
    process.send_signal(signal.SIGTERM)
    done = finish(process, 60.0)
    assert done.returncode == 75, done.stderr
    assert events(tmp_path / "run")[-1][0] == "stopped"
    assert load_checkpoint(tmp_path / "run" / "last.pt").training["epoch"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [pytest.param(mpirun, marks=needs_mpirun), torchrun])
def test_a_killed_rank_ends_the_others(tiny_training: Path, tmp_path: Path, launcher: Callable) -> None:
    process = start(launcher(2), "train", tiny_training, *ENDLESS, program=changed(PIDS), PIDS=str(tmp_path))
    wait_until((tmp_path / "run" / "last.pt").exists, process)
    os.kill(int((tmp_path / "1").read_text()), signal.SIGKILL)
    done = finish(process, 60.0)
    assert done.returncode != 0
    assert re.search(r"signal 9|SIGKILL", done.stdout + done.stderr)
    load_checkpoint(tmp_path / "run" / "last.pt")
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "0").read_text()), 0)


@pytest.mark.slow
@pytest.mark.parametrize("group", [1, 2])
def test_a_lost_rank_is_named_where_no_launcher_watches(group: int, tiny_training: Path, tmp_path: Path) -> None:
    """As under srun without --kill-on-bad-exit."""
    endless = (*ENDLESS, "--set", f"parallel.graph={group}")
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    ranks = [start((), "train", tiny_training, *endless, **shared, RANK=rank, LOCAL_RANK=rank) for rank in ("0", "1")]
    wait_until((tmp_path / "run" / "last.pt").exists, ranks[0])
    ranks[1].kill()
    killed = time.monotonic()
    left = finish(ranks[0], 60.0)
    finish(ranks[1])
    assert time.monotonic() - killed < 60.0
    assert left.returncode == 2
    assert f"error: rank 1 on {socket.gethostname()} ended, or can no longer be reached" in left.stderr
    assert "Traceback" not in left.stderr
    event, text = events(tmp_path / "run")[-1]
    assert event == "failed"
    assert text.startswith("LostRankError: rank 1 on")


def test_killed_while_a_checkpoint_is_written(command: Command, tiny_training: Path, tmp_path: Path) -> None:
    assert (
        command("train", tiny_training, "--set", "training.epochs=1", "--set", "training.schedule.kind=constant") == 0
    )
    run = tmp_path / "run"
    good = (run / "last.pt").read_bytes()
    killed = """
import os, signal
from pathlib import Path
def half_written(path, content):
    with path.open("wb") as file:
        file.write(content[: len(content) // 2])
    os.kill(os.getpid(), signal.SIGKILL)
Path.write_bytes = half_written
"""
    longer = ("train", tiny_training, "--resume", "auto", "--set", "training.schedule.kind=constant")
    done = finish(start((), *longer, program=changed(killed)))
    assert done.returncode == -signal.SIGKILL
    assert len(list(run.glob(".*.part.pt"))) == 1
    assert (run / "last.pt").read_bytes() == good
    assert command(*longer) == 0
    assert load_checkpoint(run / "last.pt").training["epoch"] == 4
    assert not list(run.glob(".*.part*"))


@needs_mpirun
def test_a_full_disk_ends_all_ranks_and_keeps_the_checkpoint(
    command: Command, tiny_training: Path, tmp_path: Path
) -> None:
    assert command("train", tiny_training, "--set", "training.epochs=1") == 0
    good = (tmp_path / "run" / "last.pt").read_bytes()
    full = """
import errno, os
from pathlib import Path
def half_written(path, content):
    with path.open("wb") as file:
        file.write(content[: len(content) // 2])
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
Path.write_bytes = half_written
"""
    done = finish(start(mpirun(2), "train", tiny_training, "--resume", program=changed(full)), 60.0)
    assert done.returncode == 2
    assert re.search(r"run/(best|last)\.pt: .*No space left on device", done.stderr)
    assert (tmp_path / "run" / "last.pt").read_bytes() == good
    assert load_checkpoint(tmp_path / "run" / "last.pt").training["epoch"] == 1


@needs_mpirun
def test_a_damaged_shard_is_named(tiny_training: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(load_config(tiny_training).data.dataset, tmp_path / "copy"))
    for shard in (copy / "shards").iterdir():
        content = bytearray(shard.read_bytes())
        content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
        shard.write_bytes(content)
    done = finish(start(mpirun(2), "train", tiny_training, "--set", f"data.dataset={copy}"), 60.0)
    assert done.returncode == 2
    assert re.search(rf"error: {copy}/shards/\S+: damaged shard", done.stderr)
    assert "Traceback" not in done.stderr


def spoilt(when: Callable[[Training, int], bool], factor: float) -> Callable:
    """A step after which, at some of the steps, the weights are multiplied."""
    step, done = Training.step, []

    def spoiling(self: Training, graph: object) -> None:
        step(self, graph)
        done.append(graph)
        if when(self, len(done)):
            with torch.no_grad():
                for network in (self.state.network, self.state.predictor):
                    for parameter in network.parameters():
                        parameter.mul_(factor)

    return spoiling


def test_weights_that_are_no_numbers_go_back_to_the_best(
    command: Command, tiny_training: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    constant = ("--set", "training.schedule.kind=constant")
    assert command("train", tiny_training, "--set", f"training.run={tmp_path / 'sound'}", *constant) == 0
    monkeypatch.setattr(Training, "step", spoilt(lambda _, steps: steps == 5, float("nan")))
    assert command("train", tiny_training, *constant) == 0
    run = tmp_path / "run"
    text = "the training loss is nan in epoch 3: back to the weights of epoch 2, the learning rate times 0.8"
    assert events(run)[1] == ("rollback", text)
    assert text in (run / "train.log").read_text()
    rows, sound = read_metrics(run / "metrics.csv"), read_metrics(tmp_path / "sound" / "metrics.csv")
    assert [row["rollbacks"] for row in rows] == ["0", "0", "1", "1"]
    assert rows[:2] == [
        row | {"edges_per_second": rows[place]["edges_per_second"]} for place, row in enumerate(sound[:2])
    ]
    assert float(rows[3]["learning_rate"]) == pytest.approx(0.8 * float(sound[3]["learning_rate"]))
    assert float(rows[3]["validation_loss"]) < float(rows[1]["validation_loss"])
    assert load_checkpoint(run / "last.pt").training["schedule"]["reverts"] == 1


def test_a_spike_of_the_error_goes_back_to_the_best(
    command: Command, tiny_training: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the schedule, after as many validations as revert_patience says."""
    monkeypatch.setattr(Training, "step", spoilt(lambda _, steps: steps == 4, 3.0))
    patience = ("--set", "training.schedule.revert_patience=2", "--set", "training.epochs=5")
    assert command("train", tiny_training, *patience) == 0
    rows = read_metrics(tmp_path / "run" / "metrics.csv")
    best, *spiked = (float(row["validation_loss"]) for row in rows[:3])
    assert min(spiked) > 2.0 * best
    assert [row["rollbacks"] for row in rows] == ["0", "0", "0", "1", "1"]
    assert float(rows[3]["validation_loss"]) < 1.1 * best
    assert (
        "the error stayed above twice the best until epoch 3: back to the weights of epoch 1"
        in events(tmp_path / "run")[1][1]
    )


def test_returns_are_bounded(
    command: Command,
    tiny_training: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setattr(Training, "step", spoilt(lambda training, _: training.state.epoch == 2, float("nan")))
    assert command("train", tiny_training) == 2
    message = capsys.readouterr().err
    assert "the training loss is nan in epoch 3, and 10 returns to the weights of epoch 2 have not helped" in message
    assert "go on from it with --resume and a lower training.optimizer.learning_rate" in message
    assert [event for event, _ in events(tmp_path / "run")] == ["started", *["rollback"] * 10, "failed"]
    assert load_checkpoint(tmp_path / "run" / "last.pt").training["epoch"] == 2


@needs_mpirun
def test_all_ranks_go_back_together(tiny_training: Path, tmp_path: Path) -> None:
    """The numbers of one rank alone go wrong."""
    program = changed("""
from deeph_tracegrad.parallel import world
from deeph_tracegrad.training.loop import Training
step, done = Training.step, []
def spoiling(self, graph):
    step(self, graph)
    done.append(graph)
    if len(done) == 5 and world().rank == 1:
        for parameter in self.parameters: parameter.data *= float("nan")
Training.step = spoiling
""")
    done = finish(start(mpirun(2), "train", tiny_training, program=program))
    assert done.returncode == 0, done.stderr
    rows = read_metrics(tmp_path / "run" / "metrics.csv")
    assert [row["rollbacks"] for row in rows[:2]] == ["0", "0"]
    assert rows[-1]["rollbacks"] == "1"
    assert all(math.isfinite(float(row["validation_loss"])) for row in rows)


@needs_mpirun
def test_each_rank_keeps_a_log_with_its_fault(tiny_training: Path, tmp_path: Path) -> None:
    program = changed("""
from deeph_tracegrad.console import warn
from deeph_tracegrad.parallel import world
from deeph_tracegrad.training.loop import Training
step = Training.step
def broken(self, graph):
    if world().rank == 1 and self.state.epoch == 1:
        warn("this rank is not well")
        raise ArithmeticError("of this rank alone")
    step(self, graph)
Training.step = broken
""")
    done = finish(start(mpirun(2), "train", tiny_training, program=program), 60.0)
    assert done.returncode == 3
    assert "of this rank alone" in done.stderr
    zero, one = ((tmp_path / "run" / "logs" / f"rank_{rank}.log").read_text() for rank in (0, 1))
    assert "started: rank 0 of 2 on " in zero
    assert "started: rank 1 of 2 on " in one
    assert "not well" not in zero
    assert " warning: this rank is not well\n" in one
    assert " failed: ArithmeticError: of this rank alone\nTraceback" in one
    shares = [int(re.search(r" epoch 1: (\d+) edges in ", log)[1]) for log in (zero, one)]
    dataset = GraphDataset(load_config(tiny_training).data.dataset)
    assert sum(shares) == dataset.edge_counts[:3].sum()
    assert min(shares) > 0

    found = {finding.name: finding.value for finding in training_findings(tmp_path / "run")}
    assert found["fault"] == "of rank 1: ArithmeticError: of this rank alone"
    assert finish(start(mpirun(2), "train", tiny_training, "--resume"), 60.0).returncode == 0
    again = (tmp_path / "run" / "logs" / "rank_1.log").read_text()
    assert again.startswith(one)
    assert again.count(" started: rank 1 of 2") == 2
    assert again.endswith(" finished: 4 epochs\n")
    assert "fault" not in {finding.name for finding in training_findings(tmp_path / "run")}
