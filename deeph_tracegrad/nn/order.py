"""The last layer's features in the order of the target coefficients.

Shape letters: R edges, D target coefficients, which are the features of the last layer.
"""

from typing import Any

import torch
from torch import Tensor, nn

from deeph_tracegrad.nn.kernels.library import compiled, kernel
from deeph_tracegrad.nn.layout import Irrep, Layout
from deeph_tracegrad.targets import TargetLayout


class TargetOrder(nn.Module):
    """From a layout with one channel for each irrep of the targets to the targets' own order, (R, D) -> (R, D)."""

    place: Tensor
    back: Tensor
    sign: Tensor

    def __init__(self, output: Layout, layout: TargetLayout) -> None:
        super().__init__()
        place, sign = _places(output, layout)
        self.register_buffer("place", place, persistent=False)
        self.register_buffer("back", torch.argsort(place), persistent=False)
        self.register_buffer("sign", sign, persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """(R, D) -> (R, D)."""
        return _Reordered.apply(features, self.place, self.back, self.sign.to(features))


class _Reordered(torch.autograd.Function):
    """The adjoint reorders too, and need not scatter."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, place: Tensor, back: Tensor, sign: Tensor) -> Tensor:
        ctx.save_for_backward(back, sign)
        return _columns(features, place, sign)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        back, sign = ctx.saved_tensors
        return _columns(gradient, back, sign[back]), None, None, None


def _columns(features: Tensor, place: Tensor, sign: Tensor) -> Tensor:
    """Column place[d] times sign[d] as column d."""
    if not compiled(features) or torch.is_grad_enabled():
        return features.index_select(1, place) * sign
    features = features.contiguous()
    out = torch.empty_like(features)
    rows, columns = features.shape
    kernel("columns", out.dtype)(features, place, sign, rows, columns, out, torch.get_num_threads())
    return out


def _places(output: Layout, layout: TargetLayout) -> tuple[Tensor, Tensor]:
    """Where each target coefficient stands in the network's output, and its sign: pseudo channels come turned."""
    place, sign = torch.empty(layout.dim, dtype=torch.int64), torch.ones(layout.dim)
    used: dict[Irrep, int] = {}
    for degree, parity, start in layout.irreps:
        irrep = Irrep.of(degree, parity)
        channel = used.get(irrep, 0)
        used[irrep] = channel + 1
        for order in range(-degree, degree + 1):
            here = start + degree + order
            # p_{+m} = p'_{-m} and p_{-m} = -p'_{+m}
            turned = not irrep.natural and order != 0
            place[here] = output.position(irrep, channel, -order if turned else order)
            sign[here] = -1.0 if turned and order < 0 else 1.0
    return place, sign
