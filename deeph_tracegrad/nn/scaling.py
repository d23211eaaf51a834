"""The network's raw outputs are of order one; what a target is worth in eV, the training samples tell.

Shape letters: E edges, S species, T targets, D coefficients.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from deeph_tracegrad.graph import HamiltonianGraph
from deeph_tracegrad.targets import TargetLayout

# eV; a target that hardly differs between the training samples may differ more elsewhere
_SMALLEST = 1e-3


class TargetScaling(nn.Module):
    """A factor for each target of an ordered element pair, on-site and off-site apart; 1 before `fit`.

    scale: (2 S², T) eV, the on-site rows last.
    """

    scale: Tensor
    _target: Tensor

    def __init__(self, layout: TargetLayout) -> None:
        super().__init__()
        self._layout, self._species = layout, len(layout.basis)
        self.register_buffer("scale", torch.ones(2 * self._species**2, layout.num_targets, dtype=torch.float64))
        parts = layout.dim // len(layout.element_target)  # real and imaginary
        self.register_buffer("_target", layout.element_target.repeat_interleave(parts), persistent=False)

    def forward(self, outputs: Tensor, graph: HamiltonianGraph) -> Tensor:
        """(E, D) -> (E, D) eV."""
        return outputs * self.scales(graph)[:, self._target]

    def scales(self, graph: HamiltonianGraph) -> Tensor:
        """The factor of each edge and target, (E, T) eV."""
        return self.scale[self._kinds(graph)]

    def fit(
        self,
        graphs: Iterable[HamiltonianGraph],
        start: Callable[[HamiltonianGraph], Tensor],
        total: Callable[[Tensor], Tensor],
    ) -> None:
        """Take the root mean square element of what is left of H.

        start: what H is without the network, (E, D) eV. total: sums a tensor over the ranks, each of which has labelled
        graphs of its own.
        """
        squares = torch.zeros_like(self.scale, dtype=torch.float64)
        edges = squares.new_zeros(len(squares))
        for graph in graphs:
            kinds = self._kinds(graph)
            left = self._layout.traces(graph.target.double() - start(graph))
            squares.index_add_(0, kinds, left)
            edges += torch.bincount(kinds, minlength=len(edges))
        elements = total(edges).clamp(min=1.0)[:, None] * self._layout.target_sizes
        self.scale.copy_((total(squares) / elements).sqrt().clamp(min=_SMALLEST))

    def _kinds(self, graph: HamiltonianGraph) -> Tensor:
        """The row of `scale` for each edge, (E,)."""
        source, destination = graph.species[graph.edge_index]
        return source * self._species + destination + graph.on_site * self._species**2
