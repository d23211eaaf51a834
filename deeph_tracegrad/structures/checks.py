"""What a structure must be for a calculation of it to be possible, whichever file it is from.

Shape letters: N atoms.
"""

from pathlib import Path

import numpy as np
from pymatgen.core import Lattice, Structure
from scipy.spatial import KDTree

from deeph_tracegrad.errors import ReadError

LONGEST_VECTOR = 1e5  # Å
THINNEST_CELL = 0.5  # Å between opposite faces
FARTHEST_ATOM = 1e4  # lattice vectors from the origin
CLOSEST_ATOMS = 0.3  # Å


def checked_lattice(path: Path, vectors: np.ndarray) -> Lattice:
    """The lattice of three vectors, (3, 3) rows in Å.

    Raises:
        ReadError: they are none, span no volume, or are out of all proportion.
    """
    if vectors.shape != (3, 3) or not (np.abs(vectors) < LONGEST_VECTOR).all():
        raise ReadError(path, f"should have three lattice vectors of less than {LONGEST_VECTOR:g} Å")
    if np.abs(vectors).max(axis=1).min() == 0:
        raise ReadError(path, "has no full cell; for a molecule or a layer, give a box with empty space around it")
    if heights(vectors).min() < THINNEST_CELL:
        raise ReadError(path, f"its cell is less than {THINNEST_CELL} Å thin; are the lattice vectors in Å?")
    return Lattice(vectors)


def heights(cell: np.ndarray) -> np.ndarray:
    """Distances between opposite faces of a cell, (3,) Å."""
    areas = np.linalg.norm(np.cross(cell[[1, 2, 0]], cell[[2, 0, 1]]), axis=1)
    return abs(np.linalg.det(cell)) / np.maximum(areas, np.finfo(float).tiny)


def require_possible(path: Path, structure: Structure) -> None:
    """Check the cell and the atoms.

    Raises:
        ReadError: it holds no atoms, an impossible cell, coordinates out of range, or two atoms in one place.
    """
    if len(structure) == 0:
        raise ReadError(path, "holds no atoms")
    cell, positions = structure.lattice.matrix, structure.frac_coords
    checked_lattice(path, cell)
    if not (np.abs(positions) < FARTHEST_ATOM).all():
        raise ReadError(path, "an atom is nowhere near the cell, or its coordinates are no finite numbers")
    pair = _too_close(positions, cell)
    if pair is not None:
        first, second, distance = pair
        raise ReadError(
            path,
            f"the atoms {first + 1} ({structure[first].label}) and {second + 1} ({structure[second].label}) are "
            f"{distance:.3f} Å apart; remove one, or check the units",
        )


def _too_close(positions: np.ndarray, cell: np.ndarray) -> tuple[int, int, float] | None:
    """Two atoms, counted from 0, nearer to each other than CLOSEST_ATOMS, and their distance; None if there are none.

    positions: (N, 3) in lattice vectors. cell: (3, 3) rows, Å.
    """
    places = positions - np.floor(positions)
    atoms = np.arange(len(places))
    for axis, height in enumerate(heights(cell)):  # what lies at a lower face again beyond the upper one
        near = places[:, axis] < CLOSEST_ATOMS / height
        places = np.concatenate([places, places[near] + np.eye(3)[axis]])
        atoms = np.concatenate([atoms, atoms[near]])
    cartesian = places @ cell
    # whatever shares a box of this edge is too close; a tree of many in one place would take forever
    boxes = np.floor(cartesian * (np.sqrt(3) / CLOSEST_ATOMS))
    _, first, box = np.unique(boxes, axis=0, return_index=True, return_inverse=True)
    partner = first[box.ravel()]
    others = np.flatnonzero(partner != np.arange(len(partner)))
    if len(others) == 0:
        partner = KDTree(cartesian).query(cartesian, k=2, distance_upper_bound=CLOSEST_ATOMS)[1][:, 1]
        others = np.flatnonzero(partner < len(cartesian))
    if len(others) == 0:
        return None
    one, other = partner[others[0]], others[0]
    return int(atoms[one]), int(atoms[other]), float(np.linalg.norm(cartesian[one] - cartesian[other]))
