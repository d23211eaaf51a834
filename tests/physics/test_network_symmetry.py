"""The whole network, in float64, under the symmetries that H has."""

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch

from deeph_tracegrad.config import ModelSettings
from deeph_tracegrad.graph import HamiltonianGraph, build_graph
from deeph_tracegrad.nn.network import HamiltonianNetwork
from deeph_tracegrad.orbitals import SpinMode
from deeph_tracegrad.samples import build_sample
from deeph_tracegrad.testing import random_rotation, transformed, transformed_matrix
from materials import random_material

NATURAL = "4x0e+3x1o+2x2e+1x3o"
BOTH = "4x0e+2x0o+3x1o+2x1e+2x2e+1x2o"


def network(material, trunk, *, hermitian=True, tracegrad=True):
    torch.manual_seed(0)
    settings = ModelSettings(
        blocks=2,
        trunk=trunk,
        node_channels=6,
        edge_channels=6,
        radial_basis=16,
        hermitian=hermitian,
        tracegrad={"enabled": tracegrad, "width": 8, "decoder_width": 8},
    )
    return HamiltonianNetwork(settings, material.basis, material.spin).double()


def predicted(net, material):
    graph = build_graph(material, material.hamiltonian[0].pairs, material.basis)
    with torch.no_grad():
        prediction = net(graph)
    return net.layout.blocks(prediction.coefficients, graph), prediction.traces


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("trunk", [NATURAL, BOTH])
@pytest.mark.parametrize("spin", SpinMode)
def test_prediction_turns_with_the_material(spin, trunk, inverted):
    material = random_material(spin)
    net = network(material, trunk)
    rotation = random_rotation(1)
    h, traces = predicted(net, material)
    turned_h, turned_traces = predicted(net, transformed(material, -rotation if inverted else rotation))
    for ours, before in zip(turned_h, h, strict=True):
        expected = transformed_matrix(before, material, spin, rotation, inverted=inverted).entries
        assert np.abs(ours.entries - expected).max() < 1e-10 * np.abs(expected).max()
    if traces is not None:
        assert (turned_traces - traces).abs().max() < 1e-10 * traces.abs().max()


@pytest.mark.parametrize("spin", SpinMode)
def test_predicted_h_is_hermitian(spin):
    material = random_material(spin)
    for matrix in predicted(network(material, NATURAL), material)[0]:
        assert matrix.symmetrised()[1] < 1e-13 * np.abs(matrix.entries).max()


def test_without_the_switch_it_is_not():
    material = random_material(SpinMode.NONE)
    (matrix,), _ = predicted(network(material, NATURAL, hermitian=False), material)
    assert matrix.symmetrised()[1] > 1e-3


def test_prediction_does_not_depend_on_the_order_of_edges_or_the_batch():
    material = random_material(SpinMode.NONE)
    net = network(material, NATURAL)
    graph = HamiltonianGraph.from_sample(build_sample(material, "one"), material.basis, net.layout)
    other = HamiltonianGraph.from_sample(
        build_sample(random_material(SpinMode.NONE, seed=1), "two"), material.basis, net.layout
    )
    with torch.no_grad():
        alone = [net(g).coefficients for g in (graph, other)]
        together = net(Batch.from_data_list([graph, other])).coefficients
    assert (torch.cat(alone) - together).abs().max() < 1e-12 * together.abs().max()


def test_number_of_parameters_is_deeph_e3s():
    """627,981 of the official program for C s2p2d1, less the 65 of its node head, which no prediction depends on."""
    from deeph_tracegrad.orbitals import Basis, ElementBasis

    carbon = Basis.of({"C": ElementBasis((0, 0, 1, 1, 2))})
    net = HamiltonianNetwork(ModelSettings(tracegrad={"enabled": False}), carbon, SpinMode.NONE)
    assert sum(parameter.numel() for parameter in net.parameters()) == 627_981 - 65
