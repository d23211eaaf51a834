"""A crystal in parts gives what it gives as a whole."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from deeph_tracegrad.config import ModelSettings
from deeph_tracegrad.edges import edge_pairs
from deeph_tracegrad.errors import MismatchError
from deeph_tracegrad.graph import build_graph
from deeph_tracegrad.inference import parts as inference_parts
from deeph_tracegrad.inference.parts import hamiltonian_in_parts
from deeph_tracegrad.nn.network import HamiltonianNetwork
from deeph_tracegrad.orbitals import SpinMode
from deeph_tracegrad.parallel import World
from deeph_tracegrad.partition import Partition
from materials import random_material

TRUNK = "8x0e+4x0o+6x1o+4x1e+4x2e"


def crystal(spin):
    return random_material(spin).with_hamiltonian(())


def network(material, spin, **settings):
    torch.manual_seed(1)
    model = ModelSettings(trunk=TRUNK, blocks=2, node_channels=8, edge_channels=8, radial_basis=8, **settings)
    return HamiltonianNetwork(model, material.basis, spin).double().eval().requires_grad_(requires_grad=False)


@pytest.mark.parametrize("edges", [7, 40, 10_000])
@pytest.mark.parametrize(
    ("spin", "settings"),
    [
        (SpinMode.NONE, {}),
        (SpinMode.NONE, {"norm": "local", "smooth_cutoff": True}),
        (SpinMode.NONE, {"hermitian": False, "tracegrad": {"enabled": False}}),
        (SpinMode.NONE, {"tracegrad": {"gradient": False}}),
        (SpinMode.NONCOLLINEAR, {}),
    ],
)
def test_parts_make_the_whole(spin, settings, edges, monkeypatch):
    material = crystal(spin)
    trained, pairs = network(material, spin, **settings), edge_pairs(material)
    if "smooth_cutoff" in settings:
        trained.hamiltonian.cutoff.extend({"Mo-Mo": 4.5, "Mo-S": 4.5, "S-S": 4.5})
    graph = build_graph(material, pairs, material.basis)
    whole = trained.layout.blocks(trained(graph).coefficients, graph)
    monkeypatch.setattr(inference_parts, "PART_EDGES", edges)
    in_parts = hamiltonian_in_parts(trained, material, pairs, World())
    for one, other in zip(whole, in_parts, strict=True):
        assert np.array_equal(other.pairs, pairs)
        largest = np.abs(one.entries).max()
        assert np.abs(other.on_pairs(one.pairs).entries - one.entries).max() < 1e-10 * largest


@pytest.mark.parametrize("edges", [1, 9, 50, 10_000])
def test_every_edge_is_in_one_part(edges):
    material = crystal(SpinMode.NONE)
    pairs = np.random.default_rng(0).permutation(edge_pairs(material))
    partition = Partition(material, pairs, material.basis, edges)
    parts = [partition[place] for place in range(len(partition))]
    assert np.array_equal(np.sort(np.concatenate([part.rows for part in parts])), np.arange(len(pairs)))
    for part in parts:
        graph = part.graph
        assert torch.equal(graph.reverse_edge[graph.reverse_edge], torch.arange(graph.num_edges))
        assert torch.equal(part.atoms[graph.edge_index].T, torch.from_numpy(pairs[part.rows, 3:]).long())
    assert len(parts) == (1 if edges == 10_000 else max(len(parts), 2))


def test_lists_of_pairs_that_are_not_whole():
    material = crystal(SpinMode.NONE)
    pairs = edge_pairs(material)
    for lacking in (pairs[1:], pairs[:-1]):
        with pytest.raises(MismatchError, match="an atom has no on-site block, or"):
            Partition(replace(material, overlap=None), lacking, material.basis, 10)
