"""The local frames of DeepH v1, made reproducible.

For the pair (i, j, R) with bond d = x_j + R·L - x_i: e1 = d/|d|, e2 along d × n, e3 = e1 × e2, where n is the nearest
neighbour vector of atom i that is not parallel to d. On-site pairs take the vector to the nearest neighbour as d.
Neighbours of i are the j's of its own pairs.

DeepH v1 takes neighbours at equal distances in whatever order its sort leaves them, and any n with |d × n| > 1e-6 Å².
Here they are ordered by distance rounded to 1e-6 Å, then species, then R, then atom, and n counts as parallel if the
sine of the angle is below 1e-3; so the frames depend on the structure alone. Where all distances differ, and no
neighbours are nearly collinear, both rules give the same frames.

Shape letters: N atoms, E pairs.
"""

import numpy as np

from deeph_tracegrad.errors import MismatchError

DISTANCE_DIGITS = 6
SMALLEST_SINE = 1e-3
COINCIDENT = 1e-6  # Å, nearer than any two atoms


def legacy_frames(vectors: np.ndarray, pairs: np.ndarray, species: np.ndarray) -> np.ndarray:
    """The frame of each pair, (E, 3, 3), rows are the axes e1, e2, e3.

    vectors: (E, 3) Å, from atom i to atom j in cell R; pairs: (E, 5); species: (N,) int.

    Raises:
        MismatchError: an atom has no two neighbours in different directions, as in a chain.
    """
    distance = np.linalg.norm(vectors, axis=1)
    bonds = np.flatnonzero(distance > COINCIDENT)
    atoms, keys = pairs[bonds, 3], pairs[bonds]
    order = np.lexsort(
        [
            keys[:, 4],
            keys[:, 2],
            keys[:, 1],
            keys[:, 0],
            species[keys[:, 4]],
            distance[bonds].round(DISTANCE_DIGITS),
            atoms,
        ]
    )
    neighbours = bonds[order]
    counts = np.bincount(atoms, minlength=len(species))
    starts = np.concatenate([[0], np.cumsum(counts)])
    own = pairs[:, 3]
    _require(counts[own] > 0, own)
    first = np.where(distance > COINCIDENT, np.arange(len(pairs)), neighbours[starts[own]])
    axis = vectors[first] / distance[first, None]
    normal = np.zeros_like(axis)
    open_pairs = np.arange(len(pairs))
    for rank in range(int(counts.max(initial=0))):  # one round for each nearness; two or three settle all pairs
        open_pairs = open_pairs[rank < counts[own[open_pairs]]]
        candidates = neighbours[starts[own[open_pairs]] + rank]
        cross = np.cross(axis[open_pairs], vectors[candidates] / distance[candidates, None])
        found = np.linalg.norm(cross, axis=1) > SMALLEST_SINE
        normal[open_pairs[found]] = cross[found]
        open_pairs = open_pairs[~found]
    length = np.linalg.norm(normal, axis=1)
    _require(length > 0, own)
    second = normal / length[:, None]
    return np.stack([axis, second, np.cross(axis, second)], axis=1)


def _require(fine: np.ndarray, atoms: np.ndarray) -> None:
    """Refuse pairs that have no frame; fine: (E,) bool, atoms: (E,) int."""
    if not fine.all():
        raise MismatchError(
            f"atom {atoms[~fine][0] + 1} has no two neighbours in different directions, so that DeepH v1's local "
            "coordinates do not exist; leave out --local-coordinates"
        )
