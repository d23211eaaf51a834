"""A crystal in parts of its bonds, for prediction in bounded memory and on several ranks.

Between two layers a part keeps the features of its edges; those of all atoms are whole everywhere. Each layer sums
the messages of all parts to the atoms, and a graph-wide norm the means of all edges; that is all that parts exchange.

Shape letters: N atoms of the crystal, n atoms of a part, E edges of the crystal, R edges of a part, B bonds of a part,
F features of a row.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor

from deeph_tracegrad.blocks import find_pairs, reversed_pairs
from deeph_tracegrad.errors import MismatchError
from deeph_tracegrad.frames import edge_frames
from deeph_tracegrad.graph import HamiltonianGraph
from deeph_tracegrad.material import Material, pair_vectors
from deeph_tracegrad.nn.arrangement import Arrangement, members
from deeph_tracegrad.nn.network import HamiltonianNetwork
from deeph_tracegrad.nn.norm import GraphNorm
from deeph_tracegrad.nn.updates import EdgeUpdate, Geometry, NodeUpdate
from deeph_tracegrad.orbitals import Basis

Total = Callable[[Tensor], Tensor]
"""Sums a tensor over the ranks."""


@dataclass(frozen=True, eq=False)
class Part:
    """Some bonds of a crystal, both edges of each, and the on-site edges of some atoms, these first.

    rows: (R,) int64, where the edges stand in the crystal's list. atoms: (n,) int64, the atoms that they join.
    graph: of these edges, with atoms by their place in `atoms`.
    """

    rows: np.ndarray
    atoms: Tensor
    graph: HamiltonianGraph

    def to(self, device: torch.device) -> "Part":
        """The same on a device."""
        return Part(self.rows, self.atoms.to(device), self.graph.to(device))

    def geometry(self, network: HamiltonianNetwork) -> tuple[Geometry, Tensor]:
        """What the network's layers need of the edges, and their lengths (R,)."""
        envelope = network.hamiltonian.envelope(self.graph)
        envelope = None if envelope is None else envelope.to(network.dtype)
        return network.geometry(self.graph, Arrangement.of(self.graph, len(network.species)), envelope)


