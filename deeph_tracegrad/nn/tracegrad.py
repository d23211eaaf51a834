"""TraceGrad (arXiv 2405.05722): invariant features z under the supervision of traces, and v = ∂Σz/∂f for the others.

z is a perceptron of quadratic invariants q_h = Σ_g Σ_uv W^g_uvh <f^g_u, f^g_v>, so v needs no second backward pass:
v^g_u = 2 Σ_v M^g_uv f^g_v with M^g = Σ_h W^g_h s_h and s = ∂Σz/∂q, which has a closed form. Only the symmetric part of
W matters, and only it is stored.

Shape letters: R edges, F features of a row, c channels of one irrep, H width, T targets, U packed channel pairs.
"""

from typing import Any

import torch
from torch import Tensor, nn

from deeph_tracegrad.nn.layout import Layout

_NORM_EPSILON = 1e-6


class TraceGrad(nn.Module):
    """From edge features f to (z, v); in any frame, as z is invariant and v turns with f."""

    def __init__(self, layout: Layout, width: int, targets: int) -> None:
        super().__init__()
        self.layout = layout
        self._sizes = [count * (count + 1) // 2 for count in layout.groups.values()]
        # unit variance of q for normal features: each of U pairs of an irrep contributes (2l+1) terms
        scales = [(size * irrep.size) ** -0.5 for size, irrep in zip(self._sizes, layout.groups, strict=True)]
        scale = torch.cat([torch.full((size, 1), x) for size, x in zip(self._sizes, scales, strict=True)])
        self.quadratic = nn.Parameter(torch.randn(sum(self._sizes), width) * scale / len(self._sizes) ** 0.5)
        self.hidden = nn.Linear(width, width)
        self.hidden_norm = nn.LayerNorm(width, eps=_NORM_EPSILON)
        self.out = nn.Linear(width, targets)
        self.out_norm = nn.LayerNorm(targets, eps=_NORM_EPSILON)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(R, F) -> z (R, T), v (R, F)."""
        parts = self.layout.by_irrep(features)
        q = torch.cat([_Pack.apply(part.mT @ part) for part in parts], dim=1) @ self.quadratic
        first = self.hidden_norm(hidden := self.hidden(q))
        second = self.out_norm(out := self.out(nn.functional.silu(first)))
        z = nn.functional.silu(second)
        # back from z to q: the transposed Jacobian of each step applied to ones
        slope = _norm_transposed(_silu_slope(second), out, self.out_norm) @ self.out.weight
        slope = _norm_transposed(slope * _silu_slope(first), hidden, self.hidden_norm) @ self.hidden.weight
        mixing = (slope @ self.quadratic.T).split(self._sizes, dim=1)
        v = [2 * part @ _Unpack.apply(m, part.shape[2]) for part, m in zip(parts, mixing, strict=True)]
        return z, self.layout.from_irreps(v)


class TraceDecoder(nn.Module):
    """From the z of all blocks to the (normalised) traces of the targets."""

    def __init__(self, inputs: int, width: int, targets: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(inputs, width),
            nn.LayerNorm(width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.LayerNorm(width),
            nn.SiLU(),
            nn.Linear(width, targets),
        )

    def forward(self, z: Tensor) -> Tensor:
        """(R, blocks · T) -> (R, T)."""
        return self.layers(z)


class _Pack(torch.autograd.Function):
    """Upper triangle of symmetric (R, c, c), (R, U); off the diagonal both halves count.

    Packing and unpacking are each other's adjoint on symmetric matrices, so neither needs to scatter.
    """

    @staticmethod
    def forward(ctx: Any, symmetric: Tensor) -> Tensor:
        ctx.channels = symmetric.shape[1]
        place, factor = _triangle(ctx.channels, symmetric)
        return symmetric.flatten(1).index_select(1, place) * factor

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Unpack.apply(gradient, ctx.channels)


class _Unpack(torch.autograd.Function):
    """The symmetric matrix with this upper triangle, (R, c, c)."""

    @staticmethod
    def forward(ctx: Any, packed: Tensor, channels: int) -> Tensor:  # noqa: ARG004
        rows, columns = torch.triu_indices(channels, channels, device=packed.device)
        place = rows.new_empty(channels, channels)
        place[rows, columns] = place[columns, rows] = torch.arange(len(rows), device=packed.device)
        return packed.index_select(1, place.flatten()).unflatten(1, (channels, channels))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ARG004
        return _Pack.apply((gradient + gradient.mT) / 2), None


def _triangle(channels: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Flat places of the upper triangle, and how often each entry occurs in the whole."""
    rows, columns = torch.triu_indices(channels, channels, device=like.device)
    return rows * channels + columns, torch.where(rows == columns, 1.0, 2.0).to(like)


def _silu_slope(x: Tensor) -> Tensor:
    sigmoid = torch.sigmoid(x)
    return sigmoid * (1 + x * (1 - sigmoid))


def _norm_transposed(gradient: Tensor, x: Tensor, norm: nn.LayerNorm) -> Tensor:
    """The transposed Jacobian of a layer norm at x applied to a gradient."""
    variance, mean = torch.var_mean(x, dim=1, correction=0, keepdim=True)
    inverse = torch.rsqrt(variance + norm.eps)
    normed = (x - mean) * inverse
    scaled = gradient * norm.weight
    return inverse * (scaled - scaled.mean(dim=1, keepdim=True) - normed * (scaled * normed).mean(dim=1, keepdim=True))
