"""Training, evaluation and prediction through the command, on graphene of tests/data."""

import csv
import errno
import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from deeph_tracegrad.config import load_config
from deeph_tracegrad.dataset import GraphDataset
from deeph_tracegrad.deeph_format import read_deeph
from deeph_tracegrad.nn.baseline import SPLINES, TwoCentreBaseline
from deeph_tracegrad.nn.scaling import TargetScaling
from deeph_tracegrad.preprocess.runs import read_material
from deeph_tracegrad.training.checkpoint import load_checkpoint
from deeph_tracegrad.training.labels import trace_labels
from deeph_tracegrad.training.loop import Training
from deeph_tracegrad.training.losses import BlockLoss
from deeph_tracegrad.training.metrics import read_metrics
from deeph_tracegrad.training.schedules import Schedule
from deeph_tracegrad.training.state import TrainingState

Command = Callable[..., int]

FITTED = ("--set", "model.two_centre_baseline=true", "--set", "model.target_scaling=true")


def metrics(run: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv, without the speed."""
    return [{key: row[key] for key in row if key != "edges_per_second"} for row in read_metrics(run / "metrics.csv")]


def assert_same_state(one: Path, other: Path) -> None:
    """Two checkpoints hold the same weights, moments and schedule, bit for bit."""
    left, right = load_checkpoint(one).training, load_checkpoint(other).training
    for part in ("network", "average"):
        assert left[part].keys() == right[part].keys()
        assert all(torch.equal(left[part][name], right[part][name]) for name in left[part])
    for place, moments in left["optimizer"]["state"].items():
        for name, value in moments.items():
            assert torch.equal(value, right["optimizer"]["state"][place][name])
    for name in ("schedule", "epoch", "batch", "best", "best_epoch", "average_updates"):
        assert left[name] == right[name]
    assert torch.equal(left["random"], right["random"])


def test_run_folder_is_complete_and_the_loss_falls(
    command: Command, tiny_training: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("train", tiny_training, "--set", "training.epochs=8") == 0
    run = tmp_path / "run"
    names = {path.name for path in run.iterdir()}
    assert names >= {"config.toml", "versions.json", "split.json", "train.log", "metrics.csv", "best.pt", "last.pt"}
    assert list((run / "tensorboard").iterdir())
    assert load_config(run / "config.toml") == load_config(tiny_training, ["training.epochs=8"])
    assert json.loads((run / "split.json").read_text()) == {
        "train": ["demo_a_00", "demo_a_01", "demo_a_02"],
        "validation": ["demo_b_00"],
        "test": [],
    }
    assert json.loads((run / "versions.json").read_text())["torch"] == torch.__version__
    rows = metrics(run)
    assert [row["epoch"] for row in rows] == [str(epoch) for epoch in range(1, 9)]
    losses = [float(row["train_loss"]) for row in rows]
    assert losses[-1] < 0.8 * losses[0]
    assert float(rows[-1]["validation_loss"]) < float(rows[0]["validation_loss"])
    shown = capsys.readouterr().out
    assert shown == (run / "train.log").read_text()
    assert "3 samples of" in shown
    assert re.search(r"^ +8 ", shown, re.MULTILINE)


def test_one_structure_and_no_validation(command: Command, tiny_training: Path, tmp_path: Path) -> None:
    """The training error decides; it is reported every tenth epoch and after the last."""
    settings = [
        "data.train=['demo_a_00']",
        "data.validation=0.0",
        "training.epochs=25",
        "training.validation_interval=10",
        "training.optimizer.learning_rate=2e-2",
    ]
    assert command("train", tiny_training, *(part for text in settings for part in ("--set", text))) == 0
    rows = metrics(tmp_path / "run")
    assert [row["epoch"] for row in rows] == ["10", "20", "25"]
    assert rows[0]["validation_loss"] == rows[0]["validation_mae_mev"] == ""
    assert float(rows[-1]["train_loss"]) < 0.5 * float(rows[0]["train_loss"])
    assert load_checkpoint(tmp_path / "run" / "best.pt").training["best_epoch"] == 25


def test_deeph_e3_network_trains(command: Command, tiny_training: Path, tmp_path: Path) -> None:
    settings = ["model.tracegrad.enabled=false", "model.hermitian=false", "training.optimizer.ema_decay=0.0"]
    assert command("train", tiny_training, *(part for text in settings for part in ("--set", text))) == 0
    rows = metrics(tmp_path / "run")
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])
    assert rows[0]["train_trace_error"] == ""


def test_trace_errors_are_those_of_the_labels_that_are_chosen(
    command: Command, tiny_training: Path, tmp_path: Path
) -> None:
    settings = ["gradient=false", "signal=nuclear", "labels=log"]
    chosen = [part for text in settings for part in ("--set", f"model.tracegrad.{text}")]
    assert command("train", tiny_training, *chosen, "--set", "training.epochs=8") == 0
    rows = metrics(tmp_path / "run")
    assert float(rows[-1]["train_trace_error"]) < 0.9 * float(rows[0]["train_trace_error"])
    network = load_checkpoint(tmp_path / "run" / "last.pt").network(torch.device("cpu"))
    dataset = GraphDataset(load_config(tiny_training).data.dataset)
    graph = dataset[dataset.labels.index("demo_b_00")]
    labels = trace_labels(graph.target, network.layout, network.settings.tracegrad)
    errors = (network(graph).traces - labels).abs()
    assert float(rows[-1]["validation_trace_error"]) == pytest.approx(errors.mean().item(), rel=1e-9)


@pytest.mark.parametrize(
    ("loss", "further"),
    [("mae", []), ("huber", ["training.huber_delta=0.1"]), ("mse", [*FITTED[1::2], "training.block_weights=norm"])],
)
def test_any_loss_is_minimised_and_validated_by_the_mean_square(
    command: Command, tiny_training: Path, tmp_path: Path, loss: str, further: list[str]
) -> None:
    settings = ["training.epochs=8", f"training.loss={loss}", *further]
    assert command("train", tiny_training, *(part for text in settings for part in ("--set", text))) == 0
    trained = load_checkpoint(tmp_path / "run" / "last.pt")
    cpu = torch.device("cpu")
    network, untrained = trained.network(cpu), TrainingState(trained.config, trained.basis, trained.spin, cpu).network
    fitted = {name: value for name, value in trained.weights.items() if name.startswith("hamiltonian.")}
    untrained.load_state_dict(fitted, strict=False)
    dataset = GraphDataset(trained.config.data.dataset)
    seen, held = (dataset[dataset.labels.index(label)] for label in ("demo_a_00", "demo_b_00"))
    minimised = BlockLoss.of(trained.config.training, network)
    assert minimised is not None
    after, before = (
        minimised(each(seen).coefficients - seen.target, seen, network.layout).item() for each in (network, untrained)
    )
    assert after < 0.9 * before
    squares = network.layout.element_errors(network(held).coefficients - held.target, held).square()
    found = metrics(tmp_path / "run")[-1]["validation_loss"]
    assert float(found) == pytest.approx(squares.mean().item(), rel=1e-9)


def test_weights_that_the_network_does_not_have(
    command: Command, tiny_training: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("train", tiny_training, "--set", "training.block_weights=norm") == 2
    assert "set model.target_scaling = true" in capsys.readouterr().err


@pytest.mark.parametrize(("limit", "kept"), [(0.0, None), (7e-5, 2), (2.0, None)])
def test_results_do_not_depend_on_what_is_kept_in_memory(
    command: Command, tiny_training: Path, tmp_path: Path, limit: float, kept: int | None
) -> None:
    assert command("train", tiny_training) == 0
    limited = ("--set", f"data.memory_limit={limit}", "--set", f"training.run={tmp_path / 'limited'}")
    assert command("train", tiny_training, *limited) == 0
    assert_same_state(tmp_path / "run" / "last.pt", tmp_path / "limited" / "last.pt")
    told = re.findall(r"memory_limit = .* GiB keeps (\d) samples", (tmp_path / "limited" / "train.log").read_text())
    assert told == ([] if kept is None else [str(kept)])


@pytest.mark.parametrize(("steps", "settings"), [(2, ()), (3, ()), (5, ()), (3, FITTED)])
def test_resumed_equals_uninterrupted(
    command: Command,
    tiny_training: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    steps: int,
    settings: tuple[str, ...],
) -> None:
    """An epoch has two batches: the signal comes in the middle of one, or at the end of its last batch."""
    assert command("train", tiny_training, *settings) == 0
    step, done = Training.step, []

    def interrupted_step(self: Training, graph: object) -> None:
        step(self, graph)
        done.append(graph)
        if len(done) == steps:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Training, "step", interrupted_step)
    again = ("train", tiny_training, *settings, "--set", f"training.run={tmp_path / 'again'}")
    assert command(*again) == 75
    assert len(done) == steps
    assert load_checkpoint(tmp_path / "again" / "last.pt").training["epoch"] == steps // 2
    assert command(*again, "--resume") == 0
    assert len(done) == 8
    assert_same_state(tmp_path / "run" / "last.pt", tmp_path / "again" / "last.pt")
    assert metrics(tmp_path / "run") == metrics(tmp_path / "again")


def test_baseline_and_scale_are_fitted_once_to_the_training_samples(
    command: Command, tiny_training: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resumed training finds them in its checkpoint."""
    training = ("train", tiny_training, "--set", "training.schedule.kind=constant", *FITTED)
    assert command(*training, "--set", "training.epochs=1") == 0
    dataset = GraphDataset(load_config(tiny_training).data.dataset)
    first = load_checkpoint(tmp_path / "run" / "last.pt")
    network = first.network(torch.device("cpu"))
    baseline, scaling = TwoCentreBaseline(network.layout, SPLINES), TargetScaling(network.layout)
    samples = [dataset[place] for place in range(3)]
    baseline.fit(samples, dataset.reach, lambda tensor: tensor)
    scaling.fit(samples, baseline, lambda tensor: tensor)
    for part in ("network", "average"):
        assert torch.allclose(first.training[part]["hamiltonian.baseline.table"], baseline.table, rtol=1e-6, atol=1e-9)
        assert torch.allclose(first.training[part]["hamiltonian.scaling.scale"], scaling.scale, rtol=1e-6)

    monkeypatch.delattr(TwoCentreBaseline, "fit")
    monkeypatch.delattr(TargetScaling, "fit")
    assert command(*training, "--resume") == 0
    last = load_checkpoint(tmp_path / "run" / "last.pt").training
    for name in ("hamiltonian.baseline.table", "hamiltonian.baseline.ends", "hamiltonian.scaling.scale"):
        assert torch.equal(last["network"][name], first.training["network"][name])


def test_resumed_after_a_crash_equals_uninterrupted(command: Command, tiny_training: Path, tmp_path: Path) -> None:
    """Rows that were written after the last checkpoint are of lost work."""
    assert command("train", tiny_training) == 0
    again = ("train", tiny_training, "--set", f"training.run={tmp_path / 'again'}")
    assert command(*again, "--set", "training.epochs=2", "--set", "training.schedule.kind=constant") == 0
    with (tmp_path / "again" / "metrics.csv").open("a") as file:
        file.write("3,9,9,9,9,9,9,9\n")
    assert command(*again, "--resume", "--set", "training.schedule.kind=constant") == 0
    assert [row["epoch"] for row in metrics(tmp_path / "again")] == ["1", "2", "3", "4"]
    assert metrics(tmp_path / "again")[0]["train_loss"] == metrics(tmp_path / "run")[0]["train_loss"]


def test_going_back_to_the_best_weights(
    command: Command, tiny_training: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the plateau schedule asks for it, and from its own checkpoint."""
    monkeypatch.setattr(Schedule, "validated", lambda self, error: True)
    assert command("train", tiny_training, "--set", "training.epochs=3") == 0
    best, last = (load_checkpoint(tmp_path / "run" / name).training for name in ("best.pt", "last.pt"))
    assert best["epoch"] == 3
    assert all(torch.equal(best["network"][name], last["network"][name]) for name in best["network"])


def test_a_loss_that_is_no_number_stops_the_training(
    command: Command, tiny_training: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("train", tiny_training, "--set", "training.epochs=2") == 0
    good = (tmp_path / "run" / "last.pt").read_bytes()
    spoilt = ("--set", "training.optimizer.learning_rate=1e300", "--set", "training.optimizer.gradient_clip=0.0")
    capsys.readouterr()
    assert command("train", tiny_training, "--resume", *spoilt) == 2
    message = capsys.readouterr().err
    assert re.search(r"the (training|validation) loss is (nan|inf) in epoch [34]", message)
    assert f"the last good checkpoint is {tmp_path / 'run' / 'last.pt'}" in message
    assert (tmp_path / "run" / "last.pt").read_bytes() == good
    assert command("train", tiny_training, "--resume") == 0


def test_a_start_that_failed_leaves_nothing_in_the_way(command: Command, tiny_training: Path) -> None:
    assert command("train", tiny_training, "--set", "training.optimizer.learning_rate=1e300") == 2
    assert command("train", tiny_training) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], r"run holds a training already; --resume goes on with it"),
        (["--resume", "--set", "model.blocks=3"], r"last\.pt was trained with another model\.blocks"),
        (["--resume", "--set", "data.train=['demo_a_00']"], r"another data\.train"),
        (["--resume", "--set", "training.run=elsewhere"], r"elsewhere holds no last\.pt to resume from"),
        (["--set", "training.epohs=3"], r"unknown key epohs in \[training\]; the nearest known one is epochs"),
        (["--set", "model.trunk=4x1e"], r"no irrep of 4x1e can be made of 8x0e and 8x0e with harmonics up to l = 2"),
        (["--set", "training.device=gpu"], r"device gpu: expected cpu, cuda, cuda:N or auto"),
        (["--set", "data.dataset=nowhere"], r"nowhere: no dataset here"),
        (["--set", "data.train=['c_*']"], r"data\.train names c_\*, but no sample is called so"),
        (["--set", "training.run=DATASET"], r"exists and is no training"),
    ],
)
def test_mistakes_end_with_a_sentence(
    command: Command, tiny_training: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    command("train", tiny_training, "--set", "training.epochs=1")
    capsys.readouterr()
    dataset = str(load_config(tiny_training).data.dataset)
    assert command("train", tiny_training, *(argument.replace("DATASET", dataset) for argument in arguments)) == 2
    assert re.search(message, capsys.readouterr().err)


def test_a_run_folder_that_cannot_be_made(
    command: Command, tiny_training: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("train", tiny_training, "--set", f"training.run={tiny_training / 'run'}") == 2
    assert re.search(r"training\.toml.*cannot be written", capsys.readouterr().err)


def test_a_full_disk_keeps_the_last_good_checkpoint(
    command: Command,
    tiny_training: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command("train", tiny_training, "--set", "training.epochs=1") == 0
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    good = (tmp_path / "run" / "last.pt").read_bytes()

    def half_written(path: Path, content: memoryview) -> None:
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", half_written)
    assert command("train", tiny_training, "--resume") == 2
    assert re.search(r"run/(best|last)\.pt: .*No space left on device", capsys.readouterr().err)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == names
    assert (tmp_path / "run" / "last.pt").read_bytes() == good


def test_a_log_that_cannot_be_written(
    command: Command, tiny_training: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.toml").touch()
    (tmp_path / "run" / "train.log").mkdir()
    assert command("train", tiny_training) == 2
    assert re.search(r"error: .*train\.log: \w", capsys.readouterr().err)


def test_a_batch_that_needs_too_much_memory(
    command: Command, tiny_training: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def step(self: Training, graph: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 90 GiB")

    monkeypatch.setattr(Training, "step", step)
    assert command("train", tiny_training) == 2
    assert "does not suffice; lower data.max_edges, now 160" in capsys.readouterr().err


def test_another_dataset_cannot_be_resumed(
    command: Command, tiny_training: Path, tmp_path: Path, unpacked: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    command("train", tiny_training, "--set", "training.epochs=1")
    runs = [unpacked("openmx") / f"demo_{name}" for name in ("a_00", "a_01", "b_00")]
    assert command("preprocess", *runs, "--out", tmp_path / "other", "--workers", 1) == 0
    assert command("train", tiny_training, "--resume", "--set", f"data.dataset={tmp_path / 'other'}") == 2
    assert "is not the dataset that" in capsys.readouterr().err


def test_errors_agree_between_train_evaluate_and_predict(
    command: Command, tiny_training: Path, tmp_path: Path, unpacked: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three ways to the same number: in training, from stored irreps, and from written DeepH folders."""
    assert command("train", tiny_training) == 0
    while_training = float(metrics(tmp_path / "run")[-1]["validation_mae_mev"])
    last, run = tmp_path / "run" / "last.pt", unpacked("openmx") / "demo_b_00"
    dataset = load_config(tiny_training).data.dataset
    capsys.readouterr()

    assert command("evaluate", last, dataset, "--out", tmp_path / "errors" / "tiny", "--device", "cpu") == 0
    shown = capsys.readouterr().out
    errors = json.loads((tmp_path / "errors" / "tiny.json").read_text())["errors"]
    assert errors["validation"]["all"]["mae"] == pytest.approx(while_training, rel=1e-12)
    assert f"{while_training:.4f}" in shown
    assert set(errors) == {"train", "validation"}
    assert errors["train"]["on-site"]["elements"] == 3 * 2 * 25
    with (tmp_path / "errors" / "tiny.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["samples"] == "validation"]
    counts, maes = (np.array([float(row[name]) for row in rows]) for name in ("elements", "mae_mev"))
    assert (counts @ maes) / counts.sum() == pytest.approx(while_training, rel=1e-12)
    assert {(row["shell_i"], row["shell_j"]) for row in rows} == {(a, b) for a in SHELLS for b in SHELLS}
    assert (tmp_path / "errors" / "tiny.png").read_bytes().startswith(b"\x89PNG")

    assert command("predict", last, run, "--out", tmp_path / "predicted", "--device", "cpu") == 0
    said = float(re.search(r"MAE of H ([\d.]+) meV", capsys.readouterr().out)[1])
    truth, predicted = read_material(run), read_deeph(tmp_path / "predicted" / "demo_b_00")
    difference = predicted.hamiltonian[0].on_pairs(truth.hamiltonian[0].pairs).entries - truth.hamiltonian[0].entries
    assert 1e3 * np.abs(difference).mean() == pytest.approx(while_training, rel=1e-9)
    assert said == pytest.approx(while_training, abs=1e-4)
    assert predicted.hamiltonian[0].symmetrised()[1] < 1e-12
    assert np.abs(predicted.overlap.on_pairs(truth.overlap.pairs).entries - truth.overlap.entries).max() == 0.0
    assert predicted.electrons == truth.electrons
    assert predicted.fermi_level is None


SHELLS = ("s1", "s2", "p1")


def test_predict_skips_what_does_not_fit(
    command: Command, tiny_training: Path, tmp_path: Path, unpacked: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    command("train", tiny_training, "--set", "training.epochs=1")
    runs = [unpacked("openmx") / name for name in ("graphene", "mos2", "fe_bcc_spin", "demo_a_00")]
    predict = ("predict", tmp_path / "run" / "best.pt", *runs, "--out", tmp_path / "predicted")
    assert command(*predict) == 1
    captured = capsys.readouterr()
    assert "graphene: C has the shells s2p2d1, but the network was trained for s2p1" in captured.err
    assert "mos2: the network knows C s2p1, but not" in captured.err
    assert "fe_bcc_spin: the network knows C s2p1, but not Fe" in captured.err
    assert [path.name for path in (tmp_path / "predicted").iterdir()] == ["demo_a_00"]
    assert command(*predict) == 1  # an earlier prediction is replaced


def test_samples_that_no_part_names_are_less_known_than_the_validation_ones(
    command: Command, tiny_training: Path, tmp_path: Path, graphene_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = ("--set", "data.train=['demo_a_00']", "--set", "data.validation=['demo_a_01']")
    assert command("train", tiny_training, "--set", "training.epochs=1", *named) == 0
    assert command("evaluate", tmp_path / "run" / "best.pt", graphene_dataset, "--out", tmp_path / "errors") == 0
    assert "By element pair, unused samples" in capsys.readouterr().out
    errors = json.loads((tmp_path / "errors.json").read_text())["errors"]
    assert list(errors) == ["train", "validation", "unused"]


def test_evaluate_tells_at_once_that_it_cannot_write(
    command: Command, tiny_training: Path, tmp_path: Path, graphene_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command("train", tiny_training, "--set", "training.epochs=1")
    capsys.readouterr()
    out = tiny_training / "errors"
    assert command("evaluate", tmp_path / "run" / "best.pt", graphene_dataset, "--out", out) == 2
    captured = capsys.readouterr()
    assert "errors.csv: cannot be written" in captured.err
    assert not captured.out


def test_a_prediction_that_cannot_be_written_ends_the_command(
    command: Command, tiny_training: Path, tmp_path: Path, unpacked: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    command("train", tiny_training, "--set", "training.epochs=1")
    run = unpacked("openmx") / "demo_a_00"
    assert command("predict", tmp_path / "run" / "best.pt", run, "--out", tiny_training) == 2
    assert re.search(r"training\.toml.*cannot be written", capsys.readouterr().err)


def test_predict_does_not_overwrite_a_run(
    command: Command, tiny_training: Path, tmp_path: Path, unpacked: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    command("train", tiny_training, "--set", "training.epochs=1")
    run = unpacked("openmx") / "demo_a_00"
    before = sorted(path.name for path in run.iterdir())
    assert command("predict", tmp_path / "run" / "best.pt", run, "--out", run.parent) == 1
    assert "exists and is no prediction; give another --out" in capsys.readouterr().err
    assert sorted(path.name for path in run.iterdir()) == before


def test_evaluate_refuses_a_dataset_that_does_not_fit(
    command: Command, tiny_training: Path, tmp_path: Path, unpacked: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    command("train", tiny_training, "--set", "training.epochs=1")
    assert command("preprocess", unpacked("openmx") / "graphene", "--out", tmp_path / "other", "--workers", 1) == 0
    assert command("evaluate", tmp_path / "run" / "best.pt", tmp_path / "other") == 2
    assert "C has the shells s2p2d1, but the network was trained for s2p1" in capsys.readouterr().err