class Partition:
    """The edges of a crystal cut into parts.

    pairs: (E, 5) int. edges: about how many a part has. basis: the network's, which numbers the species.

    Raises:
        MismatchError: an atom has no on-site edge, or an edge no partner.
    """

    def __init__(self, material: Material, pairs: np.ndarray, basis: Basis, edges: int) -> None:
        self._pairs, self._species = pairs, torch.from_numpy(basis.species(material.elements))
        self._positions = material.structure.cart_coords
        self._cell = material.structure.lattice.matrix
        reverse = find_pairs(pairs, reversed_pairs(pairs))
        on_site = np.flatnonzero(reverse == np.arange(len(pairs)))
        on_site = on_site[np.argsort(pairs[on_site, 3])]
        if (reverse < 0).any() or not np.array_equal(pairs[on_site, 3], np.arange(len(material.structure))):
            raise MismatchError("an atom has no on-site block, or a block (R, i, j) no partner (-R, j, i)")
        first = np.flatnonzero(reverse > np.arange(len(pairs)))
        first = first[np.argsort(pairs[first, 3], kind="stable")]
        self._on_site, self._first, self._second = on_site, first, reverse[first]
        ends = np.searchsorted(pairs[first, 3], np.arange(len(on_site)), side="right")  # bonds up to each atom
        weight = 2 * ends + np.arange(1, len(on_site) + 1)
        count = -(-len(pairs) // edges)
        cuts = np.searchsorted(weight, weight[-1] * np.arange(1, count) / count)
        self._atoms = np.unique(np.concatenate([[0], cuts, [len(on_site)]]))
        self._bonds = np.concatenate([[0], ends])[self._atoms]

    @property
    def species(self) -> Tensor:
        """(N,) int64."""
        return self._species

    def __len__(self) -> int:
        """Number of parts."""
        return len(self._atoms) - 1

    def __getitem__(self, place: int) -> Part:
        """One part; its frames are found anew at each call."""
        if not 0 <= place < len(self):
            raise IndexError(place)
        own = np.arange(self._atoms[place], self._atoms[place + 1])
        bonds = slice(self._bonds[place], self._bonds[place + 1])
        first, second = self._first[bonds], self._second[bonds]
        rows = np.concatenate([self._on_site[own], first, second])
        pairs = self._pairs[rows]
        others = np.setdiff1d(pairs[:, 3:], own)
        atoms = np.concatenate([own, others])
        local = np.empty(len(self._species), dtype=np.int64)
        local[atoms] = np.arange(len(atoms))
        vectors = pair_vectors(self._positions, self._cell, pairs)
        bond = np.arange(len(first)) + len(own)
        return Part(
            rows,
            torch.from_numpy(atoms),
            HamiltonianGraph(
                species=self._species[atoms],
                positions=torch.from_numpy(self._positions[atoms]),
                cell=torch.from_numpy(self._cell.copy())[None],
                edge_index=torch.from_numpy(local[pairs[:, 3:].T]),
                edge_shift=torch.from_numpy(pairs[:, :3].astype(np.int64)),
                edge_vec=torch.from_numpy(vectors),
                edge_frame=torch.from_numpy(edge_frames(vectors)),
                reverse_edge=torch.from_numpy(np.concatenate([np.arange(len(own)), bond + len(bond), bond])),
                num_nodes=len(atoms),
            ),
        )


def coefficients_of_parts(
    network: HamiltonianNetwork, species: Tensor, parts: Sequence[Part], edges: int, total: Total
) -> Iterator[tuple[Part, Tensor]]:
    """This rank's parts, each with the irrep coefficients of H on its edges, (R, D) eV.

    species: (N,), of the whole crystal. edges: E. total: what sums over the ranks, which all call this together; it is
    done with before the first part is asked for.
    """
    everyone = torch.zeros_like(species)
    node = network.species.index_select(0, species)
    kinds = members(species, len(network.species))
    features = [network.edge_embedding(_lengths(part, network.dtype)) for part in parts]
    for block in range(network.settings.blocks):
        node_update = cast("NodeUpdate", network.node_updates[block])
        edge_update = cast("EdgeUpdate", network.edge_updates[block])
        before = node_update.before(node)
        messages = before.new_zeros(len(node), node_update.layout.dim)
        for part, edge in zip(parts, features, strict=True):
            geometry, _ = part.geometry(network)
            of_part = node_update.convolution(before[part.atoms], edge, geometry, summed=True)
            messages.index_add_(0, part.atoms, of_part)
        updated = node_update.updated(node, total(messages), kinds)
        node = node_update.norm(updated, node_update.skip(node), everyone, 1)
        features = _edges_updated(network, edge_update, node, features, parts, edges, total)
        if network.settings.tracegrad.gradient and block < len(network.trace_modules):
            features = [network.trace_modules[block](edge)[1] for edge in features]
    return ((part, _coefficients(network, part, edge)) for part, edge in zip(parts, features, strict=True))


def _coefficients(network: HamiltonianNetwork, part: Part, edge: Tensor) -> Tensor:
    """From the features of a part's edges after the last layer to H, (R, D) eV."""
    raw = network.order(network.head(edge))
    envelope = network.hamiltonian.envelope(part.graph)
    return network.hamiltonian(raw, part.graph, None if envelope is None else envelope.to(raw))


def _edges_updated(
    network: HamiltonianNetwork,
    update: EdgeUpdate,
    node: Tensor,
    features: list[Tensor],
    parts: Sequence[Part],
    edges: int,
    total: Total,
) -> list[Tensor]:
    """The features of each part's edges after an update; a graph-wide norm goes over all parts three times."""
    norm = update.norm
    if not isinstance(norm, GraphNorm):
        return [
            norm(update.updated(node[part.atoms], edge, part.geometry(network)[0]), update.skip(edge))
            for part, edge in zip(parts, features, strict=True)
        ]
    updates = []
    sums = node.new_zeros(norm.averages.shape[1], dtype=torch.float64)
    for part, edge in zip(parts, features, strict=True):
        geometry, _ = part.geometry(network)
        updates.append(update.updated(node[part.atoms], edge, geometry))
        sums += norm.means(updates[-1], geometry.rotations).sum(dim=0, dtype=torch.float64)
    means = (total(sums) / edges).to(node)
    squares = node.new_zeros(norm.num_scalars, dtype=torch.float64)
    for place, part in enumerate(parts):
        rows = means.expand(len(updates[place]), -1)
        updates[place] = norm.centred(updates[place], rows, part.geometry(network)[0].rotations)
        squares += norm.squares(updates[place]).sum(dim=0, dtype=torch.float64)
    square = (total(squares) / edges).to(node)
    for place, edge in enumerate(features):
        scaled = norm.scaled(updates[place], square.expand(len(edge), -1))
        updates[place] = norm.finished(scaled, update.skip(edge))
        features[place] = edge[:0]  # no longer needed: gives the memory back part by part
    return updates


def _lengths(part: Part, dtype: torch.dtype) -> Tensor:
    return torch.linalg.vector_norm(part.graph.edge_vec, dim=1).to(dtype)
