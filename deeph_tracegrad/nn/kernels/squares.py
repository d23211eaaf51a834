"""The compiled sum of weighted squares of differences, and its gradient.

Shape letters: R rows, C columns.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from deeph_tracegrad.nn.kernels.library import Argument, kernel, require_alike


def weighted_squares(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Σ weight (prediction - target)²: (R, C), (R, C), (R, C) or (1, C) -> ()."""
    require_alike(prediction, target, weight)
    return _WeightedSquares.apply(prediction, target, weight)


class _WeightedSquares(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        inputs = (prediction.contiguous(), target.contiguous(), weight.contiguous())
        ctx.save_for_backward(*inputs)
        total = prediction.new_empty(())
        kernel("squares_forward", total.dtype)(*_arguments(*inputs), total, torch.get_num_threads())
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        inputs = ctx.saved_tensors
        out = torch.empty_like(inputs[0])
        kernel("squares_backward", out.dtype)(*_arguments(*inputs), 2 * gradient, out, torch.get_num_threads())
        return out, None, None


def _arguments(prediction: Tensor, target: Tensor, weight: Tensor) -> tuple[Argument, ...]:
    rows, columns = prediction.shape
    return prediction, target, weight, rows, columns, columns if len(weight) == rows else 0
