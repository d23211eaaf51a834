"""How the rows of a graph are sorted for the network: found once a batch, where it is read, not in the step.

Shape letters: N atoms, E edges, B bonds (edges off site, in pairs), R rows (atoms or edges), Q kinds of rows.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from deeph_tracegrad.graph import HamiltonianGraph


class Members(NamedTuple):
    """Rows sorted by kind. order: (R,) row numbers. bounds: (Q + 1,), where each kind begins among them."""

    order: Tensor
    bounds: np.ndarray


class Arrangement(NamedTuple):
    """The network's order of the edges, on-site ones first in the order of the atoms, and the kinds of rows.

    order: (E,) the edges in that order, place: (E,) its inverse; None where the graph has that order already.
    bonds: (2, B) in that order the edges of each bond, one in each direction.
    length_of: (E,) where each edge's function of the length is among those of the N on-site edges and the B bonds.
    atoms, edges: the rows of each species, and of each ordered species pair; None with one species.
    """

    order: Tensor | None
    place: Tensor | None
    bonds: Tensor
    length_of: Tensor
    atoms: Members | None
    edges: Members | None

    @classmethod
    def of(cls, graph: HamiltonianGraph, species: int) -> "Arrangement":
        """Of a graph or batch for a network that knows so many species."""
        numbers = torch.where(graph.on_site, graph.edge_index[0], graph.num_nodes)
        order = place = None
        index, reverse = graph.edge_index, graph.reverse_edge
        if (numbers.diff() < 0).any():
            order = torch.argsort(numbers, stable=True)
            place = torch.argsort(order)
            index, reverse = index[:, order], place[reverse[order]]
        edges = torch.arange(len(reverse), device=reverse.device)
        first = torch.nonzero(edges < reverse).squeeze(1)
        bonds = torch.stack([first, reverse[first]])
        length_of = edges.clone()
        length_of[bonds] = graph.num_nodes + edges[: len(first)]
        pairs = graph.species[index[0]] * species + graph.species[index[1]]
        return cls(order, place, bonds, length_of, _members(graph.species, species), _members(pairs, species**2))


def _members(kinds: Tensor, count: int) -> Members | None:
    """The rows of each kind; None where there is only one."""
    if count == 1:
        return None
    ends = torch.bincount(kinds, minlength=count).cumsum(0).numpy(force=True)
    return Members(torch.argsort(kinds, stable=True), np.concatenate([[0], ends]))
