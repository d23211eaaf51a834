"""Quadratic forms of the channels of each irrep, and their gradient by the channels.

A form is a symmetric matrix W of channels for each irrep g, of which the upper triangle is kept, row after row:
q = Σ_g Σ_u≤v W^g_uv P^g_uv with P_uv = <f_u, f_v>, twice that for u < v. Its gradient is ∂q/∂f_u = 2 Σ_v W_uv f_v.
The products of two channels are many: they are made for some rows at a time, and again in the backward pass.

Shape letters: R rows, F features of a row, c channels of one irrep, U packed channel pairs, H forms.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from deeph_tracegrad.nn.kernels.library import compiled, kernel
from deeph_tracegrad.nn.layout import Irrep, Layout

# Rows at a time, on a CPU for each thread: their products take some megabytes.
_ROWS_OF_THREAD = 1024
_ROWS_OF_GPU = 16384


class ChannelPairs:
    """The pairs of channels of the same irrep.

    most: channels of an irrep that are paired, the first ones; the others do not count. None pairs all.
    """

    def __init__(self, layout: Layout, most: int | None = None) -> None:
        most = most or layout.channels
        self._layout = layout
        self._counts = [min(count, most) for count in layout.groups.values()]
        self._plan = layout.plan_of_first(most)

    @property
    def sizes(self) -> dict[Irrep, int]:
        """Packed pairs of each irrep; U is their sum."""
        return {irrep: count * (count + 1) // 2 for irrep, count in zip(self._layout.groups, self._counts, strict=True)}

    def forms(self, features: Tensor, weight: Tensor) -> Tensor:
        """Q: (R, F), (U, H) -> (R, H)."""
        return _Forms.apply(features, weight, self)

    def gradient(self, features: Tensor, slope: Tensor, weight: Tensor) -> Tensor:
        """Σ_h s_h ∂q_h/∂f: (R, F), (R, H), (U, H) -> (R, F)."""
        return _Gradient.apply(features, slope, weight, self)

    # The next two are each other's adjoint.

    def products(self, one: Tensor, other: Tensor) -> Tensor:
        """<a_u, b_v> + <a_v, b_u> for u < v, <a_u, b_u>: (R, F), (R, F) -> (R, U)."""
        if compiled(one):
            one, other = one.contiguous(), other.contiguous()
            out = one.new_empty(len(one), sum(self.sizes.values()))
            kernel("pair_products", out.dtype)(self._plan, one, other, *out.shape, out, torch.get_num_threads())
            return out
        packed = []
        for a, b, count in zip(*map(self._layout.by_irrep, (one, other)), self._counts, strict=True):
            square = a[..., :count].mT @ b[..., :count]
            rows, columns = torch.triu_indices(count, count, device=one.device)
            both = (square + square.mT).flatten(1).index_select(1, rows * count + columns)
            packed.append(torch.where(rows == columns, both / 2, both))
        return torch.cat(packed, dim=1)

    def mixed(self, matrix: Tensor, features: Tensor) -> Tensor:
        """Σ_v M_uv f_v, zero for channels without pairs: M's upper triangles (R, U), (R, F) -> (R, F)."""
        if compiled(features):
            matrix, features = matrix.contiguous(), features.contiguous()
            out = torch.empty_like(features)
            kernel("pairs_mixed", out.dtype)(self._plan, matrix, features, *matrix.shape, out, torch.get_num_threads())
            return out
        parts = self._layout.by_irrep(features)
        packed = matrix.split(list(self.sizes.values()), dim=1)
        mixed = []
        for triangle, part, count in zip(packed, parts, self._counts, strict=True):
            rows, columns = torch.triu_indices(count, count, device=features.device)
            place = rows.new_empty(count, count)
            place[rows, columns] = place[columns, rows] = torch.arange(len(rows), device=features.device)
            whole = triangle.index_select(1, place.flatten()).unflatten(1, (count, count))
            mixed.append(pad(part[..., :count] @ whole, (0, part.shape[2] - count)))
        return self._layout.from_irreps(mixed)


class _Forms(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, pairs: ChannelPairs) -> Tensor:
        ctx.save_for_backward(features, weight)
        ctx.pairs = pairs
        out = features.new_empty(len(features), weight.shape[1])
        for rows in _rows(features):
            out[rows] = pairs.products(features[rows], features[rows]) @ weight
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        features, weight = ctx.saved_tensors
        of_features, of_weight = torch.empty_like(features), torch.zeros_like(weight)
        for rows in _rows(features):
            part = features[rows]
            of_weight.addmm_(ctx.pairs.products(part, part).T, gradient[rows])
            of_features[rows] = 2 * ctx.pairs.mixed(gradient[rows] @ weight.T, part)
        return of_features, of_weight, None


class _Gradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, slope: Tensor, weight: Tensor, pairs: ChannelPairs) -> Tensor:
        ctx.save_for_backward(features, slope, weight)
        ctx.pairs = pairs
        out = torch.empty_like(features)
        for rows in _rows(features):
            out[rows] = 2 * pairs.mixed(slope[rows] @ weight.T, features[rows])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        features, slope, weight = ctx.saved_tensors
        of_features, of_slope, of_weight = torch.empty_like(features), torch.empty_like(slope), torch.zeros_like(weight)
        for rows in _rows(features):
            part = 2 * gradient[rows]
            products = ctx.pairs.products(part, features[rows])
            of_slope[rows] = products @ weight
            of_weight.addmm_(products.T, slope[rows])
            of_features[rows] = ctx.pairs.mixed(slope[rows] @ weight.T, part)
        return of_features, of_slope, of_weight, None


def _rows(features: Tensor) -> Iterator[slice]:
    step = _ROWS_OF_THREAD * torch.get_num_threads() if features.device.type == "cpu" else _ROWS_OF_GPU
    return (slice(first, first + step) for first in range(0, len(features), step))
