"""What each rank tells of itself, and what is read from it."""

import time
from pathlib import Path

import pytest

from deeph_tracegrad.console import warn
from deeph_tracegrad.errors import ReadError, TrainingError
from deeph_tracegrad.training.rank_log import Interval, RankLog, faults_of_last_run
from deeph_tracegrad.training.run_folder import RunFolder


def fail(log: RankLog, text: str) -> None:
    log.failed(ValueError(text))


def test_faults_are_those_since_the_last_start(tmp_path: Path) -> None:
    log = RankLog(tmp_path / "logs")
    assert faults_of_last_run(tmp_path / "logs") == {}
    log.started("rank 0 of 1")
    fail(log, "first")
    log.started("rank 0 of 1")
    assert faults_of_last_run(tmp_path / "logs") == {}
    fail(log, "it\n2026-11-23 started: no start")
    assert faults_of_last_run(tmp_path / "logs") == {"ValueError: it": [0]}
    log.started("rank 0 of 1")
    log.say("warning: failed: not at all")
    assert faults_of_last_run(tmp_path / "logs") == {}


def test_ranks_with_the_same_fault_stand_together(tmp_path: Path) -> None:
    fail(RankLog(tmp_path), "the same")
    text = (tmp_path / "rank_0.log").read_text()
    (tmp_path / "rank_12.log").write_text(text)
    (tmp_path / "rank_2.log").write_text(text.replace("the same", "another"))
    faults = {message: sorted(ranks) for message, ranks in faults_of_last_run(tmp_path).items()}
    assert faults == {"ValueError: the same": [0, 12], "ValueError: another": [2]}


def test_a_log_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "rank_0.log").write_bytes(b"\xff\xfe")
    with pytest.raises(ReadError, match=r"rank_0\.log.*damaged log"):
        faults_of_last_run(tmp_path)


def test_waiting_is_told_from_work() -> None:
    interval = Interval(edges=7, seconds=0.5)

    def slowly():
        for number in range(3):
            time.sleep(0.02)
            yield number

    numbers = []
    for number in interval.awaited(slowly()):
        time.sleep(0.05)
        numbers.append(number)
    with interval.meeting():
        time.sleep(0.01)
    assert numbers == [0, 1, 2]
    assert 0.06 <= interval.samples < 0.15
    assert 0.01 <= interval.ranks < 0.06
    assert interval.describe().startswith("7 edges in 0.5 s, of which 0.1 s waiting for samples and 0.0 s")


def test_a_folder_that_is_not_in_use_gets_no_log(tmp_path: Path) -> None:
    def begin() -> None:
        with RunFolder(tmp_path).faults():
            warn("a warning")
            raise TrainingError("not begun")

    with pytest.raises(TrainingError):
        begin()
    assert list(tmp_path.iterdir()) == []


def test_the_log_of_a_training(command, tiny_training: Path, tmp_path: Path) -> None:
    assert command("train", tiny_training, "--set", "training.epochs=1") == 0
    resumed = ("--resume", "--set", "training.epochs=2", "--set", "data.memory_limit=1e-6")
    assert command("train", tiny_training, *resumed) == 0
    lines = (tmp_path / "run" / "logs" / "rank_0.log").read_text().splitlines()
    told = [line.partition(" ")[2] for line in lines]
    assert [each.partition(":")[0] for each in told[:3]] == ["started", "epoch 1", "finished"]
    assert told[3].startswith("started: rank 0 of 1 on ")
    assert told[3].endswith("cpu, 1 thread; after epoch 1")
    assert told[4].startswith("data.memory_limit = 1e-06 GiB keeps 0 samples")
    assert told[5].startswith("epoch 2: 218 edges in ")
    assert command("train", tiny_training, "--set", f"training.run={tmp_path / 'run'}") == 2  # holds a training
