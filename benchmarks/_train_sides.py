"""The two sides of `train_step.py`: DeepH-E3's network on e3nn, and ours, on one graph, each with its training step.

Shape letters: E edges, P elements of H.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from _e3nn_network import E3nnNetwork
from _e3nn_output import WignerEckart
from _fixtures import read_fixture
from e3nn import o3
from pymatgen.core import Structure
from torch import Tensor

from deeph_tracegrad.config import PRESETS, Config, ModelSettings, TraceGradSettings
from deeph_tracegrad.graph import HamiltonianGraph
from deeph_tracegrad.material import Material
from deeph_tracegrad.nn.arrangement import Arrangement
from deeph_tracegrad.nn.network import Prediction
from deeph_tracegrad.samples import build_sample
from deeph_tracegrad.targets import TargetLayout
from deeph_tracegrad.testing import repeated
from deeph_tracegrad.training.labels import trace_labels
from deeph_tracegrad.training.losses import error_sums, training_loss
from deeph_tracegrad.training.state import TrainingState

DISPLACEMENT = 0.05  # Å, so that no symmetry is left


@dataclass(frozen=True)
class Case:
    """A supercell of a fixture, and the irreps of DeepH-E3's network for it.

    post_node: the last node features, as the official program chooses them: the trunk's, and what the output needs.
    """

    fixture: str
    times: tuple[int, int, int]
    trunk: str
    post_node: str


_TRUNK = ModelSettings().trunk
CASES = {
    "graphene": Case("graphene", (3, 3, 1), _TRUNK, _TRUNK),
    "bismuth": Case("bi_soc", (3, 3, 1), _TRUNK, f"{_TRUNK}+32x1e"),
}


@dataclass(frozen=True)
class Task:
    """What both sides learn, in which precision, on which device."""

    case: Case
    dtype: torch.dtype
    device: torch.device

    @cached_property
    def material(self) -> Material:
        """The supercell with displaced atoms. H stays that of the perfect crystal: any labels do to measure speed."""
        material = repeated(read_fixture(self.case.fixture), self.case.times)
        structure = material.structure
        moves = np.random.default_rng(0).normal(scale=DISPLACEMENT, size=(len(structure), 3))
        moved = Structure(
            structure.lattice, structure.species, structure.cart_coords + moves, coords_are_cartesian=True
        )
        return replace(material, structure=moved)

    @cached_property
    def layout(self) -> TargetLayout:
        """What there is to learn."""
        return TargetLayout(self.material.basis, self.material.spin).to(self.device)

    @cached_property
    def graph(self) -> HamiltonianGraph:
        """The labelled graph, as a training reads it."""
        sample, basis = build_sample(self.material, "benchmark"), self.material.basis
        layout = TargetLayout(basis, self.material.spin)
        graph = HamiltonianGraph.from_sample(sample, basis, layout)
        graph.trace_labels = trace_labels(graph.target, layout, TraceGradSettings()).to(self.dtype)
        graph.target = graph.target.to(self.dtype)
        graph.arrangement = Arrangement.of(graph, len(basis))
        return graph.to(self.device)

    @property
    def unit_cell(self) -> "Task":
        """The same for one cell."""
        return replace(self, case=replace(self.case, times=(1, 1, 1)))

    @property
    def config(self) -> Config:
        """DeepH-E3 as published: no TraceGrad, nothing Hermitian by construction, Adam."""
        config = PRESETS["deeph-e3"]
        model = config.model.model_copy(update={"trunk": self.case.trunk})
        training = config.training.model_copy(update={"dtype": str(self.dtype).removeprefix("torch.")})
        return config.model_copy(update={"model": model, "training": training})


class Ours:
    """Our network, its loss, and the optimiser as a training makes it.

    autocast: whether matrix products take bfloat16.
    """

    def __init__(self, task: Task) -> None:
        state = TrainingState(task.config, task.material.basis, task.material.spin, task.device)
        self.network, self.optimizer = state.network, state.optimizer
        self.autocast = False
        self._trace_weight = task.config.model.tracegrad.form.loss_weight
        self.take(task)

    def take(self, task: Task) -> None:
        """Learn this from now on."""
        self.graph = task.graph

    def forward(self) -> Prediction:
        """H as coefficients in the edges' frames."""
        with torch.autocast(self.graph.edge_vec.device.type, torch.bfloat16, enabled=self.autocast):
            return self.network(self.graph)

    def elements(self) -> Tensor:
        """(E, P) eV in global coordinates."""
        layout = self.network.layout
        return layout.elements(layout.to_global(self.forward().coefficients, self.graph.edge_frame))

    def loss(self) -> Tensor:
        """eV²."""
        errors = error_sums(self.forward(), self.graph, self.network.layout)
        return training_loss(errors, errors.detach(), self._trace_weight)

    def step(self) -> None:
        """One update of the weights."""
        self.optimizer.zero_grad()
        self.loss().backward()
        self.optimizer.step()


class Theirs:
    """DeepH-E3's network on e3nn, its loss, and the optimiser that the official program makes."""

    def __init__(self, task: Task) -> None:
        material, settings = task.material, task.config.model
        torch.manual_seed(0)
        with _default_dtype(task.dtype):  # e3nn makes its tables in it
            shapes = [(target.l1, target.l2) for target in task.layout.targets]
            self.output = WignerEckart(shapes, spinor=material.spin.components == 2).to(task.device, task.dtype)
            self.irreps = {
                "irreps_embed_node": f"{settings.node_channels}x0e",
                "irreps_edge_init": f"{settings.edge_channels}x0e",
                "irreps_mid_node": task.case.trunk,
                "irreps_post_node": task.case.post_node,
                "irreps_mid_edge": task.case.trunk,
                "irreps_post_edge": str(self.output.irreps.sort().irreps.simplify()),
            }
            self.network = E3nnNetwork(
                **self.irreps,
                num_species=len(material.basis),
                irreps_sh=str(o3.Irreps.spherical_harmonics(settings.harmonics_degree)),
                irreps_out_edge=str(self.output.irreps),
                num_block=settings.blocks,
                r_max=settings.cutoff_radius,
            ).to(task.device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=2e-3, betas=(0.9, 0.999))
        self.take(task)

    def take(self, task: Task) -> None:
        """Learn this from now on."""
        self.graph, layout = task.graph, task.layout
        label = layout.elements(layout.to_global(self.graph.target, self.graph.edge_frame))
        self._label = label.to(task.dtype.to_complex() if label.is_complex() else task.dtype)
        self._mask = layout.element_mask(self.graph)

    def forward(self) -> Tensor:
        """H as coefficients in global coordinates."""
        return self.network(self.graph)

    def elements(self) -> Tensor:
        """(E, P) eV in global coordinates."""
        return self.output(self.forward())

    def loss(self) -> Tensor:
        """eV²."""
        return (self.elements() - self._label).abs().square().masked_select(self._mask).mean()

    def step(self) -> None:
        """One update of the weights."""
        self.optimizer.zero_grad()
        self.loss().backward()
        self.optimizer.step()


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


SIDES = {"theirs": Theirs, "ours": Ours}
