"""Squared norms of channels, and channels times numbers: each component of a channel is treated alike.

Written out with their adjoints: autograd would pad the gradient of each block of a row to the whole row.

Shape letters: R rows, F features of a row, C channels.
"""

from typing import Any

import torch
from torch import Tensor

from deeph_tracegrad.nn.kernels.library import compiled, kernel
from deeph_tracegrad.nn.layout import Layout


def squared_norms(features: Tensor, layout: Layout) -> Tensor:
    """(R, F) -> (R, C), the sum of the squared components of each channel."""
    return _SquaredNorms.apply(features, layout)


def mixed_in(features: Tensor, factors: Tensor, layout: Layout) -> Tensor:
    """Each channel f becomes f + factor f: (R, F), (R, C) -> (R, F)."""
    return _MixedIn.apply(features, factors, layout)


class _SquaredNorms(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, layout: Layout) -> Tensor:
        features = features.contiguous()
        ctx.save_for_backward(features)
        ctx.layout = layout
        return _products(features, features, layout)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (features,) = ctx.saved_tensors
        return _scaled(features, 2 * gradient.contiguous(), 0, ctx.layout), None


class _MixedIn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, factors: Tensor, layout: Layout) -> Tensor:
        features, factors = features.contiguous(), factors.contiguous()
        ctx.save_for_backward(features, factors)
        ctx.layout = layout
        return _scaled(features, factors, 1, layout)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        features, factors = ctx.saved_tensors
        gradient = gradient.contiguous()
        return _scaled(gradient, factors, 1, ctx.layout), _products(gradient, features, ctx.layout), None


def _products(one: Tensor, other: Tensor, layout: Layout) -> Tensor:
    """The sum over the components of each channel of one times other: (R, F), (R, F) -> (R, C)."""
    if _outside_graphs(one):
        out = one.new_empty(len(one), layout.channels)
        kernel("channel_products", one.dtype)(layout.plan, one, other, len(one), out, torch.get_num_threads())
        return out
    total, *others = (one * other).split(layout.block_sizes, dim=1)
    total = total.clone()
    for block in others:
        total[:, layout.channels - block.shape[1] :] += block
    return total


def _scaled(features: Tensor, factors: Tensor, offset: int, layout: Layout) -> Tensor:
    """Each channel times offset + factor: (R, F), (R, C) -> (R, F)."""
    if _outside_graphs(features):
        out = torch.empty_like(features)
        threads = torch.get_num_threads()
        kernel("channel_scaled", out.dtype)(layout.plan, features, factors, offset, len(out), out, threads)
        return out
    factors = factors + offset
    return features * torch.cat([factors[:, layout.channels - size :] for size in layout.block_sizes], dim=1)


def _outside_graphs(like: Tensor) -> bool:
    """Whether a compiled kernel can do it: with gradients of gradients, autograd follows what happens here."""
    return compiled(like) and not torch.is_grad_enabled()
