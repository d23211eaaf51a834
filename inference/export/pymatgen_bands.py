"""Band structures as pymatgen's BandStructureSymmLine, for the programs that build on it (sumo, atomate, ...).

Shape letters: K k-points, n bands.
"""

import json
from pathlib import Path

from pymatgen.core.lattice import Lattice
from pymatgen.electronic_structure.bandstructure import BandStructureSymmLine
from pymatgen.electronic_structure.core import Spin

from deeph_tracegrad.atomic import atomic_path
from deeph_tracegrad.inference.bands import BandStructure


def to_pymatgen(bands: BandStructure) -> BandStructureSymmLine:
    """The bands that are known at all k-points; energies as they are, and pymatgen's own name for Γ."""
    complete, path = bands.complete, bands.path
    labels = {
        label.replace("Γ", r"\Gamma"): corner
        for names, corners in zip(path.labels, path.corners, strict=True)
        for label, corner in zip(names, corners, strict=True)
    }
    return BandStructureSymmLine(
        path.k,
        {spin: channel.T for spin, channel in zip((Spin.up, Spin.down), complete.energies, strict=False)},
        Lattice(path.reciprocal),
        bands.fermi.level,
        labels,
    )


def write_pymatgen(file: Path, bands: BandStructure) -> None:
    """JSON that `BandStructureSymmLine.from_dict(json.load(...))` reads."""
    with atomic_path(file) as temporary:
        temporary.write_text(json.dumps(to_pymatgen(bands).as_dict()), encoding="utf-8")
