"""Gated non-linearity, scaled by radial weights; activations have unit second moment for normal input, as in e3nn.

Shape letters: R edges, F features of a row, C channels.
"""

import torch
from torch import Tensor, nn

from deeph_tracegrad.nn.layout import Irrep, Layout
from deeph_tracegrad.nn.linear import SCALAR

PSEUDOSCALAR = Irrep(0, natural=False)

# e3nn's estimates of E[activation(x)²]^-1/2, which DeepH-E3's published weights were trained with
SILU_SCALE = 1.6791767923989418
TANH_SCALE = 1.5937334472592695
SIGMOID_SCALE = 1.8467055342154763


class Gate(nn.Module):
    """Scalars go through SiLU, pseudoscalars through tanh, every other channel is multiplied by its gate's sigmoid.

    before: the layout that it needs: that of `after`, with one more scalar a gate behind the other scalars.
    """

    def __init__(self, after: Layout) -> None:
        super().__init__()
        self.after = after
        self.scalars = after.groups.get(SCALAR, 0)
        self.pseudoscalars = after.groups.get(PSEUDOSCALAR, 0)
        self.gated = after.channels - self.scalars - self.pseudoscalars
        self.before = Layout([*after.groups.items(), (SCALAR, self.gated)])

    def forward(self, features: Tensor, weights: Tensor) -> Tensor:
        """(R, F before), radial weights (R, C after) -> (R, F after)."""
        zero, *others = features.split(self.before.block_sizes, dim=1)
        scalars, gates, pseudoscalars, vectors = zero.split(
            [self.scalars, self.gated, self.pseudoscalars, self.gated], dim=1
        )
        ungated = self.scalars + self.pseudoscalars
        plain, factors = weights.split([ungated, self.gated], dim=1)
        factors = factors * torch.sigmoid(gates) * SIGMOID_SCALE
        activated = nn.functional.silu(scalars) * SILU_SCALE
        if self.pseudoscalars:
            activated = torch.cat([activated, torch.tanh(pseudoscalars) * TANH_SCALE], dim=1)
        blocks = [activated * plain, vectors * factors]
        for order, block in zip(self.after.orders[1:], others, strict=True):
            blocks.append(block * factors[:, self.after.first_channel(order) - ungated :])
        return torch.cat(blocks, dim=1)
