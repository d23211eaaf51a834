"""The loss against its definition on the matrix elements, and its division among ranks."""

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure

from deeph_tracegrad.blocks import BlockMatrix
from deeph_tracegrad.config import ModelSettings, TraceGradSettings, TrainingSettings
from deeph_tracegrad.errors import ConfigError
from deeph_tracegrad.graph import HamiltonianGraph
from deeph_tracegrad.material import Material
from deeph_tracegrad.nn.network import HamiltonianNetwork, Prediction
from deeph_tracegrad.nn.scaling import TargetScaling
from deeph_tracegrad.orbitals import Basis, ElementBasis, SpinMode
from deeph_tracegrad.samples import build_sample
from deeph_tracegrad.targets import TargetLayout
from deeph_tracegrad.testing import random_rotation, transformed
from deeph_tracegrad.training.labels import trace_labels
from deeph_tracegrad.training.losses import BlockLoss, error_sums, training_loss
from materials import random_material as crystal

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
    squared, elements, deviation, labels, _ = error_sums(zero, graph, layout).tolist()
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
    own = torch.tensor([7.0, 3.0, 10.0, 2.0, 6.0], dtype=torch.float64, requires_grad=True)
    loss = training_loss(own, own.detach(), 0.3)
    assert loss.item() == pytest.approx(2.0 + 0.3 * 2.0)  # w L_H / L_T is a constant: L = (1 + w) L_H
    (gradient,) = torch.autograd.grad(loss, own)
    assert gradient.tolist() == pytest.approx([0.0, 0.0, 0.3 * (2.0 / 5.0) / 2.0, 0.0, 1 / 3])


@pytest.mark.parametrize("sums", [[7.0, 3.0, 0.0, 0.0, 6.0], [7.0, 3.0, 0.0, 2.0, 6.0]])
def test_loss_without_trace_error_is_finite(sums: list[float]) -> None:
    own = torch.tensor(sums, dtype=torch.float64, requires_grad=True)
    loss = training_loss(own, own.detach(), 0.3)
    loss.backward()
    assert loss.item() == 2.0
    assert own.grad is not None
    assert own.grad.isfinite().all()


@pytest.mark.parametrize("loss", [None, BlockLoss("mae", 0.01, None), BlockLoss("huber", 0.01, None)])
def test_parts_of_the_ranks_sum_to_the_whole(loss: BlockLoss | None) -> None:
    graphs = [labelled(SpinMode.COLLINEAR, seed) for seed in range(3)]
    scale = torch.tensor(0.9, dtype=torch.float64, requires_grad=True)
    parts = []
    for graph, layout, _ in graphs:
        prediction = Prediction(scale * graph.target, scale.square() * graph.trace_labels)
        parts.append(error_sums(prediction, graph, layout, loss))
    total = sum(part.detach() for part in parts)
    whole = training_loss(sum(parts), total, 0.3)
    divided = [training_loss(part, total, 0.3) for part in parts]
    assert sum(divided).item() == pytest.approx(whole.item(), rel=1e-12)
    expected = torch.autograd.grad(whole, scale, retain_graph=True)[0]
    summed = sum(torch.autograd.grad(part, scale, retain_graph=True)[0] for part in divided)
    assert summed.item() == pytest.approx(expected.item(), rel=1e-12)


def block_errors(difference: torch.Tensor, graph: HamiltonianGraph, layout: TargetLayout) -> torch.Tensor:
    """Root mean square errors of the blocks in global coordinates, (E, T)."""
    squares = layout.element_errors(difference, graph).square()
    by_block = squares.new_zeros(len(squares), layout.num_targets).index_add_(1, layout.element_target, squares)
    return (by_block / layout.target_sizes).sqrt()


FORMULAS = {
    "mse": lambda r: r**2,
    "mae": lambda r: r,
    "huber": lambda r: 2 * 0.5 * ((r**2 + 0.25).sqrt() - 0.5),
}


