"""`inspect` of the run folder of a training, finished, broken or damaged."""

import os
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from deeph_tracegrad.errors import ConfigError, ReadError
from deeph_tracegrad.preprocess.inspection import training_findings
from deeph_tracegrad.training.loop import Training
from deeph_tracegrad.training.metrics import read_metrics

Command = Callable[..., int]


@pytest.fixture
def finished(command: Command, tiny_training: Path, tmp_path: Path) -> Path:
    assert command("train", tiny_training, "--set", "training.schedule.kind=constant") == 0
    return tmp_path / "run"


def test_a_finished_training(command: Command, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert command("inspect", finished) == 0
    shown = capsys.readouterr().out
    assert "losses.png" in shown
    found = {finding.name: finding for finding in training_findings(finished)}
    assert not any(finding.warning for finding in found.values())
    last = read_metrics(finished / "metrics.csv")[-1]
    assert found["epochs"].value == "4 of 4"
    assert found["lowest error"].value == f"{float(last['validation_loss']):.4e} eV² after epoch 4"
    assert found["last error"].value.startswith(f"{float(last['validation_loss']):.4e} eV²")
    assert found["state"].value == "finished: 4 epochs"
    assert found["started"].value == "cpu, 1 rank (1 time)"
    assert (found["interruptions"].value, found["rollbacks"].value) == ("0", "0")
    assert (finished / "losses.png").read_bytes().startswith(b"\x89PNG")


def test_a_training_that_was_stopped_and_one_that_vanished(
    command: Command, tiny_training: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, done = Training.step, []

    def interrupted(self: Training, graph: object) -> None:
        step(self, graph)
        done.append(graph)
        if len(done) == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Training, "step", interrupted)
    assert command("train", tiny_training) == 75
    found = {finding.name: finding for finding in training_findings(tmp_path / "run")}
    assert found["state"].value.startswith("stopped: stopped in epoch 2 by SIGTERM")
    assert "--resume goes on" in found["state"].warning
    assert (found["epochs"].value, found["interruptions"].value) == ("1 of 4", "1")

    events = (tmp_path / "run" / "events.csv").read_text().splitlines()
    (tmp_path / "run" / "events.csv").write_text("\n".join(events[:2]) + "\n")
    found = {finding.name: finding for finding in training_findings(tmp_path / "run")}
    assert found["state"].value == "started, no end recorded"
    assert "out of memory" in found["state"].warning


def test_a_row_that_a_kill_cut_off_is_left_out(finished: Path) -> None:
    path = finished / "metrics.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:-1], lines[-1][:9]]))
    assert {finding.name: finding.value for finding in training_findings(finished)}["epochs"] == "3 of 4"


@pytest.mark.parametrize("name", ["metrics.csv", "events.csv", "config.toml"])
def test_damaged_tables_end_in_an_error_or_pass(finished: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr("deeph_tracegrad.training.run_report.RunReport.draw", lambda self: "")
    content, random = (finished / name).read_bytes(), np.random.default_rng(0)
    for trial in range(200):
        damaged = bytearray(content)
        for place in random.integers(len(content), size=1 + trial % 3):
            damaged[place] = random.integers(256)
        (finished / name).write_bytes(damaged[: random.integers(len(content))] if trial % 4 == 0 else damaged)
        with suppress(ReadError, ConfigError):
            training_findings(finished)


def test_a_training_in_a_folder_that_cannot_be_written(finished: Path) -> None:
    (finished / "losses.png").mkdir()
    (finished / "losses.png" / "x").touch()
    drawn = {finding.name: finding.value for finding in training_findings(finished)}["loss curves"]
    assert drawn.startswith("not drawn: ")
    shutil.rmtree(finished / "losses.png")
