"""The tensor product of edge features with Y(bond), as one matrix product for each |m| in the edge's frame.

DeepH-E3 computes z = Σ W_uw (x_u ⊗ Y_l2) for all paths (l1, l2) -> l3, with weights shared by all edges. In a frame
whose third axis is the bond, Y_l2 has the one component m = 0, √(2 l2 + 1), so with x and z in that frame

    z[l3 w, m] = Σ_{l1 u} A_|m|[l1 u, l3 w] x[l1 u, m],   A_|m| = Σ_l2 κ √(2 l2 + 1) w3j(l1, l2, l3)[m, 0, ±m] W^l2_uw.

Paths with even l1 + l2 + l3 keep m, odd ones turn it into -m antisymmetrically; the layout's quarter turn of pseudo
channels makes the latter look like the former (`layout.py`). κ is e3nn's path normalisation, as in DeepH-E3.
On-site edges have no direction: Y_0 = 1 and all others vanish, and only the paths with l2 = 0 are left.

Shape letters: R edges, F features of a row, u channels in, w channels out, p paths (l2) of one pair of irreps.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from e3nn import o3
from torch import Tensor, nn

from deeph_tracegrad.nn.layout import Irrep, Layout
from deeph_tracegrad.nn.linear import corners, orderwise


class PathGroup(NamedTuple):
    """All paths from one irrep of one input to one irrep of the output."""

    source: Irrep
    target: Irrep
    weights: slice
    scales: slice
    paths: int
    coefficients: slice  # of (|m|, p)
    on_site: float  # of the path l2 = 0; zero where there is none


class EdgeFrameProduct(nn.Module):
    """Several inputs times Y(bond), summed: what DeepH-E3 computes from their concatenation.

    sources: layout of each input. copies: how many inputs of DeepH-E3 share it, their channels side by side.
    degree: largest l of Y.
    """

    _table: Tensor

    def __init__(self, sources: Sequence[Layout], copies: Sequence[int], target: Layout, degree: int) -> None:
        super().__init__()
        self.sources, self.target = list(sources), target
        self.copies = list(copies)
        paths_into = {
            irrep: sum(
                count * len(_degrees(source_irrep, irrep, degree))
                for source, count in zip(sources, copies, strict=True)
                for source_irrep in source.groups
            )
            for irrep in target.groups
        }
        self.groups: list[list[PathGroup]] = []
        coefficients: list[Tensor] = []
        weights = scales = entries = 0
        for source, count in zip(sources, copies, strict=True):
            groups = []
            for first in source.groups:
                for last in target.groups:
                    degrees = _degrees(first, last, degree)
                    if not degrees:
                        continue
                    rows, columns = source.groups[first], target.groups[last]
                    size = len(degrees) * rows * columns
                    scale_size = len(degrees) * count * columns
                    norm = (last.size / (paths_into[last] * rows / count)) ** 0.5
                    coefficients.append((norm * _coefficients(first, last, degrees)).flatten())
                    entries_end = entries + len(coefficients[-1])
                    groups.append(
                        PathGroup(
                            first,
                            last,
                            slice(weights, weights + size),
                            slice(scales, scales + scale_size),
                            len(degrees),
                            slice(entries, entries_end),
                            norm * first.size**-0.5 if degrees[0] == 0 else 0.0,
                        )
                    )
                    weights, scales, entries = weights + size, scales + scale_size, entries_end
            self.groups.append(groups)
        self.register_buffer("_table", torch.cat(coefficients), persistent=False)
        # as in DeepH-E3, W_uw = weight_uw · scale_w for each path, both of unit variance
        self.weight = nn.Parameter(torch.randn(weights))
        self.scale = nn.Parameter(torch.randn(scales))

    def forward(self, inputs: Sequence[Tensor], atoms: int) -> Tensor:
        """Inputs in the edges' frames, each (R, F_in) -> (R, F_out); the first `atoms` rows are the on-site edges."""
        results = []
        for features, source, copies, groups in zip(inputs, self.sources, self.copies, self.groups, strict=True):
            bond_matrices, on_site_matrices = self._matrices(source, copies, groups)
            on_site = orderwise(features[:atoms], on_site_matrices, source, self.target)
            bonds = orderwise(features[atoms:], bond_matrices, source, self.target)
            results.append(torch.cat([on_site, bonds]))
        return sum(results[1:], start=results[0])

    def coefficients(self, group: PathGroup) -> np.ndarray:
        """What each path contributes to the matrix of each |m|, (|m|, p)."""
        return self._table[group.coefficients].view(-1, group.paths).double().numpy(force=True)

    def _matrices(self, source: Layout, copies: int, groups: list[PathGroup]) -> tuple[list[Tensor], list[Tensor]]:
        """The channel matrices of bonds and of on-site edges for each |m|."""
        bond_blocks: list[dict[tuple[Irrep, Irrep], Tensor]] = [{} for _ in range(self.target.degree + 1)]
        on_site = self.weight.new_zeros(source.channels, self.target.channels)
        for group in groups:
            rows, columns = source.groups[group.source], self.target.groups[group.target]
            weight = self.weight[group.weights].view(group.paths, copies, -1, columns)
            path = weight * self.scale[group.scales].view(group.paths, copies, 1, columns)
            table = self._table[group.coefficients].view(-1, group.paths)
            mixed = table.to(path) @ path.view(group.paths, -1)
            for order, block in enumerate(mixed.view(-1, rows, columns).unbind(0)):
                bond_blocks[order][group.source, group.target] = block
            if group.on_site:
                row, column = source.starts[group.source], self.target.starts[group.target]
                on_site[row : row + rows, column : column + columns] = group.on_site * path[0].reshape(rows, columns)
        bonds = [
            _assembled(blocks, order, source, self.target)
            for order, blocks in enumerate(bond_blocks[: min(source.degree, self.target.degree) + 1])
        ]
        return bonds, corners(on_site, source, self.target)


