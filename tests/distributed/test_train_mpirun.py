"""Training on several ranks against one, through mpirun."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from deeph_tracegrad.dataset import GraphDataset
from deeph_tracegrad.training.checkpoint import load_checkpoint
from deeph_tracegrad.training.losses import error_sums
from deeph_tracegrad.training.metrics import read_metrics
from launching import TRAININGS
from training_file import assert_same_training, write_training

BIN = Path(sys.executable).parent
MPIRUN, COMMAND = BIN / "mpirun", BIN / "deeph-tracegrad"

pytestmark = [pytest.mark.mpi, pytest.mark.skipif(not MPIRUN.exists(), reason="needs mpirun beside the interpreter")]


def on_two_ranks(*arguments: object, program: Sequence[str] = (str(COMMAND),)) -> subprocess.CompletedProcess:
    return on_ranks(2, *arguments, program=program)


def on_ranks(size: int, *arguments: object, program: Sequence[str]) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(MPIRUN), "-n", str(size), *program, *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


STEPS = 20
CASES = {
    "traced": "model.tracegrad.loss_weight=0.3",
    "plain": "model.tracegrad.enabled=false",
    # fits that sum over the ranks, and weights without any gradient
    "fitted": "model.two_centre_baseline=true model.target_scaling=true model.tracegrad.loss_weight=0.0",
    "relative": "training.loss=huber model.target_scaling=true training.block_weights=norm model.tracegrad.labels=log",
}


@pytest.fixture(scope="module")
def uneven_dataset(unpacked: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six samples of 2 atoms and three of 8: train_a*, train_b*, held_a*, held_b*."""
    from deeph_tracegrad.preprocess.build import build_dataset

    runs = tmp_path_factory.mktemp("runs")
    sources = {"train_a0": "a_00", "train_a1": "a_01", "train_a2": "a_02", "train_a3": "a_00", "train_b0": "b_00"}
    sources |= {"train_b1": "b_00", "held_a0": "a_01", "held_a1": "a_02", "held_b0": "b_00"}
    for name, source in sources.items():
        shutil.copytree(unpacked("openmx") / f"demo_{source}", runs / name)
    build_dataset([str(runs)], runs.parent / "uneven", workers=1)
    return runs.parent / "uneven"


@pytest.fixture(scope="module")
def trainings(uneven_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The folder of the trainings of each number of ranks."""
    folder = tmp_path_factory.mktemp("trainings")
    config = write_training(
        folder,
        f"""
dataset = "{uneven_dataset}"
train = ["train_*"]
validation = ["held_*"]
max_edges = 450
test = 0.0
""",
    )
    optimizer = ("gradient_clip=0.1", "ema_decay=0.9", "weight_decay=0.05")
    shared = " ".join(["training.epochs=10", *(f"training.optimizer.{setting}" for setting in optimizer)])
    folders = {size: folder / str(size) for size in (1, 2, 3)}
    for size, runs in folders.items():
        names = [f"{name} {shared} {settings}" for name, settings in CASES.items()]
        done = on_ranks(size, config, runs, *names, program=TRAININGS)
        assert done.returncode == 0, done.stderr
        assert f"{size} rank" in done.stdout
        # the main rank alone speaks
        assert done.stdout == "".join((runs / name / "train.log").read_text() for name in CASES)
    return folders


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("size", [2, 3])
def test_ranks_train_as_one(trainings: dict[int, Path], case: str, size: int) -> None:
    """With samples of two sizes, and batches of fewer samples than ranks, so that some have nothing to do."""
    alone, together = (trainings[number] / case for number in (1, size))
    assert load_checkpoint(alone / "last.pt").training["average_updates"] >= STEPS
    assert_same_training(alone, together)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_validation_is_the_mean_over_all_elements(trainings: dict[int, Path], uneven_dataset: Path, case: str) -> None:
    """Of three ranks, against samples one by one: each counts by its elements of H."""
    run = trainings[3] / case
    network = load_checkpoint(run / "last.pt").network(torch.device("cpu"))
    dataset = GraphDataset(uneven_dataset)
    held = [dataset[place] for place, label in enumerate(dataset.labels) if label.startswith("held")]
    sums = [error_sums(network(graph)._replace(traces=None), graph, network.layout) for graph in held]
    assert len({each[1].item() for each in sums}) > 1
    squared, elements, *_ = torch.stack(sums).sum(dim=0).tolist()
    assert float(read_metrics(run / "metrics.csv")[-1]["validation_loss"]) == pytest.approx(squared / elements)


@pytest.mark.slow
def test_two_ranks_evaluate_as_one(
    command: Callable[..., int], tiny_training: Path, tmp_path: Path, graphene_dataset: Path
) -> None:
    assert command("train", tiny_training, "--set", "training.epochs=1") == 0
    evaluation = ("evaluate", tmp_path / "run" / "last.pt", graphene_dataset, "--out")
    assert command(*evaluation, tmp_path / "alone") == 0
    assert on_two_ranks(*evaluation, tmp_path / "together").returncode == 0
    one, two = (json.loads((tmp_path / f"{name}.json").read_text())["errors"] for name in ("alone", "together"))
    for part in one:
        assert two[part]["all"] == pytest.approx(one[part]["all"], rel=1e-12)


def test_the_reason_of_the_one_rank_that_fails_is_told(tiny_training: Path) -> None:
    broken = (
        "from deeph_tracegrad import cli; from deeph_tracegrad.errors import TrainingError; "
        "from deeph_tracegrad.parallel import world; from deeph_tracegrad.training.loop import Training\n"
        "step = Training.step\n"
        "def broken(self, graph):\n"
        "    if world().rank == 1 and self.state.epoch == 1: raise TrainingError('this rank alone cannot go on')\n"
        "    step(self, graph)\n"
        "Training.step = broken\n"
        "cli.main()"
    )
    done = on_two_ranks("train", tiny_training, program=(sys.executable, "-c", broken))
    assert done.returncode == 2
    assert "error: this rank alone cannot go on" in done.stderr
    assert "internal error" not in done.stderr


def test_a_mistake_ends_all_ranks(tiny_training: Path) -> None:
    done = on_two_ranks("train", tiny_training, "--set", "data.dataset=nowhere")
    assert done.returncode != 0
    assert "nowhere: no dataset here" in done.stderr
