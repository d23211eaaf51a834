"""The loss: L = L_H + w · stopgrad(L_H / L_T) · L_T, as the TraceGrad authors train.

L_H is the mean squared error over all elements of H (eV²); L_T the mean absolute error of the trace labels (see
`training.labels`). Both are kept as sums and counts, so that ranks and batches add up to the exact means.

Shape letters: E edges, T targets.
"""

from typing import Any

import torch
from torch import Tensor

from deeph_tracegrad.graph import HamiltonianGraph
from deeph_tracegrad.nn.kernels.library import compiled
from deeph_tracegrad.nn.kernels.squares import weighted_squares
from deeph_tracegrad.nn.network import Prediction
from deeph_tracegrad.targets import TargetLayout

# What `error_sums` returns, in order.
NUM_SUMS = 4


def error_sums(prediction: Prediction, graph: HamiltonianGraph, layout: TargetLayout) -> Tensor:
    """(4,) float64: squared error of H in eV², elements of H, absolute error of trace labels, trace labels.

    graph: with trace labels if the network predicts them.
    """
    mask = layout.edge_mask(graph)
    coefficients, weights = prediction.coefficients, layout.square_weights(graph)
    if compiled(coefficients) and coefficients.dtype == graph.target.dtype:
        squared = weighted_squares(coefficients, graph.target, weights)
    else:
        squared = _WeightedSquares.apply(coefficients, graph.target, weights)
    elements = (mask * layout.target_sizes).sum()
    deviation = labels = squared.new_zeros(())
    if prediction.traces is not None:
        # multiplied, not indexed: a GPU need not tell the host how many are true
        deviation = ((prediction.traces - graph.trace_labels).abs() * mask).sum()
        labels = mask.sum()
    return torch.stack([squared.double(), elements.double(), deviation.double(), labels.double()])


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

    own: (4,) error sums of this rank, with gradient. total: (4,) of all ranks, without.
    """
    loss = own[0] / total[1]
    if trace_weight == 0.0:
        return loss
    hamiltonian, trace = total[0] / total[1], total[2] / total[3].clamp(min=1.0)
    # a trace error of exactly zero needs no gradient, and has none that is finite
    balance = torch.where(trace > 0, hamiltonian / trace, 0.0)
    return loss + trace_weight * balance * own[2] / total[3].clamp(min=1.0)
