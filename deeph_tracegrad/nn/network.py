"""The whole network: DeepH-E3 (Nat. Commun. 14, 2848 (2023)) in the frames of its edges, with TraceGrad.

Shape letters: N atoms, E edges, R edges with the on-site ones first, D target coefficients, T targets.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from deeph_tracegrad.config import ModelSettings
from deeph_tracegrad.console import count
from deeph_tracegrad.errors import ConfigError
from deeph_tracegrad.graph import HamiltonianGraph
from deeph_tracegrad.nn.arrangement import Arrangement
from deeph_tracegrad.nn.layout import Irrep, Layout
from deeph_tracegrad.nn.linear import IrrepLinear
from deeph_tracegrad.nn.norm import Rows, Total, alone
from deeph_tracegrad.nn.order import TargetOrder
from deeph_tracegrad.nn.output import Output
from deeph_tracegrad.nn.radial import GaussianBasis
from deeph_tracegrad.nn.rotations import EdgeRotations
from deeph_tracegrad.nn.tracegrad import TraceDecoder, TraceGrad
from deeph_tracegrad.nn.updates import EdgeUpdate, Geometry, NodeUpdate, Sizes, post_node_layout, scalars
from deeph_tracegrad.orbitals import Basis, SpinMode
from deeph_tracegrad.targets import TargetLayout

# Å; DeepH-E3 ends the grid of the edge embedding here whatever the cutoff is
_EDGE_EMBEDDING_END = 6.0


class Prediction(NamedTuple):
    """What the network says of each edge.

    coefficients: (E, D) eV, H in the edge's frame. traces: (E, T), what the trace labels say of the targets' blocks;
    None without TraceGrad.
    """

    coefficients: Tensor
    traces: Tensor | None


class HamiltonianNetwork(nn.Module):
    """From a crystal to the irrep coefficients of its H blocks.

    recompute: whether to compute each block again in the backward pass instead of keeping what is inside it.
    bf16_products: whether the blocks multiply by their channel matrices in bfloat16 while gradients are recorded;
        norms, rotations, TraceGrad and what follows the blocks stay in float32.
    """

    def __init__(self, settings: ModelSettings, basis: Basis, spin: SpinMode) -> None:
        super().__init__()
        self.settings = settings
        self.recompute = self.bf16_products = False
        self.layout = TargetLayout(basis, spin)
        species, degree = len(basis), settings.harmonics_degree
        sizes = Sizes(degree, settings.radial_basis, species, settings.norm)
        node, edge = scalars(settings.node_channels), scalars(settings.edge_channels)
        trunk = Layout.parse(settings.trunk)
        edge_trunk = Layout.parse(settings.edge_trunk or settings.trunk)
        self.output = Layout((Irrep.of(degree, parity), 1) for degree, parity, _ in self.layout.irreps)
        self.species = nn.Parameter(torch.randn(species, settings.node_channels) * species**-0.5)
        self.edge_embedding = GaussianBasis(settings.edge_channels, _EDGE_EMBEDDING_END)
        self.radial = GaussianBasis(settings.radial_basis, settings.cutoff_radius)
        self.node_updates, self.edge_updates, self.trace_modules = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        form = settings.tracegrad.form
        supervised = (form.blocks or settings.blocks) if settings.tracegrad.enabled else 0
        for block in range(settings.blocks):
            last = block == settings.blocks - 1
            wanted = post_node_layout(trunk, edge_trunk, self.output, [node, edge], degree) if last else trunk
            self.node_updates.append(node_update := NodeUpdate(node, edge, wanted, sizes))
            node = node_update.layout
            wanted = self.output if last else edge_trunk
            self.edge_updates.append(edge_update := EdgeUpdate(node, edge, wanted, sizes))
            edge = edge_update.layout
            if block < supervised:
                self.trace_modules.append(TraceGrad(edge, form.width, self.layout.num_targets))
        missing = [str(irrep) for irrep in self.output.groups if irrep not in edge.groups]
        if missing:
            raise ConfigError(
                f"the trunk {settings.trunk} with {count(settings.blocks, 'block')} and harmonics up to l = {degree} "
                f"cannot reach the irreps {', '.join(missing)} of H for {basis.describe()}; raise [model] "
                "harmonics_degree, or add irreps or blocks"
            )
        self.head = IrrepLinear(edge, self.output, bias=True)
        self.decoder = (
            TraceDecoder(supervised * self.layout.num_targets, form.decoder_width, self.layout.num_targets)
            if supervised
            else None
        )
        self.hamiltonian = Output(settings, self.layout)
        updates = [*self.node_updates, *self.edge_updates]
        self._irreps = {irrep for update in updates for layout in update.layouts for irrep in layout.groups}
        self.order = TargetOrder(self.output, self.layout)

    def forward(self, graph: HamiltonianGraph, total: Total = alone) -> Prediction:
        """Predict H on every edge of a graph or batch, or of a part of it that has all atoms and some of the bonds.

        Its `arrangement`, if it has one, saves finding it here, which waits for the device.

        total: of the ranks that have the other parts, which all call this together.
        """
        arrangement = graph.get("arrangement") or Arrangement.of(graph, len(self.species))
        envelope = self.hamiltonian.envelope(graph)
        envelope = None if envelope is None else envelope.to(self.dtype)
        geometry, length = self.geometry(graph, arrangement, envelope, total)
        node = self.species.index_select(0, graph.species)
        edge = self.edge_embedding(length)
        invariants = []
        training = torch.is_grad_enabled()
        with torch.autocast(node.device.type, torch.bfloat16, enabled=self.bf16_products and training):
            for block in range(self.settings.blocks):
                if self.recompute and training:
                    node, edge, z = checkpoint(self._block, block, node, edge, geometry, use_reentrant=False)
                else:
                    node, edge, z = self._block(block, node, edge, geometry)
                if z is not None:
                    invariants.append(z)
        raw = self.order(self.head(edge))
        traces = None if self.decoder is None else self.decoder(torch.cat(invariants, dim=1))
        if arrangement.place is not None:
            raw = raw.index_select(0, arrangement.place)
            traces = None if traces is None else traces.index_select(0, arrangement.place)
        coefficients = self.hamiltonian(raw, graph, envelope)
        return Prediction(coefficients, traces)

    @property
    def dtype(self) -> torch.dtype:
        """Number type of the weights."""
        return self.species.dtype

    def _block(
        self, block: int, node: Tensor, edge: Tensor, geometry: Geometry
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Features of atoms and edges after one block, and its invariants (R, T) if it has any."""
        node = self.node_updates[block](node, edge, geometry)
        edge = self.edge_updates[block](node, edge, geometry)
        if block >= len(self.trace_modules):
            return node, edge, None
        z, moved = self.trace_modules[block](edge)
        return node, moved if self.settings.tracegrad.gradient else edge, z

    def geometry(
        self, graph: HamiltonianGraph, arrangement: Arrangement, envelope: Tensor | None, total: Total = alone
    ) -> tuple[Geometry, Tensor]:
        """What the updates share, for the edges in the network's order, and the edges' lengths (R,)."""
        vectors, frames, index = graph.edge_vec, graph.edge_frame, graph.edge_index
        if arrangement.order is not None:
            order = arrangement.order
            vectors, frames, index = vectors[order], frames[order], index[:, order]
            envelope = None if envelope is None else envelope[order]
        length = torch.linalg.vector_norm(vectors, dim=1).to(self.dtype)
        # both edges of a bond have the same
        on_site = index.shape[1] - 2 * arrangement.bonds.shape[1]
        distinct = torch.cat([torch.arange(on_site, device=index.device), arrangement.bonds[0]])
        rotations = EdgeRotations(frames, self._irreps, self.dtype)
        atom_graph = graph.batch if graph.get("batch") is not None else torch.zeros_like(graph.species)
        geometry = Geometry(
            atoms=graph.num_nodes,
            on_site=on_site,
            edge_index=index.contiguous(),
            bonds=arrangement.bonds,
            rotations=rotations,
            radial=self.radial(length[distinct]),
            envelope=None if envelope is None else envelope[distinct],
            length_of=arrangement.length_of,
            atom_rows=Rows.of(atom_graph, len(graph.cell)),
            edge_rows=Rows.of(atom_graph[index[0]], len(graph.cell), rotations, total),
            total=total,
            atom_kinds=arrangement.atoms,
            edge_kinds=arrangement.edges,
        )
        return geometry, length
