"""The two updates of a DeepH-E3 block, with edge features in the edges' frames.

Shape letters: N atoms, R edges, G graphs, F features of a row, K radial functions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from deeph_tracegrad.nn.gate import Gate
from deeph_tracegrad.nn.layout import Layout
from deeph_tracegrad.nn.linear import SCALAR, IrrepLinear
from deeph_tracegrad.nn.norm import GraphNorm
from deeph_tracegrad.nn.radial import RadialWeights
from deeph_tracegrad.nn.rotations import EdgeRotations
from deeph_tracegrad.nn.tensor_product import EdgeFrameProduct, reachable


@dataclass(frozen=True)
class Geometry:
    """What all updates of one forward pass share. The edges are on-site first, in the order of the atoms.

    edge_index: (2, R). radial: (R, K). atom_graph: (N,), edge_graph: (R,), the graph of each row; graphs: G.
    atom_kinds, edge_kinds: rows of each species, and of each ordered species pair; None with one species.
    """

    atoms: int
    graphs: int
    edge_index: Tensor
    rotations: EdgeRotations
    radial: Tensor
    atom_graph: Tensor
    edge_graph: Tensor
    atom_kinds: Sequence[Tensor] | None
    edge_kinds: Sequence[Tensor] | None


class EdgeConvolution(nn.Module):
    """Features of both atoms and of the edge times Y(bond), gated, scaled by functions of the length.

    after: its output, the wanted irreps less those that no path reaches.
    """

    def __init__(self, node: Layout, edge: Layout, wanted: Layout, degree: int, radial: int) -> None:
        super().__init__()
        irreps = [(irrep, count) for irrep, count in wanted.groups.items() if reachable([node, edge], irrep, degree)]
        self.gate = Gate(Layout(irreps))
        self.after = self.gate.after
        self.product = EdgeFrameProduct([node.doubled, edge], [2, 1], self.gate.before, degree)
        self.weights = RadialWeights(radial, self.after.channels)
        self._node = node

    def forward(self, node: Tensor, edge: Tensor, geometry: Geometry) -> Tensor:
        """(N, F), (R, F) -> (R, F after), in the edges' frames."""
        ends = geometry.rotations.gather_ends(node, self._node, geometry.edge_index)
        return self.gate(self.product([ends, edge], geometry.atoms), self.weights(geometry.radial))


class NodeUpdate(nn.Module):
    """Atoms take up the sum of their edges' messages."""

    def __init__(self, node: Layout, edge: Layout, wanted: Layout, degree: int, radial: int, species: int) -> None:
        super().__init__()
        self.before = IrrepLinear(node, node, bias=True)
        self.convolution = EdgeConvolution(node, edge, wanted, degree, radial)
        self.layout = self.convolution.after
        self.after = IrrepLinear(self.layout, self.layout, bias=True)
        self.self_connection = IrrepLinear(node, self.layout, bias=False, kinds=species)
        self.norm = GraphNorm(self.layout)
        self.skip = _skip(node, self.layout)
        self.layouts = [node, edge, self.layout]

    def forward(self, node: Tensor, edge: Tensor, geometry: Geometry) -> Tensor:
        """(N, F), (R, F) -> (N, F)."""
        messages = self.convolution(self.before(node), edge, geometry)
        total = geometry.rotations.scatter(messages, self.layout, geometry.edge_index[0], geometry.atoms)
        update = self.after(total) + self.self_connection(node, geometry.atom_kinds)
        return self.norm(update, geometry.atom_graph, geometry.graphs) + self.skip(node)


class EdgeUpdate(nn.Module):
    """Edges take up what their atoms have become."""

    def __init__(self, node: Layout, edge: Layout, wanted: Layout, degree: int, radial: int, species: int) -> None:
        super().__init__()
        self.before = IrrepLinear(edge, edge, bias=True)
        self.convolution = EdgeConvolution(node, edge, wanted, degree, radial)
        self.layout = self.convolution.after
        self.after = IrrepLinear(self.layout, self.layout, bias=True)
        self.self_connection = IrrepLinear(edge, self.layout, bias=False, kinds=species**2)
        self.norm = GraphNorm(self.layout)
        self.skip = _skip(edge, self.layout)
        self.layouts = [node, edge, self.layout]

    def forward(self, node: Tensor, edge: Tensor, geometry: Geometry) -> Tensor:
        """(N, F), (R, F) -> (R, F)."""
        update = self.after(self.convolution(node, self.before(edge), geometry))
        update = update + self.self_connection(edge, geometry.edge_kinds)
        return self.norm(update, geometry.edge_graph, geometry.graphs, geometry.rotations) + self.skip(edge)


def post_node_layout(node: Layout, edge: Layout, out: Layout, previous: Sequence[Layout], degree: int) -> Layout:
    """The last node features: the trunk's, and what the outputs need that one product with Y cannot make of the trunk.

    For an output without a path from `node` and `edge`, the smallest irrep is added that leads to it and that the
    layer before (from `previous`) can make; with as many channels as the trunk's irrep of that degree, or its last.
    """
    channels = dict(node.groups)
    for irrep in out.groups:
        if reachable([Layout(channels.items()), edge], irrep, degree):
            continue
        candidates = sorted(
            candidate
            for candidate in {type(irrep)(l1, natural) for l1 in range(irrep.degree + degree + 1) for natural in (0, 1)}
            if reachable([Layout([(candidate, 1)])], irrep, degree) and reachable(previous, candidate, degree)
        )
        if candidates:
            same = [count for group, count in node.groups.items() if group.degree == candidates[0].degree]
            channels[candidates[0]] = same[0] if same else list(node.groups.values())[-1]
    return Layout(channels.items())


def scalars(count: int) -> Layout:
    """Invariant channels only."""
    return Layout([(SCALAR, count)])


def _skip(source: Layout, target: Layout) -> nn.Module:
    return nn.Identity() if source == target else IrrepLinear(source, target, bias=False)
