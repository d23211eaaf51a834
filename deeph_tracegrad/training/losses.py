"""The loss: L = L_H + w · stopgrad(L_H / L_T) · L_T, as the TraceGrad authors train.

L_H is the mean squared error over all elements of H (eV²), or another mean over them (see `BlockLoss`); L_T the mean
absolute error of the trace labels (see `training.labels`). Both are kept as sums and counts, so that ranks and batches
add up to the exact means.

Shape letters: E edges, T targets.
"""

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from deeph_tracegrad.config import TrainingSettings
from deeph_tracegrad.errors import ConfigError
from deeph_tracegrad.graph import HamiltonianGraph
from deeph_tracegrad.nn.kernels.library import compiled
from deeph_tracegrad.nn.kernels.squares import weighted_squares
from deeph_tracegrad.nn.network import HamiltonianNetwork, Prediction
from deeph_tracegrad.nn.scaling import TargetScaling
from deeph_tracegrad.targets import TargetLayout

# What `error_sums` returns, in order.
NUM_SUMS = 5

# what rounds mae off at zero, where it has no gradient: 1 µeV
_ROUNDING = 1e-6


@dataclass(frozen=True)
class BlockLoss:
    """A loss of r, the root mean square error of a block, for each of its elements.

    mse: r²; mae: r; huber: 2δ (√(r² + δ²) - δ), which is r² far below δ and 2δ r far above (hyper surfaces in
    Charbonnier et al., IEEE Trans. Image Process. 6, 298 (1997)). scaling: in whose scales r is measured; None: in eV.
    """

    kind: str
    delta: float
    scaling: TargetScaling | None

    @classmethod
    def of(cls, settings: TrainingSettings, network: HamiltonianNetwork) -> Self | None:
        """That of a training; None for the plain mean square, which `error_sums` has anyway.

        Raises:
            ConfigError: its weights are scales that the network does not have.
        """
        scaling = network.hamiltonian.scaling if settings.block_weights == "norm" else None
        if settings.block_weights == "norm" and scaling is None:
            raise ConfigError(
                'training.block_weights = "norm" takes the scales of the blocks from the network; set '
                "model.target_scaling = true"
            )
        if settings.loss == "mse" and scaling is None:
            return None
        return cls(settings.loss, settings.huber_delta, scaling)

    def __call__(self, difference: Tensor, graph: HamiltonianGraph, layout: TargetLayout) -> Tensor:
        """Its sum over all elements of H, (), from a difference of coefficients, (E, D) eV."""
        squares = layout.traces(difference) / layout.target_sizes
        if self.scaling is not None:
            squares = squares / self.scaling.scales(graph).square()
        if self.kind == "mae":
            squares = _smooth(squares, _ROUNDING)
        elif self.kind == "huber":
            squares = 2 * self.delta * _smooth(squares, self.delta)
        return (squares * layout.target_sizes * layout.edge_mask(graph)).sum()


def _smooth(squares: Tensor, delta: float) -> Tensor:
    """√(r² + δ²) - δ from r²; written so that nothing cancels."""
    return squares / ((squares + delta**2).sqrt() + delta)


def error_sums(
    prediction: Prediction, graph: HamiltonianGraph, layout: TargetLayout, loss: BlockLoss | None = None
) -> Tensor:
    """(5,) float64: squared error of H in eV², elements of H, absolute error of trace labels, trace labels, loss of H.

    graph: with trace labels if the network predicts them. loss: if it is not the squared error.
    """
    coefficients = prediction.coefficients
    squared = _squared_error(coefficients if loss is None else coefficients.detach(), graph, layout)
    minimised = squared if loss is None else loss(coefficients - graph.target, graph, layout)
    mask = layout.edge_mask(graph)
    elements = (mask * layout.target_sizes).sum()
    deviation = labels = squared.new_zeros(())
    if prediction.traces is not None:
        # multiplied, not indexed: a GPU need not tell the host how many are true
        deviation = ((prediction.traces - graph.trace_labels).abs() * mask).sum()
        labels = mask.sum()
    return torch.stack([each.double() for each in (squared, elements, deviation, labels, minimised)])


def _squared_error(coefficients: Tensor, graph: HamiltonianGraph, layout: TargetLayout) -> Tensor:
    """|ΔH|² over all elements, () eV²."""
    weights = layout.square_weights(graph)
    if compiled(coefficients) and coefficients.dtype == graph.target.dtype:
        return weighted_squares(coefficients, graph.target, weights)
    return _WeightedSquares.apply(coefficients, graph.target, weights)


class _WeightedSquares(torch.autograd.Function):
    """Σ weight (prediction - target)²; written out, as autograd would go over these largest arrays twice as often."""

    @staticmethod
    def forward(ctx: Any, prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        difference = prediction - target
        weighted = difference * weight
        ctx.save_for_backward(weighted)
        return torch.dot(weighted.flatten(), difference.flatten())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (weighted,) = ctx.saved_tensors
        return weighted * (2 * gradient), None, None


def training_loss(own: Tensor, total: Tensor, trace_weight: float) -> Tensor:
    """The part of the loss that a rank's errors contribute; the ranks' parts sum to the loss of the whole batch.

    own: (5,) error sums of this rank, with gradient. total: (5,) of all ranks, without.
    """
    loss = own[4] / total[1]
    if trace_weight == 0.0:
        return loss
    hamiltonian, trace = total[4] / total[1], total[2] / total[3].clamp(min=1.0)
    # a trace error of exactly zero needs no gradient, and has none that is finite
    balance = torch.where(trace > 0, hamiltonian / trace, 0.0)
    return loss + trace_weight * balance * own[2] / total[3].clamp(min=1.0)
