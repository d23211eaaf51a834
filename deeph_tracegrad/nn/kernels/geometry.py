"""The compiled functions of the atoms' places: turns into the edges' frames, Gaussians of the edges' lengths.

Shape letters: R edges.
"""

import numpy as np
import torch
from torch import Tensor

from deeph_tracegrad.frames import half_turn
from deeph_tracegrad.nn.kernels.library import kernel


def turns(degree: int, frames: Tensor, dtype: torch.dtype, natural: bool, pseudo: bool) -> list[Tensor | None]:
    """Turns of natural and pseudo irreps into frames, (R, 3, 3) float64: each (R, 2l+1, 2l+1), None if not wanted."""
    size = 2 * degree + 1
    wanted = [torch.empty(len(frames), size, size, dtype=dtype) if want else None for want in (natural, pseudo)]
    kernel("turns", dtype)(frames, len(frames), degree, half_turn(degree), *wanted)
    return wanted


def gaussians(length: Tensor, centres: Tensor, width: float) -> Tensor:
    """exp(-((length - centre) / width)² / 2): (R,), (count,) -> (R, count)."""
    out = length.new_empty(len(length), len(centres))
    kernel("gaussians", length.dtype)(length, len(length), centres, len(centres), np.array([width]), out)
    return out
