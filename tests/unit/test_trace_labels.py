"""Labels of TraceGrad's decoder: numpy's singular values of the blocks that the DFT codes wrote, in any frame."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from deeph_tracegrad.config import TraceGradSettings
from deeph_tracegrad.graph import HamiltonianGraph
from deeph_tracegrad.material import Material
from deeph_tracegrad.orbitals import SpinMode
from deeph_tracegrad.preprocess.runs import read_material
from deeph_tracegrad.samples import build_sample
from deeph_tracegrad.targets import TargetLayout
from deeph_tracegrad.testing import random_rotation, transformed
from deeph_tracegrad.training.labels import trace_labels
from materials import random_material

SIGNALS = ("trace", "trace_square", "nuclear")
LABELS = ("normalised", "log", "raw")
SIGNAL_OF = {  # from the singular values
    "trace": lambda values: (values**2).sum(),
    "trace_square": lambda values: (values**4).sum(),
    "nuclear": lambda values: values.sum(),
}
RUNS = {SpinMode.NONE: "mos2", SpinMode.COLLINEAR: "fe_bcc_spin", SpinMode.NONCOLLINEAR: "bi_soc"}


def labels_of(material: Material, **settings: str) -> tuple[HamiltonianGraph, torch.Tensor]:
    layout = TargetLayout(material.basis, material.spin)
    graph = HamiltonianGraph.from_sample(build_sample(material, "one"), material.basis, layout)
    return graph, trace_labels(graph.target, layout, TraceGradSettings(**settings))


def signals_by_numpy(material: Material, pair: np.ndarray, signal: str) -> np.ndarray:
    """Of all targets of one edge, from the blocks as they were read."""
    layout, spins = TargetLayout(material.basis, material.spin), material.spin.components
    bases = [material.basis[material.elements[atom]] for atom in pair[3:]]
    starts = [
        {(l1, basis.shells[:place].count(l1)): basis.shell_starts[place] for place, l1 in enumerate(basis.shells)}
        for basis in bases
    ]
    expected = np.zeros(layout.num_targets)
    for number, target in enumerate(layout.targets):
        matrix = material.hamiltonian[target.channel]
        places = [starts[0].get((target.l1, target.k1)), starts[1].get((target.l2, target.k2))]
        if None in places:
            continue
        indices = [
            [spin * basis.num_orbitals + start + m for spin in range(spins) for m in range(2 * degree + 1)]
            for basis, start, degree in zip(bases, places, (target.l1, target.l2), strict=True)
        ]
        block = matrix.block(int(np.flatnonzero((matrix.pairs == pair).all(axis=1))[0]))
        values = np.linalg.svd(block[np.ix_(*indices)], compute_uv=False)
        expected[number] = SIGNAL_OF[signal](values)
    return expected


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("spin", SpinMode)
def test_signals_are_those_of_the_blocks_that_were_read(
    spin: SpinMode, signal: str, unpacked: Callable[[str], Path]
) -> None:
    material = read_material(unpacked("openmx") / RUNS[spin])
    assert material.spin is spin
    graph, labels = labels_of(material, signal=signal, labels="raw")
    powers = {"trace": 2, "trace_square": 4, "nuclear": 1}
    for edge in (0, graph.num_edges // 3, graph.num_edges - 1):
        expected = signals_by_numpy(material, graph.pairs[edge], signal) / 27.211386 ** powers[signal]
        assert labels[edge].numpy() == pytest.approx(expected, rel=1e-9, abs=1e-12 * expected.max())


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("spin", SpinMode)
def test_labels_do_not_turn_with_the_crystal(spin: SpinMode, signal: str, labels: str, inverted: bool) -> None:
    material = random_material(spin)
    graph, found = labels_of(material, signal=signal, labels=labels)
    turned, after = labels_of(
        transformed(material, random_rotation(2) * (-1 if inverted else 1)), signal=signal, labels=labels
    )
    assert np.array_equal(graph.pairs, turned.pairs)
    assert (turned.target - graph.target).abs().max() > 0.1
    assert (after - found).abs().max() < 1e-11 * found.abs().max()


@pytest.mark.parametrize("signal", SIGNALS)
def test_log_labels_are_decades_above_a_millielectronvolt(signal: str) -> None:
    material = random_material(SpinMode.NONE)

    def on_site(factor: float) -> torch.Tensor:
        matrices = tuple(h.with_entries(factor * h.entries) for h in material.hamiltonian)
        graph, labels = labels_of(material.with_hamiltonian(matrices), signal=signal, labels="log")
        layout = TargetLayout(material.basis, material.spin)
        assert (labels[~layout.edge_mask(graph)] == 0.0).all()
        return labels[graph.on_site][layout.edge_mask(graph)[graph.on_site]]

    assert (on_site(1000.0) - on_site(10.0)).numpy() == pytest.approx(2.0, abs=1e-2)
    assert on_site(1e-9).abs().max() < 1e-4


@pytest.mark.parametrize("signal", SIGNALS)
def test_normalised_labels_have_mean_0_and_variance_1_over_the_targets_of_an_edge(signal: str) -> None:
    material = random_material(SpinMode.NONE)
    graph, labels = labels_of(material, signal=signal)
    assert labels.mean(dim=1).abs().max() < 1e-12
    signals = signals_by_numpy(material, graph.pairs[1], signal)
    expected = (signals - signals.mean()) / np.sqrt(signals.var() + 1e-5)
    assert labels[1].numpy() == pytest.approx(expected, rel=1e-10)
