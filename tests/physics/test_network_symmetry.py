"""The whole network, in float64, under the symmetries that H has."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure
from torch_geometric.data import Batch

from deeph_tracegrad.blocks import BlockMatrix
from deeph_tracegrad.config import ModelSettings
from deeph_tracegrad.graph import HamiltonianGraph, build_graph
from deeph_tracegrad.material import Material
from deeph_tracegrad.nn.network import HamiltonianNetwork
from deeph_tracegrad.orbitals import Basis, ElementBasis, SpinMode
from deeph_tracegrad.samples import block_dtype, build_sample
from deeph_tracegrad.testing import random_rotation, repeated, transformed, transformed_matrix
from deeph_tracegrad.training.losses import error_sums
from materials import random_material
from supercells import in_lattice_vectors, with_atoms_in_order, with_atoms_in_other_cells

NATURAL = "4x0e+3x1o+2x2e+1x3o"
BOTH = "4x0e+2x0o+3x1o+2x1e+2x2e+1x2o"


def network(material, trunk, *, hermitian=True, tracegrad="compact"):
    torch.manual_seed(0)
    settings = ModelSettings(
        blocks=2,
        trunk=trunk,
        node_channels=6,
        edge_channels=6,
        radial_basis=16,
        hermitian=hermitian,
        tracegrad={"preset": tracegrad, "width": 8, "decoder_width": 8},
    )
    return HamiltonianNetwork(settings, material.basis, material.spin).double()


def predicted(net, material):
    graph = build_graph(material, material.hamiltonian[0].pairs, material.basis)
    with torch.no_grad():
        prediction = net(graph)
    return net.layout.blocks(prediction.coefficients, graph), prediction.traces


@pytest.mark.parametrize("tracegrad", ["compact", "paper"])
@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("trunk", [NATURAL, BOTH])
@pytest.mark.parametrize("spin", SpinMode)
def test_prediction_turns_with_the_material(spin, trunk, inverted, tracegrad):
    material = random_material(spin)
    net = network(material, trunk, tracegrad=tracegrad)
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


@pytest.mark.parametrize("spin", SpinMode)
@pytest.mark.parametrize(
    "retold",
    [
        lambda material: with_atoms_in_other_cells(material, np.array([[1, 0, -2], [0, 3, 1], [-1, 0, 0]])),
        lambda material: with_atoms_in_order(material, np.array([2, 0, 1])),
        lambda material: in_lattice_vectors(material, np.array([[1, 1, 0], [0, 1, 0], [-2, 0, 1]])),
        lambda material: repeated(material, (2, 2, 1)),
    ],
    ids=["images", "order", "lattice vectors", "supercell"],
)
def test_prediction_is_that_of_the_crystal_however_it_is_told(spin, retold):
    material = random_material(spin)
    net = network(material, NATURAL)
    h, _ = predicted(net, material)
    expected = retold(replace(material, hamiltonian=h)).hamiltonian
    for ours, theirs in zip(predicted(net, retold(material))[0], expected, strict=True):
        assert np.abs(ours.entries - theirs.on_pairs(ours.pairs).entries).max() < 1e-12 * np.abs(ours.entries).max()


@pytest.mark.parametrize("spin", SpinMode)
@pytest.mark.parametrize(("shells", "constant"), [((0, 1, 2, 3, 4), 3.0), ((0,), 3.0), ((0, 1), 30.0)])
def test_one_atom_a_cell(spin, shells, constant):
    """With shells up to g, with s alone, and without any neighbour."""
    material = cubic_crystal(spin, shells, constant)
    net = network(material, NATURAL)
    h, _ = predicted(net, material)
    turned, _ = predicted(net, transformed(material, -random_rotation(2)))
    larger, _ = predicted(net, repeated(material, (2, 1, 1)))
    told = repeated(replace(material, hamiltonian=h), (2, 1, 1)).hamiltonian
    for before, after, ours, theirs in zip(h, turned, larger, told, strict=True):
        expected = transformed_matrix(before, material, spin, random_rotation(2), inverted=True).entries
        assert np.abs(after.entries - expected).max() < 1e-10 * np.abs(expected).max()
        assert np.abs(ours.entries - theirs.on_pairs(ours.pairs).entries).max() < 1e-10 * np.abs(expected).max()


def cubic_crystal(spin, shells, constant):
    """Simple cubic, nearest neighbours up to 4 Å, H and S zero."""
    basis = Basis.of({"Fe": ElementBasis(shells)})
    structure = Structure(Lattice.cubic(constant), ["Fe"], [[0.1, 0.2, 0.3]])
    _, _, cells, _ = structure.get_neighbor_list(4.0)
    pairs = np.pad(np.concatenate([[[0, 0, 0]], cells]), ((0, 0), (0, 2))).astype(np.int32)
    sizes = basis.num_orbitals(["Fe"])
    overlap = BlockMatrix.of(pairs, np.zeros(len(pairs) * sizes[0] ** 2), sizes)
    sizes = sizes * spin.components
    h = BlockMatrix.of(pairs, np.zeros(len(pairs) * sizes[0] ** 2, block_dtype(spin)), sizes)
    return Material(structure, basis, spin, overlap, (h,) * spin.channels)


def test_kinds_of_which_there_are_no_atoms_change_nothing():
    """A network of two elements on a crystal of one of them."""
    crystal = cubic_crystal(SpinMode.NONE, (0, 1, 1), 3.0)
    sulfur = replace(
        crystal,
        structure=crystal.structure.copy().replace_species({"Fe": "S"}),
        basis=Basis.of({"S": crystal.basis["Fe"]}),
    )
    both = random_material(SpinMode.NONE)
    net = network(both, NATURAL)
    graph = build_graph(sulfur, sulfur.overlap.pairs, both.basis)
    prediction = net(graph)
    prediction.coefficients.square().sum().backward()
    assert torch.isfinite(prediction.coefficients).all()
    assert (net.edge_updates[0].self_connection.weight.grad[:3] == 0).all()
    assert (net.edge_updates[0].self_connection.weight.grad[3] != 0).any()


def test_a_network_that_has_predicted_can_be_trained():
    material = random_material(SpinMode.NONE)
    net = network(material, NATURAL).float()
    graph = HamiltonianGraph.from_sample(build_sample(material, "one"), material.basis, net.layout)
    graph.target = graph.target.float()
    with torch.inference_mode():
        before = error_sums(net(graph), graph, net.layout)
    after = error_sums(net(graph), graph, net.layout)
    after[0].backward()
    assert torch.equal(before, after)


def test_number_of_parameters_is_deeph_e3s():
    """627,981 of the official program for C s2p2d1, less the 65 of its node head, which no prediction depends on."""
    carbon = Basis.of({"C": ElementBasis((0, 0, 1, 1, 2))})
    net = HamiltonianNetwork(ModelSettings(tracegrad={"enabled": False}), carbon, SpinMode.NONE)
    assert sum(parameter.numel() for parameter in net.parameters()) == 627_981 - 65
