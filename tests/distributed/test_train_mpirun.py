"""Training on two ranks against one, through mpirun."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from deeph_tracegrad.training.checkpoint import load_checkpoint
from deeph_tracegrad.training.metrics import read_metrics

BIN = Path(sys.executable).parent
MPIRUN, COMMAND = BIN / "mpirun", BIN / "deeph-tracegrad"

pytestmark = [pytest.mark.mpi, pytest.mark.skipif(not MPIRUN.exists(), reason="needs mpirun beside the interpreter")]


def on_two_ranks(*arguments: object, program: Sequence[str] = (str(COMMAND),)) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(MPIRUN), "-n", "2", *program, *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("fitted", ["false", "true"])
def test_two_ranks_train_as_one(command: Callable[..., int], tiny_training: Path, tmp_path: Path, fitted: str) -> None:
    """The second batch of every epoch has one sample, so that one of the ranks has nothing to do.

    fitted: with baseline and scaling, whose fit sums over the ranks.
    """
    alone, together = tmp_path / "run", tmp_path / "together"
    settings = ("--set", f"model.two_centre_baseline={fitted}", "--set", f"model.target_scaling={fitted}")
    assert command("train", tiny_training, *settings) == 0
    done = on_two_ranks("train", tiny_training, *settings, "--set", f"training.run={together}")
    assert done.returncode == 0, done.stderr
    assert "2 ranks" in done.stdout
    assert done.stdout == (together / "train.log").read_text()  # the main rank alone speaks
    rows = zip(read_metrics(alone / "metrics.csv"), read_metrics(together / "metrics.csv"), strict=True)
    for left, right in rows:
        for name in left.keys() - {"edges_per_second"}:
            assert float(right[name]) == pytest.approx(float(left[name]), rel=1e-9), name
    weights = [load_checkpoint(folder / "last.pt").weights for folder in (alone, together)]
    for name in weights[0]:
        assert torch.allclose(weights[0][name], weights[1][name], rtol=1e-7, atol=1e-9), name


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
