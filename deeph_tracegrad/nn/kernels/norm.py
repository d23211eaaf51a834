"""The compiled layer norm over whole graphs, forward and backward.

Shape letters: R rows, G graphs, F features of a row, C channels, M components (2l+1 of each irrep), S scalar irreps.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from deeph_tracegrad.nn.kernels.library import Argument, kernel, require_alike
from deeph_tracegrad.nn.layout import Layout

if TYPE_CHECKING:
    from deeph_tracegrad.nn.norm import Rows


class NormKernel:
    """The norm of one layout; epsilon: added to the size of scalars."""

    def __init__(self, layout: Layout, epsilon: float) -> None:
        self.plan = layout.plan
        self.epsilon = np.array([epsilon])
        self.components = sum(irrep.size for irrep in layout.groups)
        self.scalars = sum(irrep.degree == 0 for irrep in layout.groups)

    def __call__(self, features: Tensor, weight: Tensor, bias: Tensor, skip: Tensor, rows: "Rows") -> Tensor:
        """(R, F), weight (C,), bias, skip (R, F) -> norm + skip, (R, F)."""
        require_alike(features, weight, bias, skip)
        return _Norm.apply(features, weight, bias, skip, self, rows)

    def where(self, rows: "Rows") -> tuple[Argument, ...]:
        """What all stages are told first."""
        addresses = None if rows.rotations is None else rows.rotations.addresses
        return self.plan, addresses, rows.graph_of, len(rows.graph_of), len(rows.counts), torch.get_num_threads()


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, skip: Tensor, norm: NormKernel, rows: "Rows"
    ) -> Tensor:
        features, skip = features.contiguous(), skip.contiguous()
        dtype, counts, where = features.dtype, rows.counts, norm.where(rows)
        means = counts.new_empty(len(counts), norm.components)
        kernel("norm_means", dtype)(*where, features, means)
        means = rows.total(means) / counts[:, None]
        squares = counts.new_empty(len(counts), norm.scalars)
        kernel("norm_squares", dtype)(*where, features, means, squares)
        sizes = (rows.total(squares) / counts[:, None]).sqrt() + norm.epsilon.item()
        out = torch.empty_like(features)
        kernel("norm_forward", dtype)(*where, features, weight, bias, len(bias), skip, means, sizes, out)
        ctx.save_for_backward(features, weight, bias, means, sizes)
        ctx.norm, ctx.rows = norm, rows  # the turns themselves: their addresses alone would not keep them in memory
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, bias, means, sizes = ctx.saved_tensors
        norm, rows, dtype = ctx.norm, ctx.rows, features.dtype
        gradient, where = gradient.contiguous(), norm.where(rows)
        feature_gradient, weight_gradient, bias_gradient = map(torch.empty_like, (features, weight, bias))
        sums = means.new_empty(len(means), norm.components + norm.scalars)
        known = (means, sizes, gradient)
        kernel("norm_gradients", dtype)(
            *where, features, weight, len(bias), *known, sums, weight_gradient, bias_gradient
        )
        kernel("norm_backward", dtype)(
            *where, features, weight, *known, rows.counts, rows.total(sums), norm.epsilon, feature_gradient
        )
        return feature_gradient, weight_gradient, bias_gradient, gradient, None, None