@pytest.mark.parametrize("kind", FORMULAS)
@pytest.mark.parametrize("spin", SpinMode)
def test_losses_are_of_the_blocks_in_global_coordinates(spin: SpinMode, kind: str) -> None:
    graph, layout, _ = labelled(spin)
    difference = labelled(spin, seed=1)[0].target
    found = error_sums(Prediction(graph.target + difference, None), graph, layout, BlockLoss(kind, 0.5, None))
    errors = FORMULAS[kind](block_errors(difference, graph, layout))
    assert found[4].item() == pytest.approx((errors * layout.target_sizes).sum().item(), rel=1e-5)
    squares = error_sums(Prediction(graph.target + difference, None), graph, layout)
    assert torch.allclose(found[:4], squares[:4], rtol=1e-12)
    assert squares[4] == squares[0]


@pytest.mark.parametrize("kind", FORMULAS)
@pytest.mark.parametrize("spin", SpinMode)
def test_losses_do_not_turn_with_the_crystal(spin: SpinMode, kind: str) -> None:
    materials = [crystal(spin, seed=seed) for seed in (0, 1)]
    layout = TargetLayout(materials[0].basis, spin)
    found = []
    for operation in (np.eye(3), random_rotation(3)):
        graph, other = (
            HamiltonianGraph.from_sample(build_sample(transformed(each, operation), "one"), each.basis, layout)
            for each in materials
        )
        found.append(BlockLoss(kind, 0.5, None)(other.target - graph.target, graph, layout).item())
    assert found[1] == pytest.approx(found[0], rel=1e-11)


def test_huber_lies_between_the_other_two() -> None:
    graph, layout, _ = labelled(SpinMode.NONE)
    mse, mae, small, large = (
        BlockLoss(kind, delta, None)(graph.target, graph, layout).item()
        for kind, delta in (("mse", 1.0), ("mae", 1.0), ("huber", 1e-5), ("huber", 1e4))
    )
    assert small / 2e-5 == pytest.approx(mae, rel=1e-4)
    assert large == pytest.approx(mse, rel=1e-6)


@pytest.mark.parametrize("kind", FORMULAS)
def test_losses_have_gradients_where_nothing_is_wrong_and_none_from_absent_targets(kind: str) -> None:
    graph, layout, _ = labelled(SpinMode.NONE)
    graph.target = graph.target.float()
    coefficients = graph.target.clone()
    coefficients[1:] += 1.0
    absent = ~layout.edge_mask(graph)[:, layout.element_target]
    coefficients.requires_grad_()
    error_sums(Prediction(coefficients, None), graph, layout, BlockLoss(kind, 0.01, None))[4].backward()
    assert coefficients.grad is not None
    assert coefficients.grad.isfinite().all()
    assert (layout.elements(coefficients.grad)[absent] == 0.0).all()


@pytest.mark.parametrize("kind", FORMULAS)
def test_blocks_weigh_by_the_scales_of_the_network(kind: str) -> None:
    graph, layout, _ = labelled(SpinMode.NONE)
    scaling = TargetScaling(layout)
    scaling.fit([graph], lambda graph: torch.zeros_like(graph.target), lambda tensor: tensor)
    found = BlockLoss(kind, 0.5, scaling)(graph.target, graph, layout)
    errors = FORMULAS[kind](block_errors(graph.target, graph, layout) / scaling.scales(graph))
    expected = (errors * layout.target_sizes * layout.edge_mask(graph)).sum()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    if kind == "mse":  # every element is one of its scale in the mean
        assert found.item() == pytest.approx(error_sums(Prediction(graph.target, None), graph, layout)[1].item())


def test_weights_by_norm_need_the_scales() -> None:
    settings = TrainingSettings(block_weights="norm")
    with pytest.raises(ConfigError, match=r"set model\.target_scaling = true"):
        BlockLoss.of(settings, HamiltonianNetwork(ModelSettings(target_scaling=False), BASIS, SpinMode.NONE))
    network = HamiltonianNetwork(ModelSettings(target_scaling=True), BASIS, SpinMode.NONE)
    assert BlockLoss.of(settings, network) == BlockLoss("mae", 0.01, network.hamiltonian.scaling)
    assert BlockLoss.of(TrainingSettings(loss="mse"), network) is None
