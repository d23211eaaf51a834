"""The compiled layer norm over whole graphs, forward and backward.

Shape letters: R rows, G graphs, F features of a row, C channels, M components (2l+1 of each irrep).
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from deeph_tracegrad.nn.kernels.library import kernel, require_alike
from deeph_tracegrad.nn.layout import Layout

if TYPE_CHECKING:
    from deeph_tracegrad.nn.rotations import EdgeRotations


class NormKernel:
    """The norm of one layout; epsilon: added to the size of scalars."""

    def __init__(self, layout: Layout, epsilon: float) -> None:
        self.plan = layout.plan
        self.epsilon = np.array([epsilon])
        self.components = sum(irrep.size for irrep in layout.groups)
        self.groups = len(layout.groups)

    def __call__(
        self,
        features: Tensor,
        weight: Tensor,
        bias: Tensor,
        skip: Tensor,
        rows: tuple[Tensor, int, "EdgeRotations | None"],
    ) -> Tensor:
        """(R, F), weight (C,), bias, skip (R, F) -> norm + skip, (R, F).

        rows: the graph of each row (R,), G, and the rows' turns; none for atoms.
        """
        require_alike(features, weight, bias, skip)
        return _Norm.apply(features, weight, bias, skip, self, rows)


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor,
        skip: Tensor,
        norm: NormKernel,
        rows: tuple[Tensor, int, "EdgeRotations | None"],
    ) -> Tensor:
        features, skip = features.contiguous(), skip.contiguous()
        graph_of, graphs, rotations = rows
        means = torch.empty(graphs, norm.components, dtype=torch.float64)
        sizes = torch.empty(graphs, norm.groups, dtype=torch.float64)
        out = torch.empty_like(features)
        addresses = None if rotations is None else rotations.addresses
        where = (norm.plan, addresses, graph_of, len(features), graphs, norm.epsilon, torch.get_num_threads())
        kernel("norm_forward", features.dtype)(*where, features, weight, bias, len(bias), skip, out, means, sizes)
        ctx.save_for_backward(features, weight, bias, means, sizes)
        ctx.norm, ctx.rows = norm, rows  # the turns themselves: their addresses alone would not keep them in memory
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, bias, means, sizes = ctx.saved_tensors
        graph_of, graphs, rotations = ctx.rows
        gradient = gradient.contiguous()
        feature_gradient, weight_gradient, bias_gradient = map(torch.empty_like, (features, weight, bias))
        addresses = None if rotations is None else rotations.addresses
        where = (ctx.norm.plan, addresses, graph_of, len(features), graphs, ctx.norm.epsilon, torch.get_num_threads())
        results = (feature_gradient, weight_gradient, bias_gradient)
        kernel("norm_backward", features.dtype)(*where, features, weight, len(bias), means, sizes, gradient, *results)
        return feature_gradient, weight_gradient, bias_gradient, gradient, None, None
