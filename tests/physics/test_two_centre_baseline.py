"""The two-centre baseline against Hamiltonians in the form of Slater and Koster, and against real ones."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from deeph_tracegrad.dataset import GraphDataset
from deeph_tracegrad.graph import build_graph
from deeph_tracegrad.nn.baseline import SPLINES, TwoCentreBaseline
from deeph_tracegrad.orbitals import SpinMode
from deeph_tracegrad.targets import TargetLayout
from materials import random_material

REACH = {"Mo-Mo": 5.0, "Mo-S": 5.0, "S-S": 5.0}
PX, PY, PZ = 2, 0, 1  # the order m = -1, 0, 1


def fitted(layout, graphs, reach):
    baseline = TwoCentreBaseline(layout, SPLINES)
    baseline.fit(graphs, reach, lambda tensor: tensor)
    return baseline


def distorted(layout, seed):
    """Three atoms displaced at random; the same pairs of them."""
    material = random_material(layout.spin)
    structure = material.structure.copy()
    for atom, displacement in enumerate(np.random.default_rng(seed).normal(scale=0.1, size=(3, 3))):
        structure.translate_sites([atom], displacement, frac_coords=False, to_unit_cell=False)
    return build_graph(replace(material, structure=structure), material.overlap.pairs, material.basis)


def slater_koster(layout, graph):
    """H[m1, m2] = δ V(r) along the bond, V a decaying wave for each element pair, shells and |m|; on-site levels."""
    source, destination = graph.species[graph.edge_index]
    length = torch.linalg.vector_norm(graph.edge_vec, dim=1)
    parts = []
    for number, target in enumerate(layout.targets):
        block = torch.zeros(len(length), 2 * target.l1 + 1, 2 * target.l2 + 1, dtype=torch.float64)
        for m in range(-min(target.l1, target.l2), min(target.l1, target.l2) + 1):
            rng = np.random.default_rng([number, abs(m)])
            height, decay, wave, phase = (
                torch.from_numpy(rng.uniform(low, high, size=(2, 2)))[source, destination]
                for low, high in [(2.0, 9.0), (0.7, 1.5), (0.5, 2.0), (0.0, 6.0)]
            )
            bond = height * torch.exp(-length / decay) * torch.cos(wave * length + phase)
            level = -1.0 - number if target.l1 == target.l2 else 0.0
            block[:, target.l1 + m, target.l2 + m] = torch.where(graph.on_site, level, bond)
        block = block.flatten(1)
        parts += [block, 0 * block, 0 * block, block] if layout.spin is SpinMode.NONCOLLINEAR else [block]
    elements = torch.cat(parts, dim=1)
    if layout.spin is SpinMode.NONCOLLINEAR:
        elements = elements.to(torch.complex128)
    return layout.hermitian(layout.coefficients(elements), graph.reverse_edge, graph.on_site)


@pytest.mark.parametrize("spin", SpinMode)
def test_a_two_centre_hamiltonian_is_found(spin):
    """On structures that were not fitted to."""
    layout = TargetLayout(random_material(spin).basis, spin)
    graphs = [distorted(layout, seed) for seed in range(24)]
    for graph in graphs:
        graph.target = slater_koster(layout, graph)
    baseline = fitted(layout, graphs[4:], REACH)
    targets = torch.cat([graph.target for graph in graphs[:4]])
    predicted = torch.cat([baseline(graph) for graph in graphs[:4]])
    off_site = ~torch.cat([graph.on_site for graph in graphs[:4]])
    assert (predicted - targets)[off_site].square().mean() < 1e-5 * targets[off_site].square().mean()
    assert (predicted - targets)[~off_site].abs().max() < 1e-6 * targets[~off_site].abs().max()


def test_spin_orbit_coupling_of_one_atom_is_found():
    """λ L·S of a p shell looks the same in every direction, so all of it is a constant."""
    material = random_material(SpinMode.NONCOLLINEAR)
    layout = TargetLayout(material.basis, SpinMode.NONCOLLINEAR)
    graph = build_graph(material, material.overlap.pairs, material.basis)
    momentum = np.zeros((3, 3, 3), dtype=complex)  # -i ε_abc
    for a, b, c in [(PX, PY, PZ), (PY, PZ, PX), (PZ, PX, PY)]:
        momentum[a, b, c], momentum[a, c, b] = -1j, 1j
    spins = np.zeros((3, 2, 2), dtype=complex)
    spins[PX], spins[PY], spins[PZ] = [[0, 0.5], [0.5, 0]], [[0, -0.5j], [0.5j, 0]], [[0.5, 0], [0, -0.5]]
    coupling = torch.from_numpy(np.einsum("xab,xst->stab", momentum, spins).reshape(-1))
    elements = torch.zeros(graph.num_edges, len(layout.element_target), dtype=torch.complex128)
    p_p = [number for number, target in enumerate(layout.targets) if target[:4] == (1, 0, 1, 0)]
    places = (layout.element_target == p_p[0]).nonzero()[:, 0]
    on_site = graph.on_site.nonzero()
    elements[on_site, places] = 1.5 * coupling
    graph.target = layout.coefficients(elements)
    assert (layout.hermitian(graph.target, graph.reverse_edge, graph.on_site) - graph.target).abs().max() < 1e-12
    left = fitted(layout, [graph], REACH)(graph) - graph.target
    assert left.abs().max() < 1e-6 * graph.target.abs().max()


def test_it_explains_most_of_graphene(graphene_dataset):
    """Fitted to three distorted cells, on a supercell of another."""
    dataset = GraphDataset(graphene_dataset)
    layout = TargetLayout(dataset.basis, dataset.spin)
    baseline = fitted(layout, [dataset[place] for place in range(3)], dataset.reach)
    graph = dataset[3]
    left = layout.traces(graph.target - baseline(graph))[~graph.on_site].sum()
    assert left < 0.02 * layout.traces(graph.target)[~graph.on_site].sum()
