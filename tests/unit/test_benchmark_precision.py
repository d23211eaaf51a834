"""The benchmark of precisions trains the same network with each."""

import argparse
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from train_precision import PRECISIONS, configuration, known, row

from deeph_tracegrad.config import differing_keys, load_config
from deeph_tracegrad.training.precision import require_fitting_products
from deeph_tracegrad.training.run_folder import RunFolder
from training_file import write_training

ARGUMENTS = argparse.Namespace(out=Path("out"), epochs=30, seed=1, device="cpu")


@pytest.mark.parametrize("name", PRECISIONS)
def test_trainings_differ_in_precision_alone(name: str) -> None:
    config, reference = (configuration(each, Path("dataset"), ARGUMENTS) for each in (name, "float32"))
    require_fitting_products(config.training)
    changed = {"training.run", *(setting.partition("=")[0] for setting in PRECISIONS[name])}
    assert set(differing_keys(config, reference)) == (changed if name != "float32" else set())
    assert known("cpu") == [each for each in PRECISIONS if each != "tf32"]


def test_a_row_tells_the_last_error(graphene_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = load_config(
        write_training(tmp_path, f'dataset = "{graphene_dataset}"\ntest = 0.0\ntrain = 0.5\nvalidation = 0.5')
    )
    monkeypatch.setattr("train_precision.configuration", lambda *_: small)
    name, error, loss, milliseconds = row("float64", graphene_dataset, ARGUMENTS).split()
    last = RunFolder(small.training.run).metrics.read_text().splitlines()[-1].split(",")
    assert (name, error) == ("float64", f"{float(last[5]):.3f}")
    assert float(loss) == pytest.approx(float(last[1]), rel=1e-3)
    assert float(milliseconds) > 0
