"""What TraceGrad's decoder is taught: an invariant of each target's block of H, as a label of order one.

With σ the singular values of a block, the signals are the sums Σ σ^p, p = 2 being the paper's trace tr(H H†).
"""

import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from deeph_tracegrad.config import TraceGradSettings
from deeph_tracegrad.targets import TargetLayout

_POWERS = {"nuclear": 1, "trace": 2, "trace_square": 4}
_HARTREE = 27.211386  # eV
_SMALLEST = 1e-3  # eV


def trace_labels(target: Tensor, layout: TargetLayout, settings: TraceGradSettings) -> Tensor:
    """The labels of coefficients of H, (E, D) eV -> (E, T); zero for targets that an edge lacks, unless normalised.

    log: log10(1 + Σ σ^p / meV^p) / p, the decades of (Σ σ^p)^(1/p) above 1 meV, with a smooth end where there are none.
    """
    power = _POWERS[settings.signal]
    signal = layout.singular_sums(target, power)
    if settings.labels == "raw":
        return signal / _HARTREE**power
    if settings.labels == "log":
        return torch.log10(1 + signal / _SMALLEST**power) / power
    return layer_norm(signal, (layout.num_targets,))
