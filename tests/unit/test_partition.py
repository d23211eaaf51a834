"""Crystals cut into parts of their bonds."""

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch

from deeph_tracegrad.edges import edge_pairs
from deeph_tracegrad.graph import HamiltonianGraph
from deeph_tracegrad.orbitals import SpinMode
from deeph_tracegrad.partition import divided
from deeph_tracegrad.samples import build_sample
from deeph_tracegrad.targets import TargetLayout
from materials import random_material


def labelled(seed: int = 0) -> HamiltonianGraph:
    material = random_material(SpinMode.NONE, seed=seed)
    sample = build_sample(material, "sample", edge_pairs(material))
    return HamiltonianGraph.from_sample(sample, material.basis, TargetLayout(material.basis, material.spin))


@pytest.mark.parametrize("parts", [1, 2, 3, 10, 500])
@pytest.mark.parametrize("shuffled", [False, True])
def test_every_part_has_whole_bonds_and_its_share(parts: int, shuffled: bool) -> None:
    graph = labelled()
    first, reverse = graph.edge_index[0].numpy(), graph.reverse_edge.numpy()
    if shuffled:
        order = np.random.default_rng(0).permutation(len(first))
        first, reverse = first[order], np.argsort(order)[reverse[order]]
    cut = divided(first, reverse, parts)
    assert len(cut) == parts
    assert np.array_equal(np.sort(np.concatenate(cut)), np.arange(len(first)))
    for rows in cut:
        assert set(reverse[rows]) == set(rows)
        assert abs(len(rows) - len(first) / parts) <= 2
        on_site = first[rows][reverse[rows] == rows]
        assert np.array_equal(reverse[rows][: len(on_site)], rows[: len(on_site)])
        assert (np.diff(on_site) > 0).all()
    assert len(cut[0])


def test_parts_keep_what_their_edges_have() -> None:
    graphs = [labelled(seed) for seed in range(2)]
    cut = [divided(graph.edge_index[0].numpy(), graph.reverse_edge.numpy(), 3) for graph in graphs]
    whole = Batch.from_data_list(graphs)
    for place in range(3):
        rows = [torch.from_numpy(parts[place]) for parts in cut]
        part = Batch.from_data_list([graph.on_edges(own) for graph, own in zip(graphs, rows, strict=True)])
        rows = torch.cat([rows[0], rows[1] + graphs[0].num_edges])
        assert torch.equal(part.batch, whole.batch)
        assert torch.equal(part.edge_index, whole.edge_index[:, rows])
        assert torch.equal(rows[part.reverse_edge], whole.reverse_edge[rows])
        for name in ("edge_shift", "edge_vec", "edge_frame", "target"):
            assert torch.equal(part[name], whole[name][rows]), name
