"""How far two band structures lie apart.

Shape letters: K k-points, n bands, s spin channels.
"""

from dataclasses import dataclass

import numpy as np

from deeph_tracegrad.inference.bands import BandStructure


@dataclass(frozen=True)
class BandDifference:
    """How far two band structures lie apart over some states, eV.

    shift: mean of E - E_reference. The `shifted` figures are those that remain without it.
    """

    states: int
    mean: float
    largest: float
    shift: float
    mean_shifted: float
    largest_shifted: float


def band_difference(
    bands: BandStructure, reference: BandStructure, window: tuple[float, float]
) -> BandDifference | None:
    """How far bands lie from those of a reference at the same k-points.

    Counted are the states of the reference in a window (eV) around its Fermi level; None where none are shared.
    """
    start = max(bands.first_band, reference.first_band)
    ours = bands.energies[:, :, start - bands.first_band :]
    theirs = reference.energies[:, :, start - reference.first_band :]
    shared = min(ours.shape[2], theirs.shape[2])
    ours, theirs = ours[:, :, :shared], theirs[:, :, :shared]
    relative = theirs - reference.fermi.level
    counted = (relative >= window[0]) & (relative <= window[1]) & ~np.isnan(ours)  # NaN is in no window
    if not counted.any():
        return None
    difference = (ours - theirs)[counted]
    shift = float(difference.mean())
    error, shifted = np.abs(difference), np.abs(difference - shift)
    return BandDifference(
        len(difference), float(error.mean()), float(error.max()), shift, float(shifted.mean()), float(shifted.max())
    )
