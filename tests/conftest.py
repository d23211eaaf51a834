"""Fixtures shared by all tests."""

import lzma
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deeph_tracegrad import cli
from training_file import write_training

DATA = Path(__file__).parent / "data"
EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder of tests/data with its .xz files decompressed; one copy a session, not to be changed."""
    copies = tmp_path_factory.mktemp("data")

    def unpack(name: str) -> Path:
        copy = copies / name.replace("/", "-") / Path(name).name  # a folder and its subfolder are two copies
        if not copy.exists():
            shutil.copytree(DATA / name, copy)
            for packed in copy.rglob("*.xz"):
                packed.with_suffix("").write_bytes(lzma.decompress(packed.read_bytes()))
                packed.unlink()
        return copy

    return unpack


@pytest.fixture
def copy_of(unpacked: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a folder of tests/data that may be changed."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(unpacked(name), tmp_path / Path(name).name))

    return copy


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs `deeph-tracegrad ARGUMENTS` in this process and returns its exit code."""

    def run(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["deeph-tracegrad", *map(str, arguments)])
        with pytest.raises(SystemExit) as leaving:
            cli.main()
        return int(leaving.value.code or 0)

    return run


@pytest.fixture(scope="session")
def graphene_dataset(unpacked: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three distorted 2-atom cells (a_00, a_01, a_02) and an 8-atom one (b_00) of graphene."""
    from deeph_tracegrad.preprocess.build import build_dataset

    folder = tmp_path_factory.mktemp("dataset") / "graphene"
    build_dataset(
        [str(unpacked("openmx") / f"demo_{run}") for run in ("a_00", "a_01", "a_02", "b_00")], folder, workers=1
    )
    return folder


@pytest.fixture
def tiny_training(graphene_dataset: Path, tmp_path: Path) -> Path:
    """A configuration that trains a very small network in seconds, into the folder run beside it."""
    return write_training(
        tmp_path,
        f"""
dataset = "{graphene_dataset}"
train = ["demo_a_*"]
validation = ["demo_b_00"]
max_edges = 160
test = 0.0
""",
    )


@pytest.fixture(scope="session")
def example_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network for the basis of examples/twisted_bilayer, trained for an epoch on one of its runs."""
    from deeph_tracegrad.config import load_config
    from deeph_tracegrad.preprocess.build import build_dataset
    from deeph_tracegrad.training.loop import train

    folder = tmp_path_factory.mktemp("example")
    build_dataset([str(EXAMPLES / "twisted_bilayer" / "runs" / "layer_0")], folder / "dataset", workers=1)
    settings = {
        "data.dataset": folder / "dataset",
        "data.train": '["layer_0"]',
        "data.validation": "[]",
        "model.blocks": 1,
        "model.trunk": "4x0e+4x1o+2x2e",
        "training.run": folder / "run",
        "training.epochs": 1,
        "training.threads": 1,
    }
    overridden = [f"{key}={value}" for key, value in settings.items()]
    train(load_config(EXAMPLES / "twisted_bilayer" / "config.toml", overridden), resume=False)
    return folder / "run" / "last.pt"
