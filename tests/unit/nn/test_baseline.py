"""The two-centre baseline and the scale of the targets against functions and statistics that are known."""

import numpy as np
import pytest
import torch
from torch import Tensor

from deeph_tracegrad.graph import HamiltonianGraph, build_graph
from deeph_tracegrad.nn.baseline import SPLINES, TwoCentreBaseline
from deeph_tracegrad.nn.scaling import TargetScaling
from deeph_tracegrad.orbitals import Basis, ElementBasis, SpinMode
from deeph_tracegrad.samples import Sample, build_sample
from deeph_tracegrad.targets import TargetLayout
from materials import random_material

REACH = {"Mo-Mo": 4.2, "Mo-S": 4.2, "S-S": 4.2}


def alone(tensor: Tensor) -> Tensor:
    """The sum over one rank."""
    return tensor


def chain(lengths: list[float], layout: TargetLayout) -> HamiltonianGraph:
    """One atom with bonds of these lengths in directions at random, each with its reverse."""
    half = np.random.default_rng(0).normal(size=(len(lengths), 3))
    half *= np.array(lengths)[:, None] / np.linalg.norm(half, axis=1, keepdims=True)
    graph = HamiltonianGraph(
        species=torch.zeros(1, dtype=torch.int64),
        edge_index=torch.zeros(2, 2 * len(lengths) + 1, dtype=torch.int64),
        edge_shift=torch.arange(2 * len(lengths) + 1)[:, None].expand(-1, 3),
        edge_vec=torch.from_numpy(np.concatenate([np.zeros((1, 3)), half, -half])),
        num_nodes=1,
    )
    graph.target = torch.zeros(graph.num_edges, layout.dim, dtype=torch.float64)
    return graph


def carbon(*shells: int) -> TargetLayout:
    return TargetLayout(Basis.of({"C": ElementBasis(shells)}), SpinMode.NONE)


def hopping(length: Tensor) -> Tensor:
    return -8.0 * torch.exp(-(length - 1.4) / 0.6) * (1 + 0.3 * torch.sin(3 * length))


def bond_lengths(graph: HamiltonianGraph) -> Tensor:
    return torch.linalg.vector_norm(graph.edge_vec, dim=1)


def fitted(layout: TargetLayout, graph: HamiltonianGraph, end: float, functions: int = SPLINES) -> TwoCentreBaseline:
    baseline = TwoCentreBaseline(layout, functions)
    baseline.fit([graph], {"C-C": end}, alone)
    return baseline


def test_a_smooth_function_of_the_length_is_found() -> None:
    layout = carbon(0)
    graph = chain(np.random.default_rng(1).uniform(1.2, 6.0, 400).tolist(), layout)
    graph.target = torch.where(graph.on_site, -12.5, hopping(bond_lengths(graph)))[:, None]
    baseline = fitted(layout, graph, 6.0)
    other = chain(np.linspace(1.25, 5.95, 300).tolist(), layout)
    expected = torch.where(other.on_site, -12.5, hopping(bond_lengths(other)))[:, None]
    assert (baseline(other) - expected).abs().max() < 4e-3
    assert baseline(other)[0].item() == pytest.approx(-12.5, rel=1e-6)


@pytest.mark.parametrize("lengths", [[1.42], [1.42, 2.46], [1.42, 2.46, 2.84, 3.76]])
def test_few_lengths_are_met_and_joined_without_waves(lengths: list[float]) -> None:
    """As in a perfect crystal."""
    layout = carbon(0)
    graph = chain(lengths, layout)
    graph.target = torch.where(graph.on_site, 1.0, hopping(bond_lengths(graph)))[:, None]
    baseline = fitted(layout, graph, lengths[-1])
    assert (baseline(graph) - graph.target)[1:].abs().max() < 0.02
    # a spline through these points may leave their range by a little, not by oscillations
    between = baseline(chain(np.linspace(lengths[0], lengths[-1], 50).tolist(), layout))[1:]
    bonds = graph.target[1:]
    assert bonds.min() - 0.3 < between.min()
    assert between.max() < bonds.max() + 0.3


def test_longer_and_shorter_bonds_than_any_seen_stay_finite() -> None:
    layout = carbon(0)
    graph = chain(np.linspace(1.3, 3.0, 40).tolist(), layout)
    graph.target = torch.where(graph.on_site, 1.0, hopping(bond_lengths(graph)))[:, None]
    outside = fitted(layout, graph, 3.0)(chain([1.1, 3.1, 30.0], layout))
    assert (outside[1] - outside[4]).abs().max() == 0.0  # both directions
    assert outside[1].item() == pytest.approx(hopping(torch.tensor(1.1)).item(), rel=0.2)
    assert (outside[2] - hopping(torch.tensor(3.0))).abs() < 0.01
    assert torch.equal(outside[2], outside[3])


def test_an_atom_without_bonds() -> None:
    layout = carbon(0, 1)
    graph = chain([], layout)
    graph.target = torch.randn(1, layout.dim, dtype=torch.float64)
    scalar = torch.tensor([start for degree, _, start in layout.irreps if degree == 0])
    baseline = fitted(layout, graph, 0.0)(graph)
    kept = torch.zeros_like(baseline).index_fill(1, scalar, 1.0).bool()
    # of p-p, L = 0 alone; s-p has no scalar
    assert torch.allclose(baseline[kept], graph.target[kept], rtol=1e-6)
    assert (baseline[~kept] == 0).all()


