import numpy as np
import pytest
import torch

from deeph_tracegrad.blocks import BlockMatrix
from deeph_tracegrad.graph import HamiltonianGraph
from deeph_tracegrad.orbitals import Basis, ElementBasis, SpinMode
from deeph_tracegrad.samples import build_sample
from deeph_tracegrad.targets import Target, TargetLayout
from deeph_tracegrad.testing import hermiticity, largest_difference
from materials import random_material


def labelled(spin, max_degree=2):
    material = random_material(spin, max_degree=max_degree)
    layout = TargetLayout(material.basis, spin)
    return material, layout, HamiltonianGraph.from_sample(build_sample(material, "random"), material.basis, layout)


@pytest.mark.parametrize("spin", SpinMode)
def test_blocks_to_coefficients_and_back_is_exact_for_s_to_g(spin):
    material, layout, graph = labelled(spin, max_degree=4)
    assert largest_difference(layout.blocks(graph.target, graph), material.hamiltonian) < 1e-12


@pytest.mark.parametrize("spin", SpinMode)
def test_traces_are_squared_norms_of_the_blocks(spin):
    material, layout, graph = labelled(spin)
    total = (layout.traces(graph.target) * layout.edge_mask(graph)).sum()
    assert total.item() == pytest.approx(sum(np.sum(np.abs(h.entries) ** 2) for h in material.hamiltonian), rel=1e-12)


@pytest.mark.parametrize("spin", SpinMode)
def test_one_trace_by_hand(spin):
    material, layout, graph = labelled(spin)
    edge = int(np.flatnonzero((graph.pairs == [0, 0, 0, 0, 1]).all(axis=1))[0])
    h = material.hamiltonian[0]
    block = h.block(int(np.flatnonzero((h.pairs == [0, 0, 0, 0, 1]).all(axis=1))[0]))
    n_mo, n_s = 10, 7
    p_rows, p_columns = slice(2, 5), slice(4, 7)  # Mo's p shell, S's second
    parts = [
        block[s * n_mo : (s + 1) * n_mo, t * n_s : (t + 1) * n_s][p_rows, p_columns]
        for s in range(spin.components)
        for t in range(spin.components)
    ]
    target = layout.targets.index(Target(1, 0, 1, 1))
    assert layout.traces(graph.target)[edge, target].item() == pytest.approx(sum(np.sum(np.abs(p) ** 2) for p in parts))


@pytest.mark.parametrize("spin", SpinMode)
def test_a_hermitian_h_is_left_alone_and_any_other_becomes_hermitian(spin):
    _, layout, graph = labelled(spin)
    same = layout.hermitian(graph.target, graph.reverse_edge, graph.on_site)
    assert same.numpy() == pytest.approx(graph.target.numpy(), abs=1e-12)
    noise = torch.from_numpy(np.random.default_rng(0).normal(size=graph.target.shape))
    made = layout.hermitian(noise, graph.reverse_edge, graph.on_site)
    assert hermiticity(layout.blocks(made, graph)) < 1e-12


@pytest.mark.parametrize("spin", SpinMode)
def test_element_errors_are_those_of_the_global_blocks(spin):
    _, layout, graph = labelled(spin)
    noise = torch.from_numpy(np.random.default_rng(1).normal(size=graph.target.shape))
    errors = (layout.element_errors(noise, graph) * layout.element_mask(graph)).sum().item()
    ours = layout.blocks(graph.target + noise, graph)
    truth = layout.blocks(graph.target, graph)
    expected = sum(np.abs(a.entries - b.entries).sum() for a, b in zip(ours, truth, strict=True))
    assert errors == pytest.approx(expected, rel=1e-10)


def test_deeph_e3s_numbers_of_targets_and_coefficients():
    carbon = Basis.of({"C": ElementBasis((0, 0, 1, 1, 2))})
    mos2 = Basis.of({"Mo": ElementBasis((0, 0, 0, 1, 1, 2, 2)), "S": ElementBasis((0, 0, 1, 1, 2))})
    sizes = [(layout.num_targets, layout.dim) for layout in (TargetLayout(b, SpinMode.NONE) for b in (carbon, mos2))]
    assert sizes == [(25, 169), (49, 361)]


def test_coefficients_of_a_time_reversal_symmetric_h_have_no_spurious_half():
    """A real spin-free H plus i times a real spin-orbit field keeps its parity in the scalar and vector parts."""
    material = random_material(SpinMode.NONCOLLINEAR)
    sizes = material.hamiltonian[0].sizes
    entries = material.hamiltonian[0].entries.copy()
    matrix = BlockMatrix.of(material.hamiltonian[0].pairs, entries, sizes)
    # uu = conj(dd), ud = -conj(du): what time reversal demands of H(R) between real orbitals
    for (rows, columns), _, places in matrix.stacks():
        block = entries[places].reshape(-1, 2, rows // 2, 2, columns // 2)
        block[:, 1, :, 1] = block[:, 0, :, 0].conj()
        block[:, 1, :, 0] = -block[:, 0, :, 1].conj()
        entries[places] = block.reshape(len(places), -1)
    layout = TargetLayout(material.basis, material.spin)
    sample = build_sample(material.with_hamiltonian((matrix.with_entries(entries),)), "time-reversal symmetric")
    target = HamiltonianGraph.from_sample(sample, material.basis, layout).target
    for _, _, irrep, start, imaginary in layout._walk():
        if imaginary != irrep.vector:
            assert target[:, start : start + 2 * irrep.degree + 1].abs().max() < 1e-12
