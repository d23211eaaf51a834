"""TraceGrad (arXiv 2405.05722): invariant features z under the supervision of traces, and v = ∂Σz/∂f for the others.

z is a perceptron of invariants q that are quadratic in f, so v needs no second backward pass: with s = ∂Σz/∂q, which
has a closed form, v is f times a symmetric matrix of channels for each irrep.

Shape letters: R edges, F features of a row, H width, T targets, U packed channel pairs.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from deeph_tracegrad.nn.layout import Layout
from deeph_tracegrad.nn.pairs import ChannelPairs
from deeph_tracegrad.nn.precision import full_precision

_NORM_EPSILON = 1e-6


class TraceGrad(nn.Module):
    """From edge features f to (z, f + v), in any frame: z is invariant and v turns with f.

    q_h = Σ_g Σ_uv W^g_uvh <f^g_u, f^g_v>, so that v^g_u = 2 Σ_v M^g_uv f^g_v with M^g = Σ_h W^g_h s_h. Only the
    symmetric part of W matters, and only it is stored.
    """

    def __init__(self, layout: Layout, width: int, targets: int) -> None:
        super().__init__()
        self.layout = layout
        self._pairs = ChannelPairs(layout)
        sizes = self._pairs.sizes
        # unit variance of q for normal features: each of U pairs of an irrep contributes (2l+1) terms
        scale = torch.cat(
            [torch.full((count, 1), (count * irrep.size * len(sizes)) ** -0.5) for irrep, count in sizes.items()]
        )
        self.quadratic = nn.Parameter(torch.randn(sum(sizes.values()), width) * scale)
        self.hidden = nn.Linear(width, width)
        self.hidden_norm = nn.LayerNorm(width, eps=_NORM_EPSILON)
        self.out = nn.Linear(width, targets)
        self.out_norm = nn.LayerNorm(targets, eps=_NORM_EPSILON)

    @full_precision
    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(R, F) -> z (R, T), f + v (R, F)."""
        z, slope = self._perceptron(self._pairs.forms(features, self.quadratic))
        return z, features + self._pairs.gradient(features, slope, self.quadratic)

    def _perceptron(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """(R, H) -> z (R, T), s = ∂Σz/∂q (R, H)."""
        hidden, through_hidden = _normed_silu(self.hidden(q), self.hidden_norm)
        z, through_out = _normed_silu(self.out(hidden), self.out_norm)
        slope = through_out(torch.ones_like(z)) @ self.out.weight
        return z, through_hidden(slope) @ self.hidden.weight


class TraceDecoder(nn.Module):
    """From the z of all blocks that have one to the labels of the targets."""

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
