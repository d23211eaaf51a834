"""What the two elements and the length of a bond say about H by themselves, fitted to the training samples.

A Hamiltonian of two centres looks the same after a turn about the bond and in a mirror that holds it (Slater and
Koster, Phys. Rev. 94, 1498 (1954)). In the bond's frame this leaves, as functions of the length, M = 0 of the natural
irreps, those of parity (-1)^l; on an atom alone it leaves the constants of the scalars.

Shape letters: E edges, P ordered element pairs, F functions of the length, C coefficients that may differ from zero,
D all coefficients.
"""

from collections.abc import Callable, Iterable
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag

from deeph_tracegrad.edges import Reach
from deeph_tracegrad.graph import HamiltonianGraph
from deeph_tracegrad.targets import TargetLayout

SPLINES = 24

# Of the penalty against the mean weight of the data on a function: enough for lengths that do not occur.
_STIFFNESS = 1e-5
# Of small values against straight ones: straight across gaps between the lengths, towards zero far from all of them.
_SHRINKAGE = 1e-3


class TwoCentreBaseline(nn.Module):
    """Each of those coefficients as a cubic spline of the bond length, for every ordered element pair.

    Splines are constant beyond the pair's longest bond in the data. On-site edges have the mean. Zero before `fit`.

    functions: B-splines on an even grid from 0; 1 for a constant instead.
    table: (P, F + 1, C) eV, the last function is 1 on on-site edges. ends: (P,) Å.
    """

    table: Tensor
    ends: Tensor
    _places: Tensor
    _scalar: Tensor

    def __init__(self, layout: TargetLayout, functions: int) -> None:
        super().__init__()
        self._elements, self._dim, self._intervals = list(layout.basis), layout.dim, max(functions - 3, 1)
        natural = [(degree, start + degree) for degree, parity, start in layout.irreps if parity == (-1) ** degree]
        pairs = len(self._elements) ** 2
        self.register_buffer("table", torch.zeros(pairs, functions + 1, len(natural), dtype=torch.float64))
        self.register_buffer("ends", torch.ones(pairs, dtype=torch.float64))
        self.register_buffer("_places", torch.tensor([place for _, place in natural]), persistent=False)
        self.register_buffer("_scalar", torch.tensor([degree == 0 for degree, _ in natural]), persistent=False)

    def forward(self, graph: HamiltonianGraph) -> Tensor:
        """The baseline of every edge, (E, D) eV, in the edges' frames."""
        pair, function, weight = self._functions(graph)
        rows = pair[:, None] * self.table.shape[1] + function
        values = embedding_bag(
            rows, self.table.flatten(0, 1), mode="sum", per_sample_weights=weight.to(self.table.dtype)
        )
        return values.new_zeros(len(pair), self._dim).index_copy(1, self._places, values)

    def fit(
        self,
        graphs: Iterable[HamiltonianGraph],
        reach: Reach,
        total: Callable[[Tensor], Tensor],
        envelope: Callable[[HamiltonianGraph], Tensor | None] = lambda _: None,
    ) -> None:
        """Least squares over labelled graphs, with a penalty on second differences of the splines' factors.

        These are P-splines: Eilers and Marx, Stat. Sci. 11, 89 (1996).

        reach: of the dataset. total: sums a tensor over the ranks, each of which has graphs of its own.
        envelope: what the baseline will be multiplied by, (E, 1); None for 1.
        """
        lengths = [reach.get("-".join(sorted(pair))) or 1.0 for pair in product(self._elements, repeat=2)]
        self.ends.copy_(torch.tensor(lengths))
        pairs, functions, _ = self.table.shape
        normal = torch.zeros(pairs, functions, functions, dtype=torch.float64, device=self.table.device)
        moment = torch.zeros_like(self.table, dtype=torch.float64)
        for graph in graphs:
            pair, function, weight = self._functions(graph)
            if (factor := envelope(graph)) is not None:
                weight = weight * factor
            design = weight.new_zeros(len(pair), functions).scatter_add(1, function, weight)
            values = graph.target[:, self._places].double()
            for kind in pair.unique().tolist():
                rows = pair == kind
                normal[kind] += design[rows].T @ design[rows]
                moment[kind] += design[rows].T @ values[rows]
        solution = torch.linalg.solve(_penalised(total(normal)), total(moment))
        solution[:, -1] *= self._scalar
        self.table.copy_(solution)

    def _functions(self, graph: HamiltonianGraph) -> tuple[Tensor, Tensor, Tensor]:
        """Each edge's pair (E,), and the four functions that are not zero on it: numbers and values, (E, 4)."""
        source, destination = graph.species[graph.edge_index]
        pair = source * len(self._elements) + destination
        length = torch.linalg.vector_norm(graph.edge_vec.double(), dim=1)
        place = (length / self.ends[pair]).clamp(max=1.0) * self._intervals
        interval = place.floor().clamp(max=self._intervals - 1)
        u = place - interval
        v = 1 - u
        weight = torch.stack([v**3, 3 * u**3 - 6 * u**2 + 4, 3 * v**3 - 6 * v**2 + 4, u**3], dim=1) / 6
        on_site = self.table.shape[1] - 1
        # with the constant alone all four are the same function, and their values add up to 1
        function = (interval.long()[:, None] + torch.arange(4, device=pair.device)).clamp(max=on_site - 1)
        return pair, torch.where(graph.on_site[:, None], on_site, function), weight


def _penalised(normal: Tensor) -> Tensor:
    """The normal equations' matrices, (P, F + 1, F + 1), with the penalty; invertible also for pairs without data."""
    functions = normal.shape[1]
    differences = torch.eye(functions - 1, dtype=normal.dtype, device=normal.device).diff(n=2, dim=0)
    penalty = _SHRINKAGE * torch.eye(functions, dtype=normal.dtype, device=normal.device)
    penalty[:-1, :-1] += differences.T @ differences
    level = normal.diagonal(dim1=1, dim2=2).mean(dim=1)
    return normal + _STIFFNESS * torch.where(level > 0, level, 1.0)[:, None, None] * penalty
