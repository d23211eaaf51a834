"""Linear maps between channels of the same irrep.

Shape letters: R rows, F features of a row, C channels, c channels of one group, Q kinds of rows, W weights of a kind.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from deeph_tracegrad.nn.arrangement import Members
from deeph_tracegrad.nn.kernels.library import compiled
from deeph_tracegrad.nn.kernels.linear import LinearKernel
from deeph_tracegrad.nn.layout import Irrep, Layout

SCALAR = Irrep(0, natural=True)


def orderwise(features: Tensor, matrices: Sequence[Tensor], source: Layout, target: Layout) -> Tensor:
    """One channel matrix for each |m|: (R, F_in) by (channels in, channels out) of that order, to (R, F_out)."""
    blocks = dict(zip(source.orders, features.split(source.block_sizes, dim=1), strict=True))
    products = [
        blocks[order] @ matrices[abs(order)]
        if order in blocks
        else features.new_zeros(len(features), target.channels - target.first_channel(order))
        for order in target.orders
    ]
    return torch.cat(products, dim=1)


def corners(matrix: Tensor, source: Layout, target: Layout) -> list[Tensor]:
    """A block-diagonal channel matrix, (C_in, C_out), for each |m|: the channels with l >= |m| are the last ones."""
    orders = range(min(source.degree, target.degree) + 1)
    return [matrix[source.first_channel(order) :, target.first_channel(order) :] for order in orders]


class IrrepLinear(nn.Module):
    """A linear map between the channels of each irrep, scaled by 1/√(channels in); bias on scalars only.

    kinds: rows of different kinds have weights of their own.
    """

    def __init__(self, source: Layout, target: Layout, *, bias: bool, kinds: int = 1) -> None:
        super().__init__()
        self.source, self.target, self.kinds = source, target, kinds
        self._shapes = {
            irrep: (source.groups[irrep], count) for irrep, count in target.groups.items() if irrep in source.groups
        }
        # in E3 the kinds enter as one-hot scalars, which its normalisation counts as inputs
        self._scales = {irrep: (rows * kinds) ** -0.5 for irrep, (rows, _) in self._shapes.items()}
        self._kernel = LinearKernel(source, target, self._scales)
        self.weight = nn.Parameter(torch.randn(kinds, sum(rows * columns for rows, columns in self._shapes.values())))
        scalars = target.groups.get(SCALAR, 0) if bias else 0
        self.bias = nn.Parameter(torch.zeros(scalars)) if scalars else None

    def forward(self, features: Tensor, members: Members | None = None, onto: Tensor | None = None) -> Tensor:
        """(R, F_in) -> (R, F_out).

        members: the rows of each kind; needed with several kinds. onto: (R, F_out) that the result is added
            to, and that is not to be used afterwards.
        """
        if compiled(features):
            return self._kernel(features, self.weight, self.bias, members, onto)
        if members is None:
            result = orderwise(features, self._matrices(self.weight[0]), self.source, self.target)
        else:
            # one `unbind`, whose adjoint makes one gradient of the size of all weights, not one for each kind
            kinds = zip(self.weight.unbind(), members.order.split(np.diff(members.bounds).tolist()), strict=True)
            parts = [
                orderwise(features.index_select(0, rows), self._matrices(weight), self.source, self.target)
                for weight, rows in kinds
                if len(rows) or not len(features)  # the part of a rank without edges: also then there is a gradient
            ]
            rows_by_kind = torch.cat(parts)
            result = torch.empty_like(rows_by_kind).index_copy(0, members.order, rows_by_kind)
        if self.bias is not None:
            padding = self.target.dim - len(self.bias)
            result = result + nn.functional.pad(self.bias, (0, padding))
        return result if onto is None else onto + result

    def _matrices(self, weight: Tensor) -> list[Tensor]:
        """The block-diagonal channel matrix of one kind, (W,), for each |m|."""
        parts = weight.split([rows * columns for rows, columns in self._shapes.values()])
        blocks = {
            irrep: part.view(shape) * self._scales[irrep]
            for (irrep, shape), part in zip(self._shapes.items(), parts, strict=True)
        }
        # an irrep of one side alone has rows or columns, but no block
        empty = {
            irrep: self.weight.new_empty(self.source.groups.get(irrep, 0), self.target.groups.get(irrep, 0))
            for irrep in {*self.source.groups, *self.target.groups} - set(blocks)
        }
        ordered = sorted({**blocks, **empty}.items(), key=lambda item: item[0].order)
        return corners(torch.block_diag(*(block for _, block in ordered)), self.source, self.target)
