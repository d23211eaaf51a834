"""The whole network, in float64, under the symmetries that H has."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure
from torch_geometric.data import Batch

from deeph_tracegrad.blocks import BlockMatrix
from deeph_tracegrad.config import ModelSettings, TraceGradSettings
from deeph_tracegrad.graph import HamiltonianGraph, build_graph
from deeph_tracegrad.material import Material
from deeph_tracegrad.nn.kernels import library
from deeph_tracegrad.nn.network import HamiltonianNetwork
from deeph_tracegrad.orbitals import Basis, ElementBasis, SpinMode
from deeph_tracegrad.samples import block_dtype, build_sample
from deeph_tracegrad.testing import check_model, cutoff_jump, hermiticity, network_model, random_rotation, transformed
from deeph_tracegrad.training.labels import trace_labels
from deeph_tracegrad.training.losses import error_sums
from materials import random_material

NATURAL = "4x0e+3x1o+2x2e+1x3o"
BOTH = "4x0e+2x0o+3x1o+2x1e+2x2e+1x2o"
REACH = {"Mo-Mo": 4.2, "Mo-S": 4.2, "S-S": 4.2}  # of the random material
CUTOFF = 4.5  # Å
FITTED = {"two_centre_baseline": True, "target_scaling": True}
SMOOTH = {"norm": "local", "smooth_cutoff": True, "cutoff_radius": CUTOFF}


def network(material, trunk, *, tracegrad="compact", **choices):
    """With random weights, and what the choices fit to a sample fitted to the material."""
    torch.manual_seed(0)
    settings = ModelSettings(
        blocks=2,
        trunk=trunk,
        node_channels=6,
        edge_channels=6,
        radial_basis=16,
        tracegrad={"preset": tracegrad, "width": 8, "decoder_width": 8},
        **choices,
    )
    net = HamiltonianNetwork(settings, material.basis, material.spin).double()
    if choices:
        graph = HamiltonianGraph.from_sample(build_sample(material, "one"), material.basis, net.layout)
        net.hamiltonian.fit(lambda: [graph], REACH, lambda tensor: tensor)
    return net


def labelled(material, layout):
    """Its graph as a training reads it."""
    graph = HamiltonianGraph.from_sample(build_sample(material, "one"), material.basis, layout)
    graph.trace_labels = trace_labels(graph.target, layout, TraceGradSettings())
    return graph


def assert_sound(net, material):
    """Every symmetry of H is kept to rounding."""
    report = check_model(network_model(net), material)
    scale = report.pop("largest |H|").value
    assert scale > 1e-3
    assert all(result.value < 1e-12 * max(scale, 1.0) for result in report.values()), report


@pytest.mark.parametrize("choices", [{}, FITTED, {**FITTED, **SMOOTH}], ids=["faithful", "fitted", "fitted and smooth"])
@pytest.mark.parametrize("trunk", [NATURAL, BOTH])
@pytest.mark.parametrize("spin", SpinMode)
def test_prediction_has_the_symmetries_of_h(spin, trunk, choices):
    material = random_material(spin)
    assert_sound(network(material, trunk, **choices), material)


def test_tracegrad_of_the_paper_has_the_symmetries_of_h():
    material = random_material(SpinMode.NONCOLLINEAR)
    assert_sound(network(material, BOTH, tracegrad="paper"), material)


@pytest.mark.parametrize("tracegrad", ["compact", "paper"])
@pytest.mark.parametrize("inverted", [False, True])
def test_traces_are_invariant(inverted, tracegrad):
    material = random_material(SpinMode.NONCOLLINEAR)
    net = network(material, BOTH, tracegrad=tracegrad)
    operation = random_rotation(1) * (-1 if inverted else 1)
    with torch.no_grad():
        traces, turned = (
            net(build_graph(told, told.hamiltonian[0].pairs, told.basis)).traces
            for told in (material, transformed(material, operation))
        )
    assert (turned - traces).abs().max() < 1e-10 * traces.abs().max()


def test_without_its_gradient_tracegrad_supervises_and_leaves_the_features_alone():
    material = random_material(SpinMode.NONE)
    graph = build_graph(material, material.hamiltonian[0].pairs, material.basis)
    settings = ModelSettings(blocks=2, trunk=NATURAL, tracegrad={"gradient": False})
    net = HamiltonianNetwork(settings, material.basis, material.spin).double()
    without = settings.model_copy(update={"tracegrad": TraceGradSettings(enabled=False)})
    plain = HamiltonianNetwork(without, material.basis, material.spin).double()
    plain.load_state_dict(net.state_dict(), strict=False)
    prediction = net(graph)
    assert torch.equal(prediction.coefficients, plain(graph).coefficients)
    prediction.traces.square().sum().backward()
    assert all(weight.grad is not None for weight in net.edge_updates[0].parameters())


def test_without_the_switch_h_is_not_hermitian():
    material = random_material(SpinMode.NONE)
    model = network_model(network(material, NATURAL, hermitian=False))
    assert hermiticity(model(material).hamiltonian) > 1e-3


def test_h_jumps_where_pairs_leave_the_graph():
    """DeepH-E3 cuts nothing off smoothly."""
    material = random_material(SpinMode.NONE)
    assert cutoff_jump(network_model(network(material, NATURAL)), material, CUTOFF) > 1e-2


@pytest.mark.parametrize("fitted", [{}, FITTED])
def test_with_local_norms_a_smooth_cutoff_is_continuous(fitted):
    material = random_material(SpinMode.NONE)
    model = network_model(network(material, BOTH, **fitted, **SMOOTH))
    assert cutoff_jump(model, material, CUTOFF) < 1e-8


@pytest.mark.parametrize("compiled", [True, False])
def test_a_vanishing_channel_has_a_gradient(compiled, monkeypatch):
    """On a symmetric crystal pseudo channels are exactly zero, and so is their size."""
    if not compiled:
        monkeypatch.setattr(library, "_library", lambda: None)
    material = cubic_crystal(SpinMode.NONE, (0, 1), 3.0)
    net = network(material, BOTH).float()
    net(build_graph(material, material.overlap.pairs, material.basis)).coefficients.square().sum().backward()
    assert all(torch.isfinite(weight.grad).all() for weight in net.parameters() if weight.grad is not None)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("norm", ["graph", "local"])
def test_prediction_does_not_depend_on_the_order_of_edges_or_the_batch(norm, compiled, monkeypatch):
    """Nothing leaks between the graphs of a batch, also not through the norms over a graph."""
    if not compiled:
        monkeypatch.setattr(library, "_library", lambda: None)
    material = random_material(SpinMode.NONE)
    net = network(material, NATURAL, norm=norm)
    graph, other = (labelled(random_material(SpinMode.NONE, seed=seed), net.layout) for seed in (0, 1))
    batch = Batch.from_data_list([graph, other])
    alone, together = [net(g) for g in (graph, other)], net(batch)
    for found, expected in (
        (together.coefficients, torch.cat([each.coefficients for each in alone])),
        (together.traces, torch.cat([each.traces for each in alone])),
        (error_sums(together, batch, net.layout), sum(map(error_sums, alone, (graph, other), (net.layout,) * 2))),
    ):
        assert (found - expected).abs().max() < 1e-12 * expected.abs().max()


@pytest.mark.parametrize("spin", SpinMode)
@pytest.mark.parametrize(("shells", "constant"), [((0, 1, 2, 3, 4), 3.0), ((0,), 3.0), ((0, 1), 30.0)])
def test_one_atom_a_cell(spin, shells, constant):
    """With shells up to g, with s alone, and without any neighbour."""
    material = cubic_crystal(spin, shells, constant)
    assert_sound(network(material, NATURAL), material)


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
    graph = labelled(material, net.layout)
    graph.target, graph.trace_labels = graph.target.float(), graph.trace_labels.float()
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
