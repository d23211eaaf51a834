"""DeepH-E3's network (Nat. Commun. 14, 2848 (2023)) on e3nn's modules, as the official program builds it.

It is what `train_step.py` measures against. Parameters and buffers have the official names, and the arguments are those
of the program's generated build_model.py, so that its checkpoints load.

Shape letters: N atoms, E edges, F features of a row, S species, K radial functions, D output coefficients.
"""

from dataclasses import dataclass

import torch
from _e3nn_layers import RADIAL_FUNCTIONS, Convolution, GaussianBasis, LayerNorm, SkipConnection
from e3nn import o3
from torch import Tensor, nn
from torch.nn.functional import one_hot

from deeph_tracegrad.graph import HamiltonianGraph

# Å; the official program ends the grid of the edge embedding here whatever r_max is
EDGE_EMBEDDING_END = 6.0


@dataclass(frozen=True)
class Geometry:
    """What all updates of one forward pass share.

    edge_index: (2, E). harmonics: (E, F) of Y. radial: (E, K). atom_kinds: (N, S) and edge_kinds: (E, S²), one-hot.
    atom_graph: (N,) and edge_graph: (E,), the graph of each row.
    """

    edge_index: Tensor
    harmonics: Tensor
    radial: Tensor
    atom_kinds: Tensor
    edge_kinds: Tensor
    atom_graph: Tensor
    edge_graph: Tensor


class E3nnNetwork(nn.Module):
    """From a graph to the coefficients of H in global coordinates.

    Signs and normalisation are those of the installed e3nn, 0.5 or newer.
    """

    def __init__(
        self,
        *,
        num_species: int,
        irreps_embed_node: str,
        irreps_edge_init: str,
        irreps_sh: str,
        irreps_mid_node: str,
        irreps_post_node: str,
        irreps_mid_edge: str,
        irreps_post_edge: str,
        irreps_out_edge: str,
        num_block: int,
        r_max: float,
    ) -> None:
        super().__init__()
        self.species, self.harmonics = num_species, o3.Irreps(irreps_sh)
        node, edge = o3.Irreps(irreps_embed_node), o3.Irreps(irreps_edge_init)
        self.embedding = o3.Linear(f"{num_species}x0e", node)
        self.basis = GaussianBasis(RADIAL_FUNCTIONS, r_max)
        self.distance_expansion = GaussianBasis(edge.dim, EDGE_EMBEDDING_END)
        self.node_update_blocks, self.edge_update_blocks = nn.ModuleList(), nn.ModuleList()
        for block in range(num_block):
            last = block == num_block - 1
            wanted = o3.Irreps(irreps_post_node if last else irreps_mid_node)
            self.node_update_blocks.append(NodeUpdate(node, node + node + edge, self.harmonics, wanted, num_species))
            node = self.node_update_blocks[-1].irreps_out
            wanted = o3.Irreps(irreps_post_edge if last else irreps_mid_edge)
            self.edge_update_blocks.append(EdgeUpdate(edge, node + node + edge, self.harmonics, wanted, num_species**2))
            edge = self.edge_update_blocks[-1].irreps_out
        # the program has this head, and never uses it
        self.lin_node = o3.Linear(node, "1x0e", biases=True)
        self.lin_edge = o3.Linear(edge, irreps_out_edge, biases=True)

    def forward(self, graph: HamiltonianGraph) -> Tensor:
        """(E, D) eV."""
        dtype = self.embedding.weight.dtype
        vectors, (i, j) = graph.edge_vec.to(dtype), graph.edge_index
        length = vectors.norm(dim=1)
        atom_graph = torch.zeros_like(graph.species) if graph.get("batch") is None else graph.batch
        geometry = Geometry(
            edge_index=graph.edge_index,
            # e3nn's axes are ours in the order y, z, x
            harmonics=o3.spherical_harmonics(self.harmonics, vectors[:, [1, 2, 0]], True, "component"),
            radial=self.basis(length),
            atom_kinds=one_hot(graph.species, self.species).to(dtype),
            edge_kinds=one_hot(graph.species[i] * self.species + graph.species[j], self.species**2).to(dtype),
            atom_graph=atom_graph,
            edge_graph=atom_graph[i],
        )
        node, edge = self.embedding(geometry.atom_kinds), self.distance_expansion(length)
        for node_update, edge_update in zip(self.node_update_blocks, self.edge_update_blocks, strict=True):
            node = node_update(node, edge, geometry)
            edge = edge_update(node, edge, geometry)
        return self.lin_edge(edge)


class Update(nn.Module):
    """What the updates of atoms and of edges have in common.

    own: the irreps of what is updated; kinds: how many kinds of it there are. source: of what the convolution takes.
    """

    def __init__(self, own: o3.Irreps, source: o3.Irreps, harmonics: o3.Irreps, wanted: o3.Irreps, kinds: int) -> None:
        super().__init__()
        self.lin_pre = o3.Linear(own, own, biases=True)
        self.conv = Convolution(source, harmonics, wanted)
        self.irreps_out = out = self.conv.irreps_out
        self.lin_post = o3.Linear(out, out, biases=True)
        self.sc = o3.FullyConnectedTensorProduct(own, f"{kinds}x0e", out)
        self.norm = LayerNorm(out)
        self.skip_connect = SkipConnection(own, out)


class NodeUpdate(Update):
    """Atoms take up the sum of their edges' messages."""

    def forward(self, node: Tensor, edge: Tensor, geometry: Geometry) -> Tensor:
        """(N, F), (E, F) -> (N, F)."""
        i, j = geometry.edge_index
        before = self.lin_pre(node)
        messages = self.conv(torch.cat([before[i], before[j], edge], dim=1), geometry.harmonics, geometry.radial)
        total = messages.new_zeros(len(node), messages.shape[1]).index_add(0, i, messages)
        update = self.lin_post(total) + self.sc(node, geometry.atom_kinds)
        return self.norm(update, geometry.atom_graph) + self.skip_connect(node)


class EdgeUpdate(Update):
    """Edges take up what their atoms have become."""

    def forward(self, node: Tensor, edge: Tensor, geometry: Geometry) -> Tensor:
        """(N, F), (E, F) -> (E, F)."""
        i, j = geometry.edge_index
        features = torch.cat([node[i], node[j], self.lin_pre(edge)], dim=1)
        update = self.lin_post(self.conv(features, geometry.harmonics, geometry.radial))
        update = update + self.sc(edge, geometry.edge_kinds)
        return self.norm(update, geometry.edge_graph) + self.skip_connect(edge)
