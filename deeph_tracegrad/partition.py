"""A crystal's edges cut into parts: for prediction in bounded memory, and for ranks that share a crystal.

A part has both edges of each of its bonds. Bonds stand with the first of their atoms, and the atoms in their order, so
that a part joins few others to its own.

Shape letters: N atoms of the crystal, n atoms of a part, E edges of the crystal, R edges of a part.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from deeph_tracegrad.blocks import find_pairs, reversed_pairs
from deeph_tracegrad.errors import MismatchError
from deeph_tracegrad.frames import edge_frames
from deeph_tracegrad.graph import HamiltonianGraph
from deeph_tracegrad.material import Material, pair_vectors
from deeph_tracegrad.orbitals import Basis


def divided(first: np.ndarray, reverse: np.ndarray, parts: int) -> list[np.ndarray]:
    """Where the edges of each part stand, each (R,) int64; the on-site ones first, then each bond's one and other edge.

    The parts have equally many edges, as far as whole bonds allow. The first one always has some, others may have none.

    first: (E,) int, the atom where an edge begins. reverse: (E,) int, the partner of each; on-site edges are their own.
    """
    kept = np.flatnonzero(reverse >= np.arange(len(reverse)))  # one edge of each bond
    bond = reverse[kept] > kept
    order = np.lexsort((bond, first[kept]))
    kept, bond = kept[order], bond[order]
    before = np.cumsum(1 + bond) - (1 + bond)
    cuts = np.searchsorted(before, len(reverse) * np.arange(1, parts) / parts)
    return [
        np.concatenate([rows[~both], rows[both], reverse[rows[both]]])
        for rows, both in zip(np.split(kept, cuts), np.split(bond, cuts), strict=True)
    ]


@dataclass(frozen=True, eq=False)
class Part:
    """Some edges of a crystal and the atoms that they join.

    rows: (R,) int64, where the edges stand in the crystal's list. atoms: (n,) int64, ascending.
    graph: of these edges, with atoms by their place in `atoms`.
    """

    rows: np.ndarray
    atoms: Tensor
    graph: HamiltonianGraph

    def to(self, device: torch.device) -> "Part":
        """The same on a device."""
        return Part(self.rows, self.atoms.to(device), self.graph.to(device))


class Partition:
    """The edges of a crystal to predict, cut into parts.

    pairs: (E, 5) int. edges: about how many a part has. basis: the network's, which numbers the species.

    Raises:
        MismatchError: an atom has no on-site edge, or an edge no partner.
    """

    def __init__(self, material: Material, pairs: np.ndarray, basis: Basis, edges: int) -> None:
        self._pairs, self._species = pairs, torch.from_numpy(basis.species(material.elements))
        self._positions = material.structure.cart_coords
        self._cell = material.structure.lattice.matrix
        reverse = find_pairs(pairs, reversed_pairs(pairs))
        on_site = np.sort(pairs[reverse == np.arange(len(pairs)), 3])
        if (reverse < 0).any() or not np.array_equal(on_site, np.arange(len(material.structure))):
            raise MismatchError("an atom has no on-site block, or a block (R, i, j) no partner (-R, j, i)")
        parts = divided(pairs[:, 3], reverse, -(-len(pairs) // edges))
        self._rows = [rows for rows in parts if len(rows)]

    @property
    def species(self) -> Tensor:
        """(N,) int64."""
        return self._species

    def __len__(self) -> int:
        """Number of parts."""
        return len(self._rows)

    def __getitem__(self, place: int) -> Part:
        """One part; its frames are found anew at each call."""
        rows = self._rows[place]
        pairs = self._pairs[rows]
        atoms, ends = np.unique(pairs[:, 3:], return_inverse=True)
        vectors = pair_vectors(self._positions, self._cell, pairs)
        return Part(
            rows,
            torch.from_numpy(atoms),
            HamiltonianGraph(
                species=self._species[atoms],
                positions=torch.from_numpy(self._positions[atoms]),
                cell=torch.from_numpy(self._cell.copy())[None],
                edge_index=torch.from_numpy(ends.reshape(-1, 2).T.copy()),
                edge_shift=torch.from_numpy(pairs[:, :3].astype(np.int64)),
                edge_vec=torch.from_numpy(vectors),
                edge_frame=torch.from_numpy(edge_frames(vectors)),
                reverse_edge=torch.from_numpy(find_pairs(pairs, reversed_pairs(pairs))),
                num_nodes=len(atoms),
            ),
        )
