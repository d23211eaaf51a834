"""The smooth end of bonds.

Shape letters: E edges, S species.
"""

import torch
from torch import Tensor, nn

from deeph_tracegrad.edges import Reach
from deeph_tracegrad.graph import HamiltonianGraph
from deeph_tracegrad.orbitals import Basis

# Part of a bond's largest length over which it is switched off: long enough to be smooth, and H is small there.
_SWITCHED = 0.2


class SmoothCutoff(nn.Module):
    """1 up to a part of the length at which a bond leaves the graph, from there to 0 with two continuous derivatives.

    lengths: (S, S) Å, the sum of the orbitals' radii, or the longest bond of the training data if that is longer;
    `unknown` where a basis does not tell its radii.
    """

    lengths: Tensor

    def __init__(self, basis: Basis, unknown: float) -> None:
        super().__init__()
        radii = [element.cutoff_radius for element in basis.values()]
        lengths = [[one + other if one and other else unknown for other in radii] for one in radii]
        self._elements = list(basis)
        self.register_buffer("lengths", torch.tensor(lengths, dtype=torch.float64))

    def extend(self, reach: Reach) -> None:
        """Take in the longest bonds of the training data."""
        longest = [
            [reach.get("-".join(sorted((one, other))), 0.0) for other in self._elements] for one in self._elements
        ]
        self.lengths.copy_(torch.maximum(self.lengths, self.lengths.new_tensor(longest)))

    def forward(self, graph: HamiltonianGraph) -> Tensor:
        """(E, 1)."""
        source, destination = graph.species[graph.edge_index]
        length = torch.linalg.vector_norm(graph.edge_vec, dim=1)
        rest = ((1 - length / self.lengths[source, destination]) / _SWITCHED).clamp(0.0, 1.0)
        return (rest**3 * (10 - 15 * rest + 6 * rest**2))[:, None]
