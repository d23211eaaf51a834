"""Which structures are the same, whatever the order of their atoms and the periodic images in which these stand.

A few numbers are compared first, so that the time grows linearly with the number of structures.

Shape letters: N atoms, G structures.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from pymatgen.core import Element
from scipy.spatial import cKDTree

from deeph_tracegrad.preprocess.figures import Figures
from deeph_tracegrad.structures.checks import heights

TOLERANCE = 1e-3  # Å that an atom may be off; in a step of molecular dynamics it moves several times that


def duplicates(structures: Sequence[Figures]) -> Iterator[tuple[int, int]]:
    """The places of each structure that is the same as an earlier one, and of that.

    Turned and mirrored cells are the same; other choices of lattice vectors and of the origin are not found.
    """
    groups: dict[str, list[int]] = {}
    for place, structure in enumerate(structures):
        groups.setdefault(structure.formula, []).append(place)
    for members in groups.values():
        fingerprints = np.array([fingerprint(structures[place]) for place in members])
        tree = cKDTree(fingerprints)
        originals: dict[int, int] = {}
        for number, place in enumerate(members):
            if place in originals:
                continue
            for other in tree.query_ball_point(fingerprints[number], 2 * TOLERANCE, p=np.inf):
                later = members[other]
                if later > place and later not in originals and same(structures[place], structures[later]):
                    originals[later] = place
        yield from sorted(originals.items())


def fingerprint(structure: Figures) -> np.ndarray:
    """Twelve lengths that do not depend on the order of the atoms nor on their images, (12,) Å.

    Six fix the lattice. The others are the structure factors of the three reciprocal vectors, atoms weighted by their
    nuclear charge, in units that let them move by no more than the atoms do.
    """
    cell = structure.cell
    edges = np.concatenate([cell, cell + np.roll(cell, 1, axis=0)])
    charges = np.array([Element(element).Z for element in structure.elements])
    factors = charges / charges.sum() @ np.exp(2j * np.pi * structure.fractional) * heights(cell) / (2 * np.pi)
    return np.concatenate([np.linalg.norm(edges, axis=1), factors.real, factors.imag])


def same(one: Figures, other: Figures) -> bool:
    """Whether each atom of one structure has its own of the same element in the other, within TOLERANCE."""
    wrapped = other.fractional - np.floor(other.fractional)
    wrapped[wrapped >= 1] = 0.0  # of -1e-17
    partner = cKDTree(wrapped, boxsize=1.0).query(one.fractional)[1]
    if len(np.unique(partner)) < len(partner):
        return False
    if any(element != other.elements[place] for element, place in zip(one.elements, partner, strict=True)):
        return False
    shift = one.fractional - other.fractional[partner]
    return bool((np.linalg.norm((shift - np.round(shift)) @ one.cell, axis=1) <= TOLERANCE).all())
