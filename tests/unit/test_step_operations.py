"""A training step is the same operations whatever the edges, the shells and the species: no loop goes over them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure
from torch.utils._python_dispatch import TorchDispatchMode

from deeph_tracegrad.blocks import BlockMatrix
from deeph_tracegrad.config import Config, ModelSettings, TraceGradSettings
from deeph_tracegrad.graph import HamiltonianGraph
from deeph_tracegrad.material import Material
from deeph_tracegrad.nn.arrangement import Arrangement
from deeph_tracegrad.nn.kernels.library import compiled
from deeph_tracegrad.orbitals import Basis, ElementBasis, SpinMode
from deeph_tracegrad.samples import build_sample
from deeph_tracegrad.targets import TargetLayout
from deeph_tracegrad.training.labels import trace_labels
from deeph_tracegrad.training.losses import error_sums, training_loss
from deeph_tracegrad.training.state import TrainingState


class Counted(TorchDispatchMode):
    """How many operations torch is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        self.operations += 1
        return operation(*arguments, **(keywords or {}))


def operations(shells: Sequence[int], elements: Sequence[str], atoms: int, spin: SpinMode) -> int:
    """Those of one training step on the graph of a molecule, all its atoms bonded."""
    basis = Basis.of(dict.fromkeys(elements, ElementBasis(tuple(shells))))
    named = [elements[atom % len(elements)] for atom in range(atoms)]
    places = np.random.default_rng(0).uniform(0.1, 0.4, (atoms, 3))
    pairs = np.array([[0, 0, 0, i, j] for i in range(atoms) for j in range(atoms)])
    sizes = basis.num_orbitals(named) * spin.components
    zeros = np.zeros(int((sizes[pairs[:, 3]] * sizes[pairs[:, 4]]).sum()), complex if spin.components == 2 else float)
    hamiltonian = (BlockMatrix.of(pairs, zeros, sizes),) * spin.channels
    material = Material(Structure(Lattice.cubic(8.0), named, places), basis, spin, hamiltonian=hamiltonian)
    layout = TargetLayout(basis, spin)
    graph = HamiltonianGraph.from_sample(build_sample(material, "molecule"), basis, layout)
    graph.trace_labels = trace_labels(graph.target, layout, TraceGradSettings()).float()
    graph.target = graph.target.float()
    graph.arrangement = Arrangement.of(graph, len(basis))
    model = ModelSettings(
        trunk="8x0e+4x1o+4x2e",
        target_scaling=True,
        tracegrad=TraceGradSettings(preset="compact"),
    )
    state = TrainingState(Config(model=model), basis, spin, torch.device("cpu"))
    with Counted() as counted:
        errors = error_sums(state.network(graph), graph, state.network.layout)
        training_loss(errors, errors.detach(), 1.0).backward()
        state.optimizer.step()
    return counted.operations


@pytest.mark.parametrize("spin", SpinMode)
def test_more_edges_and_shells_take_the_same_operations(spin):
    few = operations((0, 1), ["C"], 2, spin)
    assert few > 100
    assert operations((0, 0, 1, 1, 1), ["C"], 7, spin) == few


@pytest.mark.skipif(not compiled(torch.empty(0)), reason="torch alone takes the pairs of species in turn")
def test_more_species_take_the_same_operations():
    assert operations((0, 1), ["C", "H"], 6, SpinMode.NONE) == operations((0, 1), list("CHNOFP"), 6, SpinMode.NONE)
