"""Whether the two sides of `train_step.py` compute the same: same weights, then H, loss and gradients compared."""

from typing import NamedTuple

import torch
from _train_sides import Ours, Theirs
from torch import Tensor

from deeph_tracegrad.deeph_e3.conventions import E3NN_05
from deeph_tracegrad.deeph_e3.layers import parse_channels
from deeph_tracegrad.deeph_e3.weights import OfficialNetwork, our_weights

# Relative; rounding alone is far below
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}


class Agreement(NamedTuple):
    """Largest deviations of H and of the gradients, relative to the largest H and to each parameter's largest one."""

    hamiltonian: float
    gradients: float


def share_weights(theirs: Theirs, ours: Ours) -> None:
    """Give our network their weights."""
    ours.network.load_state_dict(_as_ours(theirs.network.state_dict(), theirs, ours))


def agreement(theirs: Theirs, ours: Ours) -> Agreement:
    """How far the sides differ, with the same weights."""
    with torch.no_grad():
        expected, found = theirs.elements(), ours.elements()
    deviation = (found - expected).abs().max() / expected.abs().max()
    theirs.loss().backward()
    ours.loss().backward()
    parameters = dict(theirs.network.named_parameters())
    gradients = {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for name, parameter in parameters.items()
    }
    ones = {name: torch.ones_like(parameter) for name, parameter in parameters.items()}
    # if our weights are y = c x, then ∂L/∂y = c ∂L/∂x / c²
    mapped, factors = _as_ours(gradients, theirs, ours), _as_ours(ones, theirs, ours)
    worst = 0.0
    for name, parameter in ours.network.named_parameters():
        reference = mapped[name] / factors[name] ** 2
        difference = (parameter.grad - reference).abs().max() / reference.abs().max()
        worst = max(worst, difference.item())
    theirs.optimizer.zero_grad()
    ours.optimizer.zero_grad()
    return Agreement(deviation.item(), worst)


def _as_ours(official: dict[str, Tensor], theirs: Theirs, ours: Ours) -> dict[str, Tensor]:
    """Tensors of their parameters' shapes as those of ours."""
    layout, settings = ours.network.layout, ours.network.settings
    channels = {name.removeprefix("irreps_"): parse_channels(irreps) for name, irreps in theirs.irreps.items()}
    network = OfficialNetwork(
        species=len(layout.basis),
        blocks=settings.blocks,
        harmonics_degree=settings.harmonics_degree,
        targets=layout.targets,
        **channels,
    )
    return our_weights(official, network, layout, E3NN_05)
