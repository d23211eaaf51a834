"""The two updates of a DeepH-E3 block, with edge features in the edges' frames.

Shape letters: N atoms, R edges, B bonds (edges off site, in pairs), F features of a row, K radial functions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from deeph_tracegrad.errors import ConfigError
from deeph_tracegrad.nn.arrangement import Members
from deeph_tracegrad.nn.gate import Gate
from deeph_tracegrad.nn.kernels.convolution import ConvolutionKernel
from deeph_tracegrad.nn.kernels.library import compiled
from deeph_tracegrad.nn.layout import Irrep, Layout
from deeph_tracegrad.nn.linear import SCALAR, IrrepLinear
from deeph_tracegrad.nn.norm import GraphNorm, LocalNorm, Rows, Total
from deeph_tracegrad.nn.radial import RadialWeights
from deeph_tracegrad.nn.rotations import EdgeRotations
from deeph_tracegrad.nn.tensor_product import EdgeFrameProduct, reachable


@dataclass(frozen=True)
class Geometry:
    """What all updates of one forward pass share. The edges are on-site first, in the order of the atoms.

    atoms: N, on_site: how many edges are; fewer than the atoms in a part of a crystal.
    edge_index: (2, R). bonds: (2, B), the edges of each, one in each direction.
    radial: (on_site + B, K), of the on-site edges and the bonds. envelope: (on_site + B, 1), what messages are
        multiplied by; None for 1. length_of: (R,) where each edge's functions of the length are among these.
    atom_rows, edge_rows: the graphs that these are of. total: of the ranks that share the edges; each has all atoms.
    atom_kinds, edge_kinds: rows of each species, and of each ordered species pair; None with one species.
    """

    atoms: int
    on_site: int
    edge_index: Tensor
    bonds: Tensor
    rotations: EdgeRotations
    radial: Tensor
    envelope: Tensor | None
    length_of: Tensor
    atom_rows: Rows
    edge_rows: Rows
    total: Total
    atom_kinds: Members | None
    edge_kinds: Members | None


@dataclass(frozen=True)
class Sizes:
    """What all updates of a network share: degree of Y, radial functions, species, kind of norm."""

    degree: int
    radial: int
    species: int
    norm: Literal["graph", "local"]


class EdgeConvolution(nn.Module):
    """Features of both atoms and of the edge times Y(bond), gated, scaled by functions of the length.

    after: its output, the wanted irreps less those that no path reaches.

    Raises:
        ConfigError: no path reaches any.
    """

    def __init__(self, node: Layout, edge: Layout, wanted: Layout, sizes: Sizes) -> None:
        super().__init__()
        degree = sizes.degree
        irreps = [(irrep, count) for irrep, count in wanted.groups.items() if reachable([node, edge], irrep, degree)]
        if not irreps:
            raise ConfigError(
                f"no irrep of {wanted} can be made of {node} and {edge} with harmonics up to l = {degree}; "
                "change [model] trunk or harmonics_degree"
            )
        self.gate = Gate(Layout(irreps))
        self.after = self.gate.after
        self.product = EdgeFrameProduct([node.doubled, edge], [2, 1], self.gate.before, degree)
        self.weights = RadialWeights(sizes.radial, self.after.channels)
        self._node = node
        self._kernel = ConvolutionKernel(node, edge, self.gate, self.product)

    def forward(self, node: Tensor, edge: Tensor, geometry: Geometry, *, summed: bool) -> Tensor:
        """(N, F), (R, F) -> (R, F after), in the edges' frames; or (N, F after), summed over the edges of each atom."""
        weights = self.weights(geometry.radial)
        if geometry.envelope is not None:
            weights = weights * geometry.envelope
        if compiled(node):
            return self._kernel(node, edge, weights, geometry, summed=summed)
        ends = geometry.rotations.gather_ends(node, self._node, geometry.edge_index)
        messages = self.gate(self.product([ends, edge], geometry.on_site), weights.index_select(0, geometry.length_of))
        if not summed:
            return messages
        return geometry.rotations.scatter(messages, self.after, geometry.edge_index[0], geometry.atoms)


