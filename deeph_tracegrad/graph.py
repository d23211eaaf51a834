"""Crystals as graphs for the network, and how they are batched.

Shape letters: N atoms, E edges, R some of them, G graphs, T targets, D target coefficients.
"""

from copy import copy
from typing import Any

import numpy as np
import torch
from torch_geometric.data import Data

from deeph_tracegrad.blocks import BlockMatrix
from deeph_tracegrad.material import Material
from deeph_tracegrad.orbitals import Basis
from deeph_tracegrad.samples import Sample, build_sample
from deeph_tracegrad.targets import TargetLayout

# torch_geometric shifts attributes by their names; this table says what each attribute really counts.
_COUNTS = {"edge_index": "atoms", "reverse_edge": "edges"}
_OF_EDGES = {"edge_index", "edge_shift", "edge_vec", "edge_frame", "reverse_edge", "target"}


class HamiltonianGraph(Data):
    """One crystal, or several after `Batch.from_data_list`.

    species: (N,) int64, places in the basis. positions: (N, 3) Å. cell: (G, 3, 3) Å, rows.
    edge_index: (2, E) int64, atoms i and j. Each atom has exactly one on-site edge, i = j with a zero vector.
    edge_shift: (E, 3) int64, the cell R of j. edge_vec: (E, 3) Å. edge_frame: (E, 3, 3), rows are the local axes.
    reverse_edge: (E,) int64, the edge (-R, j, i).
    target: (E, D) eV, H as irrep coefficients in the edges' frames; only if labelled.
    trace_labels: (E, T), what TraceGrad's decoder is to say of the targets; only where a training wants it.
    Numbers are float64; the network casts them.
    """

    @classmethod
    def from_sample(cls, sample: Sample, basis: Basis, layout: TargetLayout | None = None) -> "HamiltonianGraph":
        """A sample as a graph; with targets if it is labelled and a layout is given."""
        species = basis.species(sample.elements)
        graph = cls(
            species=torch.from_numpy(species),
            positions=torch.from_numpy(sample.positions),
            cell=torch.from_numpy(sample.cell)[None],
            edge_index=torch.from_numpy(sample.pairs[:, 3:].T.astype(np.int64)),
            edge_shift=torch.from_numpy(sample.pairs[:, :3].astype(np.int64)),
            edge_vec=torch.from_numpy(sample.vectors),
            edge_frame=torch.from_numpy(sample.frames),
            reverse_edge=torch.from_numpy(sample.reverse),
            num_nodes=len(species),
        )
        if layout is not None and sample.blocks is not None:
            sizes = np.array([element.num_orbitals for element in basis.bases])[species] * layout.spin.components
            matrices = [BlockMatrix.of(sample.pairs, entries, sizes) for entries in sample.blocks]
            graph.target = layout.coefficients(torch.from_numpy(layout.pack(matrices, species)))
        return graph

    @property
    def on_site(self) -> torch.Tensor:
        """(E,) bool, the edges from an atom to itself."""
        return (self.edge_index[0] == self.edge_index[1]) & (self.edge_shift == 0).all(dim=1)

    @property
    def pairs(self) -> np.ndarray:
        """(E, 5) int32, `[R1, R2, R3, i, j]` of each edge."""
        return torch.cat([self.edge_shift, self.edge_index.T], dim=1).cpu().numpy().astype(np.int32)

    def on_edges(self, rows: torch.Tensor) -> "HamiltonianGraph":
        """All atoms with some of the edges; rows: (R,) int64, of both edges of a bond or of none."""
        part = copy(self)
        for name in _OF_EDGES & set(self.keys()):
            part[name] = self[name].index_select(self.__cat_dim__(name, None), rows)
        number = torch.empty_like(self.reverse_edge)
        number[rows] = torch.arange(len(rows))
        part.reverse_edge = number[part.reverse_edge]
        return part

    def __inc__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> int:
        """What is added to an attribute of the following graphs in a batch."""
        counted = _COUNTS.get(key)
        return self.num_nodes if counted == "atoms" else self.num_edges if counted == "edges" else 0

    def __cat_dim__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> int:
        """The dimension along which graphs are joined in a batch."""
        return 1 if key == "edge_index" else 0


def build_graph(material: Material, pairs: np.ndarray, basis: Basis) -> HamiltonianGraph:
    """An unlabelled graph for prediction.

    pairs: (E, 5) int, the edges, such as those of the overlap. basis: the network's, which numbers the species.
    """
    return HamiltonianGraph.from_sample(build_sample(material, "structure", pairs), basis)
