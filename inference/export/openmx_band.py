"""Band structures as OpenMX writes them, in a file NAME.Band.

The format has neither gaps nor a first band: written are the bands that were computed at every k-point, as if they were
the lowest.

Shape letters: K k-points, n bands, s spin channels.
"""

from pathlib import Path

import numpy as np

from deeph_tracegrad.atomic import atomic_path
from deeph_tracegrad.inference.bands import BandStructure
from deeph_tracegrad.orbitals import SpinMode
from deeph_tracegrad.units import OPENMX_BOHR_ANGSTROM, OPENMX_HARTREE_EV

SPIN_SWITCH = {SpinMode.NONE: 0, SpinMode.COLLINEAR: 1, SpinMode.NONCOLLINEAR: 3}


def write_openmx_band(file: Path, bands: BandStructure) -> None:
    """Write the bands that are known at all k-points, energies in Hartree with 15 digits after the point."""
    energies = bands.complete.energies / OPENMX_HARTREE_EV
    path, count = bands.path, energies.shape[2]
    lines = [
        f"{count} {SPIN_SWITCH[bands.spin]} {bands.fermi.level / OPENMX_HARTREE_EV:.15f}",
        _numbers(path.reciprocal.ravel() * OPENMX_BOHR_ANGSTROM),
        str(len(path.counts)),
    ]
    for points, corners, labels in zip(path.counts, path.corners, path.labels, strict=True):
        names = " ".join(label.replace("Γ", "G").replace(" ", "_") for label in labels)
        lines.append(f"{points} {_numbers(corners[0])} {_numbers(corners[1])} {names}")
    for k, channels in zip(path.k, energies.swapaxes(0, 1), strict=True):
        for spectrum in channels:
            lines += [f"{count} {_numbers(k)}", _numbers(spectrum)]
    with atomic_path(file) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _numbers(values: np.ndarray) -> str:
    return " ".join(f"{value:.15f}" for value in values)
