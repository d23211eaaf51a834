"""A configuration that trains a very small network in seconds, and whether two trainings are the same."""

from pathlib import Path

import pytest

from deeph_tracegrad.training.checkpoint import load_checkpoint
from deeph_tracegrad.training.metrics import read_metrics


def write_training(folder: Path, data: str) -> Path:
    """training.toml in this folder, to train into the folder run beside it. data: the keys of its section [data]."""
    path = folder / "training.toml"
    path.write_text(
        f"""
[data]
{data}
[model]
blocks = 2
trunk = "4x0e+4x1o+2x2e"
node_channels = 8
edge_channels = 8
harmonics_degree = 2
radial_basis = 16
two_centre_baseline = false
target_scaling = false
tracegrad = {{ width = 8, decoder_width = 8 }}
[training]
run = "{folder / "run"}"
epochs = 4
dtype = "float64"
device = "cpu"
threads = 1
loss = "mse"
optimizer = {{ learning_rate = 5e-3 }}
schedule = {{ warmup_epochs = 1 }}
"""
    )
    return path


def assert_same_training(one: Path, other: Path) -> None:
    """The same losses and weights, in double precision, as what these run folders hold."""
    left, right = (load_checkpoint(folder / "last.pt").training for folder in (one, other))
    for kind in ("network", "average"):
        largest = max(weight.abs().max() for weight in left[kind].values())
        for name, weight in left[kind].items():
            assert (right[kind][name] - weight).abs().max() < 1e-10 * largest, name
    for row, same in zip(*(read_metrics(folder / "metrics.csv") for folder in (one, other)), strict=True):
        for name in row.keys() - {"edges_per_second"}:
            if row[name] or same[name]:
                assert float(same[name]) == pytest.approx(float(row[name]), rel=1e-10), name
