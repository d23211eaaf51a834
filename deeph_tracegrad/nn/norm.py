"""Layer norms: DeepH-E3's, which averages over a whole graph, and one that looks at each atom or edge alone.

Shape letters: R rows (atoms or edges), G graphs, F features of a row, C channels, M components (2l+1 of each irrep).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from deeph_tracegrad.nn.kernels.library import compiled
from deeph_tracegrad.nn.kernels.norm import NormKernel
from deeph_tracegrad.nn.layout import Layout
from deeph_tracegrad.nn.linear import SCALAR
from deeph_tracegrad.nn.precision import full_precision
from deeph_tracegrad.nn.rotations import EdgeRotations

_EPSILON = 1e-5
# Channels that symmetry makes zero have a size of zero, whose root has no finite slope.
_TINY = 1e-30

Total = Callable[[Tensor], Tensor]
"""Sums a tensor over the ranks that share the edges of a graph; its gradient is the sum of their gradients."""


def alone(values: Tensor) -> Tensor:
    """The total where a rank has all edges."""
    return values


class Rows(NamedTuple):
    """Which rows of features are of one graph, on this rank and on others.

    graph_of: (R,) the graph of each row. counts: (G,) float64, rows of each graph, on all ranks together.
    rotations: of the edges; None for atoms. total: of the ranks that share the rows.
    """

    graph_of: Tensor
    counts: Tensor
    rotations: EdgeRotations | None
    total: Total

    @classmethod
    def of(cls, graph_of: Tensor, graphs: int, rotations: EdgeRotations | None = None, total: Total = alone) -> "Rows":
        """Of so many graphs."""
        ones = torch.ones_like(graph_of, dtype=torch.float64)
        counts = total(ones.new_zeros(graphs).index_add(0, graph_of, ones))
        return cls(graph_of, counts, rotations, total)

    def mean(self, values: Tensor) -> Tensor:
        """The mean over each graph's rows: (R, x) -> (G, x)."""
        sums = values.new_zeros(len(self.counts), values.shape[1]).index_add(0, self.graph_of, values)
        return self.total(sums) / self.counts.to(values)[:, None]


class Norm(nn.Module):
    """What both have: a weight for each channel and a bias for each scalar; averages: (F, x), over features alike."""

    averages: Tensor
    channel_of: Tensor

    def __init__(self, layout: Layout, averages: Tensor) -> None:
        super().__init__()
        self.layout = layout
        self.weight = nn.Parameter(torch.ones(layout.channels))
        self.bias = nn.Parameter(torch.zeros(layout.groups.get(SCALAR, 0)))
        self.register_buffer("averages", averages, persistent=False)
        self.register_buffer("channel_of", layout.channel_of, persistent=False)

    def finished(self, normed: Tensor, skip: Tensor) -> Tensor:
        """Weighted, shifted and added to the skipped features, (R, F)."""
        shift = nn.functional.pad(self.bias, (0, self.layout.dim - len(self.bias)))
        return normed * self.weight[self.channel_of] + shift + skip


class GraphNorm(Norm):
    """DeepH-E3's: every irrep's mean over a graph and all channels is subtracted, scalars are divided by their size.

    Means are taken in global coordinates: what edges store in their own frames is turned out and back.
    """

    def __init__(self, layout: Layout) -> None:
        means = Layout((irrep, 1) for irrep in layout.groups)
        averages = torch.zeros(layout.dim, means.dim, dtype=torch.float64)
        for irrep, count in layout.groups.items():
            for order in range(-irrep.degree, irrep.degree + 1):
                start = layout.position(irrep, 0, order)
                averages[start : start + count, means.position(irrep, 0, order)] = 1 / count
        super().__init__(layout, averages)
        self._means = means
        scalars = [count for irrep, count in layout.groups.items() if irrep.degree == 0]
        self.num_scalars = len(scalars)
        self._split = [*scalars, layout.dim - sum(scalars)]
        self._kernel = NormKernel(layout, _EPSILON)

    @full_precision
    def forward(self, features: Tensor, skip: Tensor, rows: Rows) -> Tensor:
        """The normed features plus the skipped ones: (R, F), (R, F) -> (R, F)."""
        if compiled(features):
            return self._kernel(features, self.weight, self.bias, skip, rows)
        means = rows.mean(self.means(features, rows.rotations))
        centred = self.centred(features, means[rows.graph_of], rows.rotations)
        squares = rows.mean(self.squares(centred))
        return self.finished(self.scaled(centred, squares[rows.graph_of]), skip)

    def means(self, features: Tensor, rotations: EdgeRotations | None = None) -> Tensor:
        """Each row's means over channels in global coordinates, (R, M)."""
        means = features @ self.averages.to(features)
        return means if rotations is None else rotations.out_of(means, self._means)

    def centred(self, features: Tensor, means: Tensor, rotations: EdgeRotations | None = None) -> Tensor:
        """The features less the means of each row's graph; means: (R, M), as `means` gives them."""
        if rotations is not None:
            means = rotations.into(means, self._means)
        return features - means @ (self.averages > 0).to(features).T

    def squares(self, centred: Tensor) -> Tensor:
        """Each row's mean squares over the channels of the scalar irreps, (R, 1 or 2)."""
        *scalars, rest = centred.split(self._split, dim=1)
        return torch.cat([*(part.square().mean(dim=1, keepdim=True) for part in scalars), rest[:, :0]], dim=1)

    def scaled(self, centred: Tensor, squares: Tensor) -> Tensor:
        """The centred features, scalars by their size; squares: (R, 1 or 2), the mean of `squares` over the graph."""
        *scalars, rest = centred.split(self._split, dim=1)
        sizes = ((squares + _TINY).sqrt() + _EPSILON).split(1, dim=1)
        return torch.cat([*(part / size for part, size in zip(scalars, sizes, strict=False)), rest], dim=1)


class LocalNorm(Norm):
    """Every irrep of an atom or edge is divided by its own size, scalars after their mean is subtracted.

    So that an edge knows nothing of the far side of a crystal, and a message that vanishes changes nothing.
    """

    def __init__(self, layout: Layout) -> None:
        averages = torch.zeros(layout.dim, len(layout.groups), dtype=torch.float64)
        for number, (irrep, count) in enumerate(layout.groups.items()):
            for order in range(-irrep.degree, irrep.degree + 1):
                start = layout.position(irrep, 0, order)
                averages[start : start + count, number] = 1 / (count * irrep.size)
        super().__init__(layout, averages)

    @full_precision
    def forward(self, features: Tensor, skip: Tensor, *_: object) -> Tensor:
        """The normed features plus the skipped ones: (R, F), (R, F) -> (R, F). `GraphNorm` needs the rest."""
        averages = self.averages.to(features)
        scalars = len(self.bias)
        mean = features[:, :scalars].mean(dim=1, keepdim=True) if scalars else 0.0
        centred = torch.cat([features[:, :scalars] - mean, features[:, scalars:]], dim=1)
        inverse = torch.rsqrt(centred.square() @ averages + _EPSILON)
        return self.finished(centred * (inverse @ (averages > 0).to(features).T), skip)
