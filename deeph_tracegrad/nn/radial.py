"""Functions of the bond length.

Shape letters: R edges, C channels.
"""

import torch
from torch import Tensor, nn

from deeph_tracegrad.nn.kernels.geometry import gaussians
from deeph_tracegrad.nn.kernels.library import compiled


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
