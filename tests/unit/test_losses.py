"""The loss against its definition on the matrix elements, and its division among ranks."""

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure

from deeph_tracegrad.blocks import BlockMatrix
from deeph_tracegrad.config import TraceGradSettings
from deeph_tracegrad.graph import HamiltonianGraph
from deeph_tracegrad.material import Material
from deeph_tracegrad.nn.network import Prediction
from deeph_tracegrad.orbitals import Basis, ElementBasis, SpinMode
from deeph_tracegrad.samples import build_sample
from deeph_tracegrad.targets import TargetLayout
from deeph_tracegrad.training.labels import trace_labels
from deeph_tracegrad.training.losses import error_sums, training_loss

BASIS = Basis.of({"C": ElementBasis((0, 0, 1)), "H": ElementBasis((0, 1))})


def random_material(spin: SpinMode, seed: int = 0) -> Material:
    """CH2 with random blocks between all its atoms."""
    random = np.random.default_rng(seed)
    structure = Structure(Lattice.cubic(8.0), ["C", "H", "H"], random.uniform(0.1, 0.4, (3, 3)))
    pairs = np.array([[0, 0, 0, i, j] for i in range(3) for j in range(3)])
    sizes = BASIS.num_orbitals(["C", "H", "H"]) * spin.components
    length = int((sizes[pairs[:, 3]] * sizes[pairs[:, 4]]).sum())

    def matrix() -> BlockMatrix:
        entries = random.normal(size=length)
        if spin is SpinMode.NONCOLLINEAR:
            entries = entries + 1j * random.normal(size=length)
        return BlockMatrix.of(pairs, entries, sizes).symmetrised()[0]

    return Material(structure, BASIS, spin, hamiltonian=tuple(matrix() for _ in range(spin.channels)))


def labelled(spin: SpinMode, seed: int = 0) -> tuple[HamiltonianGraph, TargetLayout, Material]:
    layout = TargetLayout(BASIS, spin)
    material = random_material(spin, seed)
    graph = HamiltonianGraph.from_sample(build_sample(material, "CH2"), BASIS, layout)
    graph.trace_labels = trace_labels(graph.target, layout, TraceGradSettings())
    return graph, layout, material


@pytest.mark.parametrize("spin", SpinMode)
def test_hamiltonian_error_is_the_mean_over_its_elements(spin: SpinMode) -> None:
    graph, layout, material = labelled(spin)
    zero = Prediction(torch.zeros_like(graph.target), None)
    squared, elements, deviation, labels = error_sums(zero, graph, layout).tolist()
    entries = np.concatenate([matrix.entries for matrix in material.hamiltonian])
    assert elements == len(entries)
    assert squared == pytest.approx((np.abs(entries) ** 2).sum(), rel=1e-12)
    assert deviation == labels == 0.0


def test_only_targets_that_an_edge_has_count() -> None:
    graph, layout, _ = labelled(SpinMode.NONE)
    disturbed = graph.target.clone()
    absent = ~layout.edge_mask(graph)
    for edge, target in absent.nonzero().tolist():
        coefficients = layout.coefficients((layout.element_target == target).double()[None])[0]
        disturbed[edge] += coefficients
    traces = graph.trace_labels + absent
    sums = error_sums(Prediction(disturbed, traces), graph, layout)
    assert sums[0] == pytest.approx(0.0, abs=1e-20)
    assert sums[2] == 0.0
    assert sums[3] == layout.edge_mask(graph).sum()


def test_loss_balances_the_two_errors() -> None:
    own = torch.tensor([6.0, 3.0, 10.0, 2.0], dtype=torch.float64, requires_grad=True)
    loss = training_loss(own, own.detach(), 0.3)
    assert loss.item() == pytest.approx(2.0 + 0.3 * 2.0)  # w L_H / L_T is a constant: L = (1 + w) L_H
    (gradient,) = torch.autograd.grad(loss, own)
    assert gradient.tolist() == pytest.approx([1 / 3, 0.0, 0.3 * (2.0 / 5.0) / 2.0, 0.0])


@pytest.mark.parametrize("sums", [[6.0, 3.0, 0.0, 0.0], [6.0, 3.0, 0.0, 2.0]])
def test_loss_without_trace_error_is_finite(sums: list[float]) -> None:
    own = torch.tensor(sums, dtype=torch.float64, requires_grad=True)
    loss = training_loss(own, own.detach(), 0.3)
    loss.backward()
    assert loss.item() == 2.0
    assert own.grad is not None
    assert own.grad.isfinite().all()


def test_parts_of_the_ranks_sum_to_the_whole() -> None:
    graphs = [labelled(SpinMode.COLLINEAR, seed) for seed in range(3)]
    scale = torch.tensor(0.9, dtype=torch.float64, requires_grad=True)
    parts = []
    for graph, layout, _ in graphs:
        prediction = Prediction(scale * graph.target, scale.square() * graph.trace_labels)
        parts.append(error_sums(prediction, graph, layout))
    total = sum(part.detach() for part in parts)
    whole = training_loss(sum(parts), total, 0.3)
    divided = [training_loss(part, total, 0.3) for part in parts]
    assert sum(divided).item() == pytest.approx(whole.item(), rel=1e-12)
    expected = torch.autograd.grad(whole, scale, retain_graph=True)[0]
    summed = sum(torch.autograd.grad(part, scale, retain_graph=True)[0] for part in divided)
    assert summed.item() == pytest.approx(expected.item(), rel=1e-12)
