"""Datasets as they are read: whole, or refused."""

import numpy as np
import pytest

from damage import cut, flipped, outcome
from deeph_tracegrad.dataset import GraphDataset
from deeph_tracegrad.deeph_format import write_deeph
from deeph_tracegrad.orbitals import SpinMode
from deeph_tracegrad.preprocess.build import build_dataset
from materials import random_material


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """A dataset of one small crystal, to be damaged and mended."""
    work = tmp_path_factory.mktemp("dataset")
    write_deeph(random_material(SpinMode.NONE), work / "runs" / "one")
    build_dataset([str(work / "runs")], work / "dataset", workers=1)
    return work / "dataset"


@pytest.fixture(params=["dataset.json", "shard"])
def file(request, dataset):
    path = dataset / request.param if request.param == "dataset.json" else next(dataset.glob("shards/*.h5"))
    whole = path.read_bytes()
    yield path
    path.write_bytes(whole)


def sample_of(path):
    return GraphDataset(path).sample(0)


def test_cut_files_are_refused(dataset, file):
    for content in cut(file.read_bytes(), seed=1):
        file.write_bytes(content)
        assert outcome(sample_of, dataset) is None


def test_flipped_bits_never_change_a_number(dataset, file):
    good = sample_of(dataset)
    for content in flipped(file.read_bytes(), seed=2):
        file.write_bytes(content)
        sample = outcome(sample_of, dataset)
        if sample is not None:
            for name in ("atomic_numbers", "positions", "cell", "pairs", "vectors", "frames", "blocks"):
                np.testing.assert_array_equal(getattr(sample, name), getattr(good, name))


def test_wrong_files_are_refused(dataset, file):
    for content in (b"", b"\0" * 5000, np.random.default_rng(3).bytes(5000), b"[]", b"{}\n", b"[" * 100_000):
        file.write_bytes(content)
        assert outcome(sample_of, dataset) is None
