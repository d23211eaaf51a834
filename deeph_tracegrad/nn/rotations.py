"""Features of atoms into the frames of edges, and back.

Shape letters: N atoms, R edges, F features of a row, c channels of one group.
"""

import numpy as np
import torch
from torch import Tensor

from deeph_tracegrad.frames import euler_angles, rotation_matrices
from deeph_tracegrad.nn.kernels.geometry import turns
from deeph_tracegrad.nn.kernels.library import compiled
from deeph_tracegrad.nn.layout import Irrep, Layout
from deeph_tracegrad.nn.precision import full_precision


class EdgeRotations:
    """The turns of all irreps into each edge's frame, computed once a graph.

    matrices: for each irrep (R, 2l+1, 2l+1): from the global components, in the order m = 0, +1, -1, ..., to those
    that a layout stores in the frame. addresses: of these in memory, natural and pseudo of each degree; 0 for none.
    """

    def __init__(self, frames: Tensor, irreps: set[Irrep], dtype: torch.dtype) -> None:
        """Prepare the turns.

        frames: (R, 3, 3), rows are the local axes.
        """
        self.matrices: dict[Irrep, Tensor] = {}
        degrees = sorted({irrep.degree for irrep in irreps})
        if compiled(frames):
            frames = frames.contiguous()
            for degree in degrees:
                pair = [Irrep(degree, natural) for natural in (True, False)]
                wanted = [irrep in irreps for irrep in pair]
                for irrep, turn in zip(pair, turns(degree, frames, dtype, *wanted), strict=True):
                    if turn is not None:
                        self.matrices[irrep] = turn
        else:
            angles = euler_angles(frames)
            for degree in degrees:
                places = [degree + order for order in _orders(degree)]
                turn = rotation_matrices(degree, frames, angles)[:, places][:, :, places].to(dtype)
                for irrep in irreps & {Irrep(degree, True), Irrep(degree, False)}:
                    self.matrices[irrep] = (turn if irrep.natural else _quarter_turned(turn)).contiguous()
        self.addresses = np.zeros(2 * degrees[-1] + 2, dtype=np.int64)
        for irrep, matrix in self.matrices.items():
            self.addresses[2 * irrep.degree + (not irrep.natural)] = matrix.data_ptr()

    @full_precision
    def gather_ends(self, features: Tensor, layout: Layout, edge_index: Tensor) -> Tensor:
        """Features of both atoms of each edge in its frame: (N, F), (2, R) -> (R, 2 F), i's channels before j's.

        The result's layout is `layout.doubled`.
        """
        flat = torch.cat([part.flatten(1) for part in layout.by_irrep(features)], dim=1)
        ends = [_unflattened(flat.index_select(0, index), layout) for index in edge_index]
        parts = zip(layout.groups, *ends, strict=True)
        return layout.doubled.from_irreps(
            [torch.bmm(self.matrices[irrep], torch.cat(pair, dim=2)) for irrep, *pair in parts]
        )

    @full_precision
    def scatter(self, features: Tensor, layout: Layout, index: Tensor, atoms: int) -> Tensor:
        """Features of edges, (R, F), summed in global coordinates over the edges of each atom, (N, F)."""
        flat = self.out_of(features, layout)
        total = flat.new_zeros(atoms, flat.shape[1]).index_add(0, index, flat)
        return layout.from_irreps(_unflattened(total, layout))

    def into(self, flat: Tensor, layout: Layout) -> Tensor:
        """Global components, irrep after irrep (R, F) -> features in the frames."""
        parts = zip(layout.groups, _unflattened(flat, layout), strict=True)
        return layout.from_irreps([torch.bmm(self.matrices[irrep], part) for irrep, part in parts])

    def out_of(self, features: Tensor, layout: Layout) -> Tensor:
        """The inverse of `into`."""
        parts = zip(layout.groups, layout.by_irrep(features), strict=True)
        return torch.cat([torch.bmm(self.matrices[irrep].mT, part).flatten(1) for irrep, part in parts], dim=1)


def _orders(degree: int) -> list[int]:
    return [0, *(sign * m for m in range(1, degree + 1) for sign in (1, -1))]


def _quarter_turned(turn: Tensor) -> Tensor:
    """Rows for p'_{+m} = -p_{-m} and p'_{-m} = p_{+m}."""
    rows = [turn[:, :1]]
    for plus in range(1, turn.shape[1], 2):
        rows += [-turn[:, plus + 1 : plus + 2], turn[:, plus : plus + 1]]
    return torch.cat(rows, dim=1)


def _unflattened(flat: Tensor, layout: Layout) -> list[Tensor]:
    parts = flat.split([irrep.size * count for irrep, count in layout.groups.items()], dim=1)
    return [part.unflatten(1, (irrep.size, -1)) for irrep, part in zip(layout.groups, parts, strict=True)]