class Update(nn.Module):
    """What the updates of atoms and of edges have in common: a convolution, a self-connection, a norm, a skip.

    own: the layout of what is updated; kinds: how many kinds of it there are. layout: that of the result.
    """

    def __init__(self, own: Layout, node: Layout, edge: Layout, wanted: Layout, sizes: Sizes, kinds: int) -> None:
        super().__init__()
        self.before = IrrepLinear(own, own, bias=True)
        self.convolution = EdgeConvolution(node, edge, wanted, sizes)
        self.layout = self.convolution.after
        self.after = IrrepLinear(self.layout, self.layout, bias=True)
        self.self_connection = IrrepLinear(own, self.layout, bias=False, kinds=kinds)
        self.norm = (GraphNorm if sizes.norm == "graph" else LocalNorm)(self.layout)
        self.skip = nn.Identity() if own == self.layout else IrrepLinear(own, self.layout, bias=False)
        self.layouts = [node, edge, self.layout]


class NodeUpdate(Update):
    """Atoms take up the sum of their edges' messages."""

    def __init__(self, node: Layout, edge: Layout, wanted: Layout, sizes: Sizes) -> None:
        super().__init__(node, node, edge, wanted, sizes, sizes.species)

    def forward(self, node: Tensor, edge: Tensor, geometry: Geometry) -> Tensor:
        """(N, F), (R, F) -> (N, F)."""
        messages = self.convolution(self.before(node), edge, geometry, summed=True)
        update = self.updated(node, geometry.total(messages), geometry.atom_kinds)
        return self.norm(update, self.skip(node), geometry.atom_rows)

    def updated(self, node: Tensor, total: Tensor, kinds: Members | None) -> Tensor:
        """The new features before norm and skip, (N, F). total: (N, F), the sum of each atom's messages."""
        return self.self_connection(node, kinds, onto=self.after(total))


class EdgeUpdate(Update):
    """Edges take up what their atoms have become."""

    def __init__(self, node: Layout, edge: Layout, wanted: Layout, sizes: Sizes) -> None:
        super().__init__(edge, node, edge, wanted, sizes, sizes.species**2)

    def forward(self, node: Tensor, edge: Tensor, geometry: Geometry) -> Tensor:
        """(N, F), (R, F) -> (R, F)."""
        update = self.updated(node, edge, geometry)
        return self.norm(update, self.skip(edge), geometry.edge_rows)

    def updated(self, node: Tensor, edge: Tensor, geometry: Geometry) -> Tensor:
        """The new features before norm and skip, (R, F)."""
        update = self.after(self.convolution(node, self.before(edge), geometry, summed=False))
        return self.self_connection(edge, geometry.edge_kinds, onto=update)


def post_node_layout(node: Layout, edge: Layout, out: Layout, previous: Sequence[Layout], degree: int) -> Layout:
    """The last node features: the trunk's, and what the outputs need that one product with Y cannot make of the trunk.

    For an output without a path from `node` and `edge`, the smallest irrep is added that leads to it and that the
    layer before (from `previous`) can make; with as many channels as the trunk's irrep of that degree, or its last.
    """
    channels = dict(node.groups)
    for irrep in out.groups:
        if reachable([Layout(channels.items()), edge], irrep, degree):
            continue
        every = (Irrep(low, natural) for low in range(irrep.degree + degree + 1) for natural in (True, False))
        candidates = [
            candidate
            for candidate in every
            if reachable([Layout([(candidate, 1)])], irrep, degree) and reachable(previous, candidate, degree)
        ]
        if candidates:
            same = [count for group, count in node.groups.items() if group.degree == candidates[0].degree]
            channels[candidates[0]] = same[0] if same else list(node.groups.values())[-1]
    return Layout(channels.items())


def scalars(count: int) -> Layout:
    """Invariant channels only."""
    return Layout([(SCALAR, count)])
