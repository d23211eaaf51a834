"""The compiled linear map between irreps, forward and backward.

Shape letters: R rows, F features of a row, Q kinds of rows, W weights of a kind.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from deeph_tracegrad.nn.arrangement import Members
from deeph_tracegrad.nn.kernels.library import kernel, require_alike
from deeph_tracegrad.nn.layout import Irrep, Layout


class LinearKernel:
    """A map between two layouts; scales: what the weights of each shared irrep are multiplied by."""

    def __init__(self, source: Layout, target: Layout, scales: dict[Irrep, float]) -> None:
        self.source, self.target = source, target
        plan = [
            source.dim,
            target.dim,
            sum(source.groups[irrep] * target.groups[irrep] for irrep in scales),
            len(scales),
        ]
        weights = 0
        for irrep in scales:
            rows, columns = source.groups[irrep], target.groups[irrep]
            plan += [irrep.size, rows, columns, weights, *source.places(irrep), *target.places(irrep)]
            weights += rows * columns
        self.plan = np.array(plan)
        self._scales = np.array(list(scales.values()))

    def scales(self, dtype: torch.dtype) -> np.ndarray:
        """One number for each shared irrep."""
        return self._scales.astype(np.float32 if dtype == torch.float32 else np.float64)

    def __call__(
        self, features: Tensor, weight: Tensor, bias: Tensor | None, members: Members | None, onto: Tensor | None
    ) -> Tensor:
        """(R, F_in), weight (Q, W) -> (R, F_out).

        bias: of the first features. onto: (R, F_out) that the result is added to, in place.
        """
        require_alike(features, weight, bias, onto)
        kinds = 1 if members is None else len(members.bounds) - 1
        if kinds != len(weight):
            raise ValueError(f"rows of {kinds} kinds, but weights of {len(weight)}")
        return _Linear.apply(features, weight, bias, onto, self, members)

    def apply(
        self,
        features: Tensor,
        weight: Tensor,
        members: Members | None,
        *,
        transposed: bool = False,
        bias: Tensor | None = None,
        onto: Tensor | None = None,
    ) -> Tensor:
        """The map, or its transpose from the target's layout to the source's; without gradients."""
        rows, dtype = len(features), features.dtype
        order, bounds = members or (None, np.array([0, rows], dtype=np.int64))
        out = features.new_empty(rows, (self.source if transposed else self.target).dim) if onto is None else onto
        scales = self.scales(dtype)
        kernel("linear_apply", dtype)(
            self.plan,
            scales,
            features,
            weight,
            order,
            len(bounds) - 1,
            bounds,
            transposed,
            bias,
            0 if bias is None else len(bias),
            onto is not None,
            out,
            torch.get_num_threads(),
        )
        return out

    def weight_gradient(self, features: Tensor, gradient: Tensor, weight: Tensor, members: Members | None) -> Tensor:
        """(Q, W) of inputs (R, F_in) and the gradient of the outputs (R, F_out)."""
        order, bounds = members or (None, np.array([0, len(features)], dtype=np.int64))
        scales = self.scales(features.dtype)
        # numpy takes zeroed memory from the system: kinds that no row is of then cost neither time nor memory
        result = torch.from_numpy(np.zeros(weight.shape, scales.dtype))
        kernel("linear_weights", features.dtype)(
            self.plan, scales, features, gradient, order, len(bounds) - 1, bounds, result, torch.get_num_threads()
        )
        return result


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        onto: Tensor | None,
        linear: LinearKernel,
        members: Members | None,
    ) -> Tensor:
        features = features.contiguous()
        ctx.save_for_backward(features, weight)
        ctx.linear, ctx.members, ctx.biased = linear, members, 0 if bias is None else len(bias)
        if onto is not None:
            ctx.mark_dirty(onto)
        return linear.apply(features, weight, members, bias=bias, onto=onto)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        features, weight = ctx.saved_tensors
        gradient = gradient.contiguous()
        feature_gradient = weight_gradient = None
        if ctx.needs_input_grad[0]:
            feature_gradient = ctx.linear.apply(gradient, weight, ctx.members, transposed=True)
        if ctx.needs_input_grad[1]:
            weight_gradient = ctx.linear.weight_gradient(features, gradient, weight, ctx.members)
        bias_gradient = gradient[:, : ctx.biased].sum(dim=0) if ctx.biased else None
        return (
            feature_gradient,
            weight_gradient,
            bias_gradient,
            gradient if ctx.needs_input_grad[3] else None,
            None,
            None,
        )