def test_one_function_is_the_mean() -> None:
    layout = carbon(0)
    graph = chain([1.4, 2.0, 3.0], layout)
    graph.target = torch.arange(7.0, dtype=torch.float64)[:, None]
    baseline = fitted(layout, graph, 3.0, functions=1)(graph)
    assert baseline[0].item() == pytest.approx(0.0, abs=1e-6)
    assert torch.allclose(baseline[1:], torch.tensor(3.5, dtype=torch.float64), rtol=1e-6)


def labelled(spin: SpinMode, seed: int = 0) -> tuple[TargetLayout, HamiltonianGraph]:
    material = random_material(spin, seed=seed)
    layout = TargetLayout(material.basis, spin)
    sample: Sample = build_sample(material, "one")
    return layout, HamiltonianGraph.from_sample(sample, material.basis, layout)


@pytest.mark.parametrize("spin", SpinMode)
@pytest.mark.parametrize("functions", [1, SPLINES])
def test_the_baseline_of_a_hermitian_h_is_hermitian(spin: SpinMode, functions: int) -> None:
    layout, graph = labelled(spin)
    baseline = TwoCentreBaseline(layout, functions)
    baseline.fit([graph], REACH, alone)
    values = baseline(graph)
    assert values.abs().max() > 0.1
    assert (layout.hermitian(values, graph.reverse_edge, graph.on_site) - values).abs().max() < 1e-9


def test_pairs_and_targets_without_data_are_zero() -> None:
    layout, graph = labelled(SpinMode.NONE)
    source, destination = graph.species[graph.edge_index]
    seen = (source == destination).nonzero()[:, 0]
    baseline, scaling = TwoCentreBaseline(layout, SPLINES), TargetScaling(layout)
    same = HamiltonianGraph(
        species=graph.species,
        edge_index=graph.edge_index[:, seen],
        edge_shift=graph.edge_shift[seen],
        edge_vec=graph.edge_vec[seen],
        target=graph.target[seen],
        num_nodes=3,
    )
    baseline.fit([same], REACH, alone)
    scaling.fit([same], baseline, alone)
    values = baseline(graph)
    assert (values[source != destination] == 0).all()
    assert (scaling(torch.ones_like(values), graph)[source != destination] == 1e-3).all()
    missing = ~layout.edge_mask(graph)
    assert missing.any()
    assert (layout.traces(values)[missing] < 1e-20).all()


def test_single_precision_keeps_the_baseline() -> None:
    layout, graph = labelled(SpinMode.NONE)
    baseline = TwoCentreBaseline(layout, SPLINES)
    baseline.fit([graph], REACH, alone)
    double = baseline(graph)
    single = baseline.float()(graph)
    assert single.dtype == torch.float32
    assert (single - double).abs().max() < 1e-5 * double.abs().max()


@pytest.mark.parametrize("spin", SpinMode)
@pytest.mark.parametrize("functions", [1, SPLINES])
def test_scaled_targets_have_elements_of_order_one(spin: SpinMode, functions: int) -> None:
    """For each ordered element pair, on-site or not, and each target that it has; s-s on a sole atom has no rest."""
    layout, graph = labelled(spin)
    baseline, scaling = TwoCentreBaseline(layout, functions), TargetScaling(layout)
    baseline.fit([graph], REACH, alone)
    scaling.fit([graph], baseline, alone)
    source, destination = graph.species[graph.edge_index]
    kinds = source * 2 + destination + 4 * graph.on_site
    left = layout.traces((graph.target - baseline(graph)) / scaling(torch.ones_like(graph.target), graph))
    for kind in kinds.unique():
        present = layout.edge_mask(graph)[kinds == kind][0]
        means = left[kinds == kind].mean(dim=0) / layout.target_sizes
        ordinary = present & (scaling.scale[kind] > 1e-3)
        assert ordinary.sum() > 0.6 * present.sum()
        assert torch.allclose(means[ordinary], torch.ones_like(means[ordinary]))
        assert (means[~ordinary] < 1.0).all()


def test_what_is_fitted_to_parts_is_fitted_to_the_whole() -> None:
    """Batches, as ranks, only add up."""
    layout, one = labelled(SpinMode.NONE)
    two = labelled(SpinMode.NONE, seed=1)[1]
    whole, part = TwoCentreBaseline(layout, SPLINES), TwoCentreBaseline(layout, SPLINES)
    whole.fit([one, two], REACH, alone)
    others = TwoCentreBaseline(layout, SPLINES)
    sums: list[Tensor] = []

    def kept(tensor: Tensor) -> Tensor:
        sums.append(tensor.clone())
        return tensor

    others.fit([two], REACH, kept)
    part.fit([one], REACH, lambda tensor: tensor + sums.pop(0))
    assert torch.allclose(part.table, whole.table, rtol=1e-6, atol=1e-9)


def test_nothing_is_added_before_the_fit() -> None:
    material = random_material(SpinMode.NONE)
    graph = build_graph(material, material.overlap.pairs, material.basis)
    layout = TargetLayout(material.basis, SpinMode.NONE)
    assert (TwoCentreBaseline(layout, SPLINES)(graph) == 0).all()
    outputs = torch.randn(graph.num_edges, layout.dim, dtype=torch.float64)
    assert torch.equal(TargetScaling(layout)(outputs, graph), outputs)
