"""Functions of the bond length.

Shape letters: R edges, C channels, S species.
"""

import torch
from torch import Tensor, nn

from deeph_tracegrad.edges import Reach
from deeph_tracegrad.nn.kernels.geometry import gaussians
from deeph_tracegrad.nn.kernels.library import compiled
from deeph_tracegrad.orbitals import Basis

# Part of a bond's largest length over which it is switched off: long enough to be smooth, and H is small there.
_SWITCHED = 0.2


class GaussianBasis(nn.Module):
    """Gaussians on an even grid from 0 to `end` (Å), as wide as their spacing."""

    centres: Tensor

    def __init__(self, count: int, end: float) -> None:
        super().__init__()
        self.register_buffer("centres", torch.linspace(0.0, end, count, dtype=torch.float64), persistent=False)
        self._width = end / (count - 1)

    def forward(self, length: Tensor) -> Tensor:
        """(R,) Å -> (R, count)."""
        if compiled(length):
            return gaussians(length.contiguous(), self.centres.to(length), self._width)
        return torch.exp(-0.5 * ((length[:, None] - self.centres.to(length)) / self._width) ** 2)


class RadialWeights(nn.Module):
    """A perceptron from the radial basis to one weight a channel: two hidden layers of 64, SiLU."""

    def __init__(self, inputs: int, outputs: int, hidden: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, outputs)
        )

    def forward(self, code: Tensor) -> Tensor:
        """(R, inputs) -> (R, C)."""
        return self.layers(code)


class SmoothCutoff(nn.Module):
    """1 up to a part of the length at which a bond leaves the graph, from there to 0 with two continuous derivatives.

    lengths: (S, S) Å, the sum of the orbitals' radii, or the longest bond of the
    training data if it is longer; `unknown` where a basis does not tell its radii.
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

    def forward(self, length: Tensor, species: Tensor) -> Tensor:
        """(R,) Å, species of both atoms (2, R) -> (R, 1)."""
        end = self.lengths[species[0], species[1]].to(length)
        rest = ((1 - length / end) / _SWITCHED).clamp(0.0, 1.0)
        return (rest**3 * (10 - 15 * rest + 6 * rest**2))[:, None]
