"""TraceGrad (arXiv 2405.05722): invariant features z under the supervision of traces, and v = ∂Σz/∂f for the others.

z is a perceptron of invariants q that are quadratic in f, so v needs no second backward pass: with s = ∂Σz/∂q, which
has a closed form, v is f times a symmetric matrix of channels for each irrep.

Shape letters: R edges, F features of a row, C channels, c channels of one irrep, Q invariants, H width, T targets,
U packed channel pairs.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from deeph_tracegrad.nn.channels import mixed_in, squared_norms
from deeph_tracegrad.nn.layout import Layout

_NORM_EPSILON = 1e-6


class TraceGrad(nn.Module):
    """From edge features f to (z, f + v), in any frame: z is invariant and v turns with f. The forms differ in q."""

    def __init__(self, layout: Layout, invariants: int, width: int, targets: int) -> None:
        super().__init__()
        self.layout = layout
        self.hidden = nn.Linear(invariants, width)
        self.hidden_norm = nn.LayerNorm(width, eps=_NORM_EPSILON)
        self.out = nn.Linear(width, targets)
        self.out_norm = nn.LayerNorm(targets, eps=_NORM_EPSILON)

    def perceptron(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """(R, Q) -> z (R, T), s = ∂Σz/∂q (R, Q)."""
        hidden, through_hidden = _normed_silu(self.hidden(q), self.hidden_norm)
        z, through_out = _normed_silu(self.out(hidden), self.out_norm)
        slope = through_out(torch.ones_like(z)) @ self.out.weight
        return z, through_hidden(slope) @ self.hidden.weight


class PaperTraceGrad(TraceGrad):
    """Every quadratic invariant: q_h = Σ_g Σ_uv W^g_uvh <f^g_u, f^g_v>.

    v^g_u = 2 Σ_v M^g_uv f^g_v with M^g = Σ_h W^g_h s_h. Only the symmetric part of W matters, and only it is stored.
    """

    def __init__(self, layout: Layout, width: int, targets: int) -> None:
        super().__init__(layout, width, width, targets)
        self._sizes = [count * (count + 1) // 2 for count in layout.groups.values()]
        # unit variance of q for normal features: each of U pairs of an irrep contributes (2l+1) terms
        scales = [(size * irrep.size) ** -0.5 for size, irrep in zip(self._sizes, layout.groups, strict=True)]
        scale = torch.cat([torch.full((size, 1), x) for size, x in zip(self._sizes, scales, strict=True)])
        self.quadratic = nn.Parameter(torch.randn(sum(self._sizes), width) * scale / len(self._sizes) ** 0.5)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(R, F) -> z (R, T), f + v (R, F)."""
        parts = self.layout.by_irrep(features)
        z, slope = self.perceptron(torch.cat([_Pack.apply(part.mT @ part) for part in parts], dim=1) @ self.quadratic)
        mixing = (slope @ self.quadratic.T).split(self._sizes, dim=1)
        v = [2 * part @ _Unpack.apply(m, part.shape[2]) for part, m in zip(parts, mixing, strict=True)]
        return z, features + self.layout.from_irreps(v)


class CompactTraceGrad(TraceGrad):
    """One quadratic invariant a channel: q_u = |f_u|² / (2l+1), so that v_u = 2 s_u f_u / (2l+1)."""

    scale: Tensor

    def __init__(self, layout: Layout, width: int, targets: int) -> None:
        super().__init__(layout, layout.channels, width, targets)
        scale = torch.cat([torch.full((count,), 1 / irrep.size) for irrep, count in layout.groups.items()])
        self.register_buffer("scale", scale, persistent=False)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(R, F) -> z (R, T), f + v (R, F)."""
        z, slope = self.perceptron(squared_norms(features, self.layout) * self.scale)
        return z, mixed_in(features, 2 * slope * self.scale, self.layout)


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


def _normed_silu(x: Tensor, norm: nn.LayerNorm) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """SiLU of a layer norm of x, and its transposed Jacobian as a function; in the operations that autograd fuses."""
    shape = norm.normalized_shape
    normed, mean, inverse = torch.native_layer_norm(x, shape, norm.weight, norm.bias, norm.eps)
    sigmoid = torch.sigmoid(normed)
    value = normed * sigmoid
    slope = torch.addcmul(sigmoid + value, value, sigmoid, value=-1)

    def transposed(gradient: Tensor) -> Tensor:
        saved = (x, shape, mean, inverse, norm.weight, norm.bias)
        wanted = [True, False, False]  # of x alone
        return torch.ops.aten.native_layer_norm_backward(gradient * slope, *saved, wanted)[0]

    return value, transposed
