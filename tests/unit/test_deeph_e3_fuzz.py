"""Damaged files of a DeepH-E3 model end in a ReadError that names the file, or change nothing of the network."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from damage import cut, flipped, outcome
from deeph_tracegrad.deeph_e3 import folder
from deeph_tracegrad.deeph_e3.arguments import read_arguments
from deeph_tracegrad.deeph_e3.importer import as_checkpoint
from deeph_tracegrad.deeph_e3.outputs import read_basis, read_targets

MODEL = "soc_e3nn060"


@pytest.fixture
def model(unpacked: Callable[[str], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(unpacked("deeph_e3") / "models" / MODEL, tmp_path / "model"))


def targets(path: Path) -> Any:
    basis, _ = read_basis(path.with_name("dataset_info.json"))
    return read_targets(path, basis)


@pytest.mark.parametrize(
    ("file", "reader"),
    [
        (folder.ARGUMENTS, read_arguments),
        (folder.DATASET, read_basis),
        (folder.TARGETS, targets),
        (folder.SETTINGS, folder._read_settings),
    ],
)
def test_damaged_texts(model: Path, file: str, reader: Callable[[Path], Any]) -> None:
    path = model / file
    whole = path.read_bytes()
    refused = 0
    for damaged in [*cut(whole, 0), *flipped(whole, 1), b"", bytes(1000), whole[::-1]]:
        path.write_bytes(damaged)
        refused += outcome(reader, path) is None
    assert refused > 100 or file == folder.SETTINGS  # which is mostly about the training


def test_damaged_weights(model: Path) -> None:
    path = model / folder.WEIGHTS
    whole, network = path.read_bytes(), as_checkpoint(folder.read_model(model)).weights
    refused = 0
    for damaged in [*cut(whole, 0, count=40), *flipped(whole, 1, count=40), b"", bytes(1000), whole[::-1]]:
        path.write_bytes(damaged)
        checkpoint = outcome(lambda model: as_checkpoint(folder.read_model(model)), model)
        refused += checkpoint is None
        if checkpoint is not None:  # the bit is in the archive's padding or dates
            assert all(torch.equal(tensor, network[name]) for name, tensor in checkpoint.weights.items())
    assert refused > 60
