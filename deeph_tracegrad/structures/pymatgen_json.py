"""Structures as pymatgen keeps them in JSON.

Only what is needed is taken out: pymatgen's own reader imports the modules that a file names.
"""

from pathlib import Path

import numpy as np
from pymatgen.core import Structure

from deeph_tracegrad.deeph_info import read_json
from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.structures.checks import checked_lattice
from deeph_tracegrad.structures.labels import element_of


def read_pymatgen_json(path: Path) -> Structure:
    """Read a pymatgen Structure.

    Raises:
        ReadError: the file cannot be read, is no JSON, or no ordered structure.
    """
    content = read_json(path)
    try:
        cell = np.array(content["lattice"]["matrix"], dtype=float).reshape(3, 3)
        sites = [(site["species"], site["abc"], site.get("label")) for site in content["sites"]]
        positions = np.array([position for _, position, _ in sites], dtype=float).reshape(-1, 3)
        species = [[(str(kind["element"]), float(kind.get("occu", 1))) for kind in kinds] for kinds, _, _ in sites]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise ReadError(
            path, "is no structure as pymatgen writes it: an object with lattice.matrix and sites of species and abc"
        ) from None
    if any(len(kinds) != 1 or kinds[0][1] != 1 for kinds in species):
        raise ReadError(
            path, "has partly occupied sites, which have no one Hamiltonian; make an ordered structure of it"
        )
    elements = [element_of(name, path) for ((name, _),) in species]
    labels = [str(label or name) for ((name, _),), (_, _, label) in zip(species, sites, strict=True)]
    return Structure(checked_lattice(path, cell), elements, positions, labels=labels)
