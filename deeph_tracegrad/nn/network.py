"""The whole network: DeepH-E3 (Nat. Commun. 14, 2848 (2023)) in the frames of its edges, with TraceGrad.

Shape letters: N atoms, E edges, R edges with the on-site ones first, D target coefficients, T targets.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from deeph_tracegrad.config import ModelSettings
from deeph_tracegrad.errors import ConfigError
from deeph_tracegrad.graph import HamiltonianGraph
from deeph_tracegrad.nn.layout import Irrep, Layout
from deeph_tracegrad.nn.linear import IrrepLinear
from deeph_tracegrad.nn.radial import GaussianBasis
from deeph_tracegrad.nn.rotations import EdgeRotations
from deeph_tracegrad.nn.tracegrad import CompactTraceGrad, PaperTraceGrad, TraceDecoder
from deeph_tracegrad.nn.updates import EdgeUpdate, Geometry, NodeUpdate, Sizes, post_node_layout, scalars
from deeph_tracegrad.orbitals import Basis, SpinMode
from deeph_tracegrad.targets import TargetLayout

# Å; DeepH-E3 ends the grid of the edge embedding here whatever the cutoff is
_EDGE_EMBEDDING_END = 6.0


class Prediction(NamedTuple):
    """What the network says of each edge.

    coefficients: (E, D) eV, H in the edge's frame. traces: (E, T), the traces tr(H H†) of the targets' blocks after a
    layer norm over T; None without TraceGrad.
    """

    coefficients: Tensor
    traces: Tensor | None


class HamiltonianNetwork(nn.Module):
    """From a crystal to the irrep coefficients of its H blocks."""

    def __init__(self, settings: ModelSettings, basis: Basis, spin: SpinMode) -> None:
        super().__init__()
        self.settings = settings
        self.layout = TargetLayout(basis, spin)
        species, degree = len(basis), settings.harmonics_degree
        sizes = Sizes(degree, settings.radial_basis, species)
        node, edge = scalars(settings.node_channels), scalars(settings.edge_channels)
        trunk = Layout.parse(settings.trunk)
        edge_trunk = Layout.parse(settings.edge_trunk or settings.trunk)
        self.output = Layout((Irrep.of(degree, parity), 1) for degree, parity, _ in self.layout.irreps)
        self.species = nn.Parameter(torch.randn(species, settings.node_channels) * species**-0.5)
        self.edge_embedding = GaussianBasis(settings.edge_channels, _EDGE_EMBEDDING_END)
        self.radial = GaussianBasis(settings.radial_basis, settings.cutoff_radius)
        self.node_updates, self.edge_updates, self.trace_modules = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        form = PaperTraceGrad if settings.tracegrad.preset == "paper" else CompactTraceGrad
        width, decoder_width = settings.tracegrad.widths
        for block in range(settings.blocks):
            last = block == settings.blocks - 1
            wanted = post_node_layout(trunk, edge_trunk, self.output, [node, edge], degree) if last else trunk
            self.node_updates.append(node_update := NodeUpdate(node, edge, wanted, sizes))
            node = node_update.layout
            wanted = self.output if last else edge_trunk
            self.edge_updates.append(edge_update := EdgeUpdate(node, edge, wanted, sizes))
            edge = edge_update.layout
            if settings.tracegrad.enabled:
                self.trace_modules.append(form(edge, width, self.layout.num_targets))
        missing = [str(irrep) for irrep in self.output.groups if irrep not in edge.groups]
        if missing:
            raise ConfigError(
                f"the trunk {settings.trunk} with {settings.blocks} blocks and harmonics up to l = {degree} cannot "
                f"reach the irreps {', '.join(missing)} of H for {basis.describe()}; raise [model] harmonics_degree, "
                "or add irreps or blocks"
            )
        self.head = IrrepLinear(edge, self.output, bias=True)
        self.decoder = (
            TraceDecoder(settings.blocks * self.layout.num_targets, decoder_width, self.layout.num_targets)
            if settings.tracegrad.enabled
            else None
        )
        updates = [*self.node_updates, *self.edge_updates]
        self._irreps = {irrep for update in updates for layout in update.layouts for irrep in layout.groups}
        place, sign = _canonical(self.output, self.layout)
        self.register_buffer("_place", place, persistent=False)
        self.register_buffer("_sign", sign, persistent=False)

    def forward(self, graph: HamiltonianGraph) -> Prediction:
        """Predict H on every edge of a graph or batch."""
        on_site = graph.on_site
        atoms = graph.num_nodes
        order = torch.argsort(torch.where(on_site, graph.edge_index[0], atoms), stable=True)
        geometry, length = self._geometry(graph, order)
        node = self.species[graph.species]
        edge = self.edge_embedding(length)
        invariants = []
        for block, (node_update, edge_update) in enumerate(zip(self.node_updates, self.edge_updates, strict=True)):
            node = node_update(node, edge, geometry)
            edge = edge_update(node, edge, geometry)
            if self.decoder is not None:
                z, gradient = self.trace_modules[block](edge)
                edge = edge + gradient
                invariants.append(z)
        place = torch.empty_like(order).index_copy(0, order, torch.arange(len(order), device=order.device))
        coefficients = (self.head(edge)[:, self._place] * self._sign.to(edge))[place]
        if self.settings.hermitian:
            coefficients = self.layout.hermitian(coefficients, graph.reverse_edge, on_site)
        traces = None if self.decoder is None else self.decoder(torch.cat(invariants, dim=1))[place]
        return Prediction(coefficients, traces)

    @property
    def dtype(self) -> torch.dtype:
        """Number type of the weights."""
        return self.species.dtype

    def _geometry(self, graph: HamiltonianGraph, order: Tensor) -> tuple[Geometry, Tensor]:
        """What the updates share, for the edges in this order, and the edges' lengths (R,)."""
        length = torch.linalg.vector_norm(graph.edge_vec[order], dim=1).to(self.dtype)
        index = graph.edge_index[:, order]
        atom_graph = graph.batch if graph.get("batch") is not None else torch.zeros_like(graph.species)
        count = len(self.species)
        pair = graph.species[index[0]] * count + graph.species[index[1]]
        geometry = Geometry(
            atoms=graph.num_nodes,
            graphs=len(graph.cell),
            edge_index=index,
            rotations=EdgeRotations(graph.edge_frame[order], self._irreps, self.dtype),
            radial=self.radial(length),
            atom_graph=atom_graph,
            edge_graph=atom_graph[index[0]],
            atom_kinds=_rows_of(graph.species, count),
            edge_kinds=_rows_of(pair, count**2),
        )
        return geometry, length


def _rows_of(kinds: Tensor, count: int) -> Sequence[Tensor] | None:
    """The rows of each kind; None where there is only one."""
    if count == 1:
        return None
    return torch.argsort(kinds, stable=True).split(torch.bincount(kinds, minlength=count).tolist())


def _canonical(output: Layout, layout: TargetLayout) -> tuple[Tensor, Tensor]:
    """Where each target coefficient stands in the network's output, and its sign: pseudo channels come turned."""
    place, sign = torch.empty(layout.dim, dtype=torch.int64), torch.ones(layout.dim)
    used: dict[Irrep, int] = {}
    for degree, parity, start in layout.irreps:
        irrep = Irrep.of(degree, parity)
        channel = used.get(irrep, 0)
        used[irrep] = channel + 1
        for order in range(-degree, degree + 1):
            here = start + degree + order
            # p_{+m} = p'_{-m} and p_{-m} = -p'_{+m}
            turned = not irrep.natural and order != 0
            place[here] = output.position(irrep, channel, -order if turned else order)
            sign[here] = -1.0 if turned and order < 0 else 1.0
    return place, sign