def reachable(sources: Sequence[Layout], irrep: Irrep, degree: int) -> bool:
    """Whether some path leads from one of the inputs times Y to this irrep."""
    return any(_degrees(first, irrep, degree) for source in sources for first in source.groups)


def _degrees(first: Irrep, last: Irrep, degree: int) -> list[int]:
    """The l2 of Y that lead from one irrep to another: triangle rule and parity."""
    odd = first.natural != last.natural
    low, high = abs(first.degree - last.degree), min(first.degree + last.degree, degree)
    return [l2 for l2 in range(low, high + 1) if (first.degree + l2 + last.degree) % 2 == odd]


def _coefficients(first: Irrep, last: Irrep, degrees: Sequence[int]) -> Tensor:
    """√(2 l2 + 1) w3j[m, 0, ±m] for m = 0..min(l1, l3), (|m|, p)."""
    rows = []
    for order in range(min(first.degree, last.degree) + 1):
        row = []
        for l2 in degrees:
            w3j = o3.wigner_3j(first.degree, l2, last.degree, dtype=torch.float64)
            if first.natural == last.natural:
                value = w3j[first.degree + order, l2, last.degree + order]
            else:
                value = w3j[first.degree + order, l2, last.degree - order] * (1 if last.natural else -1)
            row.append((2 * l2 + 1) ** 0.5 * value.item())
        rows.append(row)
    return torch.tensor(rows, dtype=torch.float64)


def _assembled(blocks: dict[tuple[Irrep, Irrep], Tensor], order: int, source: Layout, target: Layout) -> Tensor:
    """One channel matrix of order |m| from its irrep blocks; pairs without a path are zero."""
    some = next(iter(blocks.values()))
    rows = [(irrep, count) for irrep, count in source.groups.items() if irrep.degree >= order]
    columns = [(irrep, count) for irrep, count in target.groups.items() if irrep.degree >= order]
    return torch.cat(
        [
            torch.cat(
                [
                    blocks[first, last] if (first, last) in blocks else some.new_zeros(height, width)
                    for last, width in columns
                ],
                dim=1,
            )
            for first, height in rows
        ]
    )
