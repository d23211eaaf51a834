"""Datasets as they are read: whole, or refused."""

import copy
import json
import shutil
from contextlib import closing
from pathlib import Path

import h5py
import numpy as np
import pytest

from damage import cut, flipped, outcome
from deeph_tracegrad.dataset import GraphDataset
from deeph_tracegrad.deeph_format import write_deeph
from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.orbitals import SpinMode
from deeph_tracegrad.preprocess.build import build_dataset
from deeph_tracegrad.shards import OpenShards, Shard, write_shard
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


ARRAYS = ("atomic_numbers", "positions", "cell", "pairs", "vectors", "frames", "blocks")


def assert_equal(one, other):
    assert (one.label, one.metadata) == (other.label, other.metadata)
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


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
            for name in ARRAYS:
                np.testing.assert_array_equal(getattr(sample, name), getattr(good, name))


def test_wrong_files_are_refused(dataset, file):
    for content in (b"", b"\0" * 5000, np.random.default_rng(3).bytes(5000), b"[]", b"{}\n", b"[" * 100_000):
        file.write_bytes(content)
        assert outcome(sample_of, dataset) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("edges", "12"),
        ("edges", 1.5),
        ("edges", -1),
        ("place", 1 << 70),
        ("label", 3),
        ("shard", None),
        ("atoms", True),
    ],
)
def test_an_index_with_other_things_in_it_is_refused(dataset, field, value):
    index = dataset / "dataset.json"
    whole = index.read_text()
    content = json.loads(whole)
    content["samples"][0][field] = value
    index.write_text(json.dumps(content))
    try:
        with pytest.raises(ReadError, match=f"damaged index .*{field}"):
            GraphDataset(dataset)
    finally:
        index.write_text(whole)


def test_samples_of_different_sizes_come_back_in_any_order(graphene_dataset, tmp_path):
    dataset = GraphDataset(graphene_dataset)
    samples = [dataset.sample(place) for place in (0, 3, 1, 2, 3, 3, 0)]  # of 2 and 8 atoms
    with write_shard(tmp_path / "shard.h5", dataset.spin) as writer:
        for sample in samples:
            writer.append(sample)
    with closing(Shard(tmp_path / "shard.h5")) as shard:
        for place in (4, 0, 6, 1, 5, 3, 2, 4):
            assert_equal(shard.sample(place), samples[place])
        for nowhere in (7, -1, 1 << 62):
            with pytest.raises(ReadError, match="damaged shard"):
                shard.sample(nowhere)


def test_a_small_sample_takes_little_space(graphene_dataset):
    dataset = GraphDataset(graphene_dataset)
    sample = dataset.sample(0)
    stored = sum(getattr(sample, name).nbytes for name in ARRAYS if name != "vectors")
    shard = graphene_dataset / "shards" / dataset.entries[0].shard
    assert shard.stat().st_size < stored + 100_000


def test_shards_of_earlier_versions_are_read(graphene_dataset, tmp_path):
    shard = next(graphene_dataset.glob("shards/*.h5"))
    earlier = tmp_path / "earlier.h5"
    with h5py.File(shard) as source, h5py.File(earlier, "w", libver="earliest") as target:
        target.attrs.update(source.attrs)
        for name in (f"{group}/{name}" for group in source for name in source[group]):
            rows, shape = source[name], source[name].shape[1:]
            chunks = (max(1, (1 << 18) // (8 * max(1, int(np.prod(shape))))), *shape)
            text = h5py.check_string_dtype(rows.dtype) is not None
            target.create_dataset(
                name, data=rows[()], dtype=rows.dtype, maxshape=(None, *shape), chunks=chunks, fletcher32=not text
            )
    with closing(Shard(earlier)) as one, closing(Shard(shard)) as other:
        assert_equal(one.sample(0), other.sample(0))
        assert one.index == other.index


def open_shards(folder):
    targets = [path.resolve() for path in Path("/proc/self/fd").iterdir()]
    return sum(target.parent == folder / "shards" for target in targets)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files as Linux lists them")
def test_a_bounded_number_of_shards_is_open(graphene_dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(OpenShards, "LIMIT", 2)
    folder = Path(shutil.copytree(graphene_dataset, tmp_path / "dataset"))  # which nothing else has open
    dataset = GraphDataset(folder)
    assert len({entry.shard for entry in dataset.entries}) == 4
    for place in (0, 1, 0, 2, 3, 0, 3):
        assert dataset.sample(place).label == dataset.labels[place]
        assert open_shards(folder) <= 2
    assert open_shards(folder) == 2
    assert copy.deepcopy(dataset).sample(1).label == dataset.labels[1]  # as for another process
    del dataset
    assert open_shards(folder) == 0


def test_a_mended_shard_is_read_again(dataset):
    opened, shard = GraphDataset(dataset), next(dataset.glob("shards/*.h5"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    try:
        with pytest.raises(ReadError, match=shard.name):
            opened.sample(0)
    finally:
        shard.write_bytes(whole)
    assert_equal(opened.sample(0), sample_of(dataset))
