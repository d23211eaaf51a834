"""Quadratic forms of the channels of each irrep, and their gradient by the channels.

A form is a symmetric matrix W of channels for each irrep g, of which the upper triangle is kept, row after row:
q = Σ_g Σ_u≤v W^g_uv P^g_uv with P_uv = <f_u, f_v>, twice that for u < v. Its gradient is ∂q/∂f_u = 2 Σ_v W_uv f_v.
The products of two channels are many: they are made for some rows at a time, and again in the backward pass. Compiled
kernels do a few forms; many are large matrix products, which torch does as fast.

Shape letters: R rows, F features of a row, c channels of one irrep, U packed channel pairs, H forms.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from deeph_tracegrad.nn.kernels.library import compiled, kernel, require_alike
from deeph_tracegrad.nn.layout import Layout

_FEW_FORMS = 64  # up to which the compiled kernels are the faster ones

# Rows at a time in torch, on a CPU for each thread: their products take some megabytes.
_ROWS_OF_THREAD = 1024
_ROWS_OF_GPU = 16384


class ChannelPairs:
    """The pairs of channels of the same irrep.

    sizes: packed pairs of each irrep; U is their sum.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.sizes = {irrep: count * (count + 1) // 2 for irrep, count in layout.groups.items()}

    def forms(self, features: Tensor, weight: Tensor) -> Tensor:
        """Q: (R, F), (U, H) -> (R, H)."""
        return _Forms.apply(features, weight, self)

    def gradient(self, features: Tensor, slope: Tensor, weight: Tensor) -> Tensor:
        """Σ_h s_h ∂q_h/∂f: (R, F), (R, H), (U, H) -> (R, F)."""
        return _Gradient.apply(features, slope, weight, self)

    def times(self, one: Tensor, other: Tensor, weight: Tensor) -> Tensor:
        """The products of both (R, F) times the weight (U, H), (R, H)."""
        out = one.new_empty(len(one), weight.shape[1])
        if self._compiled(weight):
            self._call("pair_forms", one, other, len(one), weight, weight.shape[1], out=[out])
        else:
            for rows in _rows(one):
                out[rows] = self._products(one[rows], other[rows]) @ weight
        return out

    def weights(self, one: Tensor, other: Tensor, gradient: Tensor) -> Tensor:
        """The products of both (R, F), transposed, times the gradient (R, H), (U, H)."""
        out = one.new_zeros(sum(self.sizes.values()), gradient.shape[1])
        if self._compiled(gradient):
            self._call("pair_weights", one, other, gradient, *gradient.shape, out=[out])
        else:
            for rows in _rows(one):
                out.addmm_(self._products(one[rows], other[rows]).T, gradient[rows])
        return out

    def times_and_weights(self, one: Tensor, other: Tensor, weight: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """`times` and `weights` from products that are made once."""
        forms, weights = gradient.new_empty(gradient.shape), weight.new_zeros(weight.shape)
        if self._compiled(weight):
            self._call("pair_forms_and_weights", one, other, weight, gradient, *gradient.shape, out=[forms, weights])
        else:
            for rows in _rows(one):
                products = self._products(one[rows], other[rows])
                forms[rows] = products @ weight
                weights.addmm_(products.T, gradient[rows])
        return forms, weights

    def mixed(self, features: Tensor, slope: Tensor, weight: Tensor) -> Tensor:
        """Σ_hv s_h W_huv f_v: (R, F), (R, H), (U, H) -> (R, F)."""
        out = torch.empty_like(features)
        if self._compiled(weight):
            self._call("pair_mixed", features, slope, len(features), weight, weight.shape[1], out=[out])
        else:
            for rows in _rows(features):
                out[rows] = self._times(slope[rows] @ weight.T, features[rows])
        return out

    def _compiled(self, forms: Tensor) -> bool:
        return compiled(forms) and forms.shape[1] <= _FEW_FORMS

    def _call(self, name: str, *arguments: Tensor | int, out: list[Tensor]) -> None:
        require_alike(*out, *(each for each in arguments if isinstance(each, Tensor)))
        contiguous = (each.contiguous() if isinstance(each, Tensor) else each for each in arguments)
        kernel(name, out[0].dtype)(self._layout.plan, *contiguous, *out, torch.get_num_threads())

    def _products(self, one: Tensor, other: Tensor) -> Tensor:
        """<a_u, b_v> + <a_v, b_u> for u < v, <a_u, b_u>: (R, F), (R, F) -> (R, U)."""
        packed = []
        for a, b, count in zip(*map(self._layout.by_irrep, (one, other)), self._layout.groups.values(), strict=True):
            square = a.mT @ b
            rows, columns = torch.triu_indices(count, count, device=one.device)
            both = (square + square.mT).flatten(1).index_select(1, rows * count + columns)
            packed.append(torch.where(rows == columns, both / 2, both))
        return torch.cat(packed, dim=1)

    def _times(self, matrix: Tensor, features: Tensor) -> Tensor:
        """Σ_v M_uv f_v: M's upper triangles (R, U), (R, F) -> (R, F); the adjoint of the products."""
        packed = matrix.split(list(self.sizes.values()), dim=1)
        mixed = []
        for triangle, part, count in zip(
            packed, self._layout.by_irrep(features), self._layout.groups.values(), strict=True
        ):
            rows, columns = torch.triu_indices(count, count, device=features.device)
            place = rows.new_empty(count, count)
            place[rows, columns] = place[columns, rows] = torch.arange(len(rows), device=features.device)
            whole = triangle.index_select(1, place.flatten()).unflatten(1, (count, count))
            mixed.append(part @ whole)
        return self._layout.from_irreps(mixed)


class _Forms(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, pairs: ChannelPairs) -> Tensor:
        ctx.save_for_backward(features, weight)
        ctx.pairs = pairs
        return pairs.times(features, features, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        features, weight = ctx.saved_tensors
        of_features = 2 * ctx.pairs.mixed(features, gradient, weight)
        return of_features, ctx.pairs.weights(features, features, gradient), None


class _Gradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, slope: Tensor, weight: Tensor, pairs: ChannelPairs) -> Tensor:
        ctx.save_for_backward(features, slope, weight)
        ctx.pairs = pairs
        return 2 * pairs.mixed(features, slope, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        features, slope, weight = ctx.saved_tensors
        gradient = 2 * gradient
        of_features = ctx.pairs.mixed(gradient, slope, weight)
        return of_features, *ctx.pairs.times_and_weights(gradient, features, weight, slope), None


def _rows(features: Tensor) -> Iterator[slice]:
    step = _ROWS_OF_THREAD * torch.get_num_threads() if features.device.type == "cpu" else _ROWS_OF_GPU
    return (slice(first, first + step) for first in range(0, len(features), step))
