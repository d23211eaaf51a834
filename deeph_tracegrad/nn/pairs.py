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

from deeph_tracegrad.nn.kernels.library import compiled, kernel
from deeph_tracegrad.nn.layout import Layout

# Rows at a time, on a CPU for each thread: their products take some megabytes.
_ROWS_OF_THREAD = 1024
_ROWS_OF_GPU = 16384


def num_pairs(layout: Layout) -> list[int]:
    """The packed channel pairs of each irrep."""
    return [count * (count + 1) // 2 for count in layout.groups.values()]


def forms(features: Tensor, weight: Tensor, layout: Layout) -> Tensor:
    """Q: (R, F), (U, H) -> (R, H)."""
    return _Forms.apply(features, weight, layout)


def gradient_of_forms(features: Tensor, slope: Tensor, weight: Tensor, layout: Layout) -> Tensor:
    """Σ_h s_h ∂q_h/∂f: (R, F), (R, H), (U, H) -> (R, F)."""
    return _GradientOfForms.apply(features, slope, weight, layout)


class _Forms(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, layout: Layout) -> Tensor:
        ctx.save_for_backward(features, weight)
        ctx.layout = layout
        out = features.new_empty(len(features), weight.shape[1])
        for rows in _rows(features):
            out[rows] = _products(features[rows], features[rows], layout) @ weight
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        features, weight = ctx.saved_tensors
        gradient = gradient.to(features)
        of_features, of_weight = torch.empty_like(features), torch.zeros_like(weight)
        for rows in _rows(features):
            part = features[rows]
            of_weight.addmm_(_products(part, part, ctx.layout).T, gradient[rows])
            of_features[rows] = 2 * _mixed(gradient[rows] @ weight.T, part, ctx.layout)
        return of_features, of_weight, None


class _GradientOfForms(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, slope: Tensor, weight: Tensor, layout: Layout) -> Tensor:
        ctx.save_for_backward(features, slope, weight)
        ctx.layout = layout
        out = torch.empty_like(features)
        for rows in _rows(features):
            out[rows] = 2 * _mixed(slope[rows] @ weight.T, features[rows], layout)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        features, slope, weight = ctx.saved_tensors
        gradient = 2 * gradient.to(features)
        of_features, of_slope, of_weight = torch.empty_like(features), torch.empty_like(slope), torch.zeros_like(weight)
        for rows in _rows(features):
            pairs = _products(gradient[rows], features[rows], ctx.layout)
            of_slope[rows] = pairs @ weight
            of_weight.addmm_(pairs.T, slope[rows])
            of_features[rows] = _mixed(slope[rows] @ weight.T, gradient[rows], ctx.layout)
        return of_features, of_slope, of_weight, None


def _rows(features: Tensor) -> Iterator[slice]:
    step = _ROWS_OF_THREAD * torch.get_num_threads() if features.device.type == "cpu" else _ROWS_OF_GPU
    return (slice(first, first + step) for first in range(0, len(features), step))


# These two are each other's adjoint.


def _products(one: Tensor, other: Tensor, layout: Layout) -> Tensor:
    """<a_u, b_v> + <a_v, b_u> for u < v, <a_u, b_u>: (R, F), (R, F) -> (R, U)."""
    if compiled(one):
        one, other = one.contiguous(), other.contiguous()
        out = one.new_empty(len(one), sum(num_pairs(layout)))
        kernel("pair_products", out.dtype)(layout.plan, one, other, *out.shape, out, torch.get_num_threads())
        return out
    packed = []
    for a, b in zip(layout.by_irrep(one), layout.by_irrep(other), strict=True):
        square = a.mT @ b
        rows, columns = torch.triu_indices(a.shape[2], a.shape[2], device=one.device)
        both = (square + square.mT).flatten(1).index_select(1, rows * a.shape[2] + columns)
        packed.append(torch.where(rows == columns, both / 2, both))
    return torch.cat(packed, dim=1)


def _mixed(matrix: Tensor, features: Tensor, layout: Layout) -> Tensor:
    """Σ_v M_uv f_v, M symmetric: its upper triangles (R, U), (R, F) -> (R, F)."""
    if compiled(features):
        matrix, features = matrix.contiguous(), features.contiguous()
        out = torch.empty_like(features)
        kernel("pairs_mixed", out.dtype)(layout.plan, matrix, features, *matrix.shape, out, torch.get_num_threads())
        return out
    parts = layout.by_irrep(features)
    mixed = []
    for packed, part in zip(matrix.split(num_pairs(layout), dim=1), parts, strict=True):
        count = part.shape[2]
        rows, columns = torch.triu_indices(count, count, device=features.device)
        whole = rows.new_empty(count, count)
        whole[rows, columns] = whole[columns, rows] = torch.arange(len(rows), device=features.device)
        mixed.append(part @ packed.index_select(1, whole.flatten()).unflatten(1, (count, count)))
    return layout.from_irreps(mixed)
