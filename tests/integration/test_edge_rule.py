"""All samples of a dataset have the edges within one reach, whatever the order in which runs are met."""

import json
from dataclasses import replace

import h5py
import numpy as np
import pytest

from deeph_tracegrad.dataset import GraphDataset
from deeph_tracegrad.deeph_format import write_deeph
from deeph_tracegrad.edges import edge_pairs, longest_edges
from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.orbitals import SpinMode
from deeph_tracegrad.preprocess.build import build_dataset
from deeph_tracegrad.preprocess.runs import read_material
from materials import random_material


def shortened(material, by):
    """The material without its longest pairs, by Å."""
    pairs = material.overlap.pairs
    lengths = np.linalg.norm(material.pair_vectors(pairs), axis=1)
    kept = pairs[lengths < lengths.max() - by]
    return replace(
        material,
        overlap=material.overlap.on_pairs(kept),
        hamiltonian=tuple(matrix.on_pairs(kept) for matrix in material.hamiltonian),
    )


@pytest.fixture
def runs(tmp_path):
    """Two crystals, of which the first ends before the second."""
    whole = random_material(SpinMode.NONCOLLINEAR)
    write_deeph(shortened(whole, by=0.5), tmp_path / "runs" / "one")
    write_deeph(whole, tmp_path / "runs" / "two")
    return tmp_path / "runs"


@pytest.mark.parametrize("separately", [False, True])
def test_a_sample_gets_the_edges_of_a_longer_one(runs, separately, capsys, tmp_path):
    out = tmp_path / "dataset"
    if separately:
        build_dataset([str(runs / "one")], out, workers=1)
    build_dataset([str(runs)], out, workers=1)
    assert "1 sample got" in capsys.readouterr().out
    dataset = GraphDataset(out)
    one, two = (dataset.sample(dataset.labels.index(label)) for label in ("one", "two"))
    assert np.array_equal(one.pairs, two.pairs)
    assert dataset.edge_counts.tolist() == [len(two.pairs)] * 2
    short = read_material(runs / "one")
    graph = dataset[dataset.labels.index("one")]
    lengths = graph.edge_vec.norm(dim=1).numpy()
    known = longest_edges(short.elements, short.overlap.pairs, short.pair_vectors(short.overlap.pairs))
    beyond = lengths > max(known.values()) + 1e-3
    assert beyond.any()
    assert not graph.target[beyond].any()
    assert graph.target[~beyond].abs().sum() > 0
    # a prediction has the same edges
    assert len(edge_pairs(short.with_hamiltonian(()), dataset.reach)) == len(one.pairs)


def test_a_dataset_of_the_first_format_is_refused_and_converted(runs, tmp_path):
    out = tmp_path / "dataset"
    build_dataset([str(runs)], out, workers=1)
    expected = GraphDataset(out).edge_counts
    index = json.loads((out / "dataset.json").read_text())
    (out / "dataset.json").write_text(json.dumps(index | {"format_version": 1}))
    for shard in (out / "shards").glob("*.h5"):
        with h5py.File(shard, "a") as file:
            content = json.loads(file.attrs["index"])
            del content["complete_within"]
            file.attrs["index"] = json.dumps(content)
    with pytest.raises(ReadError, match="run preprocess again with the same --out"):
        GraphDataset(out)
    build_dataset([str(runs)], out, workers=1)
    assert np.array_equal(GraphDataset(out).edge_counts, expected)


@pytest.mark.parametrize("case", ["si2", "fe_nspin2"])
def test_blocks_of_h_beyond_the_overlap_are_kept(unpacked, case, tmp_path):
    build_dataset([str(unpacked(f"abacus/{case}"))], tmp_path / "dataset", workers=1)
    dataset, material = GraphDataset(tmp_path / "dataset"), read_material(unpacked(f"abacus/{case}"))
    assert dataset.edge_counts[0] >= len(material.hamiltonian[0]) > len(material.overlap)
