"""Which periodic image of each atom a matrix counts its cells R from, found from the pairs that it stores.

OpenMX leaves an atom where its input put it, or moves it by lattice vectors, and numbers the cells from there; its text
output prints the atom wrapped into the cell. If atom i really stands n_i cells from where it is printed, the stored
pair (R, i, j) spans the printed atoms with the cell R + n_j - n_i. OpenMX stores exactly the pairs whose orbitals
touch. So the cells stored for i and j are those of the printed atoms that touch, all moved by n_i - n_j, and the
difference of their means is n_j - n_i.

Shape letters: N atoms, E pairs, G groups of the pairs of the same two atoms.
"""

import numpy as np
from pymatgen.core import Structure
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, connected_components

from deeph_tracegrad.blocks import find_pairs
from deeph_tracegrad.errors import MismatchError

TOLERANCE = 1e-6  # Å; rounding may put a pair on either side of touching
MIN_PLANE_DISTANCE = 0.1  # Å, of a real lattice
MAX_EXCESS = 4  # touching pairs over stored ones; uniform density gives fewer than there are


def find_images(structure: Structure, radii: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """The cell n_i to which each atom of `structure` has to be moved, (N, 3) int.

    It is zero for one atom of each part that touches no other.

    radii: (N,) Å, of each atom's orbitals. pairs: (E, 5) int32, all pairs of a matrix.

    Raises:
        MismatchError: no choice makes the stored pairs those that touch.
    """
    _check_density(structure, radii, len(pairs))
    near, margin = _touching(structure, radii)
    keys, steps = _steps(near, pairs, margin, len(radii))
    cells = _propagated(keys, steps, len(radii))
    moved = pairs.copy()
    moved[:, :3] += cells[pairs[:, 4]] - cells[pairs[:, 3]]
    apart, missing = find_pairs(near, moved) < 0, (find_pairs(moved, near) < 0) & (margin > TOLERANCE)
    if apart.any() or missing.any():
        raise MismatchError(
            f"the {len(pairs)} stored atom pairs are not those whose orbitals touch, by whatever lattice vectors the "
            f"atoms are moved: {apart.sum()} are too far apart and {missing.sum()} are missing"
        )
    return cells


def _check_density(structure: Structure, radii: np.ndarray, num_pairs: int) -> None:
    """Refuse what would take far more pairs than are stored, before they are counted."""
    lattice = structure.lattice
    if 2 * np.pi / max(lattice.reciprocal_lattice.abc) < MIN_PLANE_DISTANCE:
        raise MismatchError("the lattice planes are too close to be real")
    expected = len(radii) ** 2 / lattice.volume * 4 / 3 * np.pi * (2 * radii.min()) ** 3
    if expected > MAX_EXCESS * num_pairs:
        raise MismatchError(
            f"only {num_pairs} atom pairs are stored where about {expected:.0f} have orbitals that touch"
        )


def _touching(structure: Structure, radii: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All pairs whose orbitals touch, (E, 5) int32, the atoms themselves first, and by how much in Å."""
    first, second, cell, length = structure.get_neighbor_list(2 * radii.max() + TOLERANCE)
    atoms = np.arange(len(radii))
    own = np.column_stack([np.zeros((len(atoms), 3)), atoms, atoms])
    pairs = np.concatenate([own, np.column_stack([cell, first, second])]).astype(np.int32)
    margin = radii[pairs[:, 3]] + radii[pairs[:, 4]] - np.concatenate([np.zeros(len(atoms)), length])
    kept = margin > -TOLERANCE
    return pairs[kept], margin[kept]


def _steps(near: np.ndarray, stored: np.ndarray, margin: np.ndarray, num_atoms: int) -> tuple[np.ndarray, np.ndarray]:
    """n_j - n_i, (G, 3) int, of each two atoms where it can be told, and their numbers i * N + j, (G,) ascending."""
    near_keys, near_counts, near_sums = _summed_cells(near, num_atoms)
    keys, counts, sums = _summed_cells(stored, num_atoms)
    common, ours, theirs = np.intersect1d(near_keys, keys, assume_unique=True, return_indices=True)
    steps = (near_sums[ours] - sums[theirs]) / counts[theirs, None]
    doubtful = near[margin < TOLERANCE].astype(np.int64)
    told = (near_counts[ours] == counts[theirs]) & (steps == np.rint(steps)).all(axis=1)
    told &= ~np.isin(common, doubtful[:, 3] * num_atoms + doubtful[:, 4])
    return common[told], steps[told].astype(np.int64)


def _summed_cells(pairs: np.ndarray, num_atoms: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The numbers i * N + j that occur, (G,), how many pairs each has, and the sum of their cells, (G, 3)."""
    numbers = pairs[:, 3].astype(np.int64) * num_atoms + pairs[:, 4]
    keys, group, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    return keys, counts, np.stack([np.bincount(group, weights=cell) for cell in pairs[:, :3].T], axis=1)


def _propagated(keys: np.ndarray, steps: np.ndarray, num_atoms: int) -> np.ndarray:
    """Each atom's cell, (N, 3), following the steps from one atom of each connected part."""
    first, second = np.divmod(keys, num_atoms)
    graph = coo_array((np.ones(len(keys)), (first, second)), shape=(num_atoms + 1, num_atoms + 1)).tocsr()
    _, part = connected_components(graph[:num_atoms, :num_atoms], directed=False)
    roots = np.unique(part, return_index=True)[1]
    start = coo_array((np.ones(len(roots)), (np.full(len(roots), num_atoms), roots)), shape=graph.shape).tocsr()
    order, before = breadth_first_order(graph + start, num_atoms)
    cells = np.zeros((num_atoms, 3), dtype=np.int64)
    for atom in order[1:].tolist():
        previous = int(before[atom])
        if previous < num_atoms:
            cells[atom] = cells[previous] + steps[np.searchsorted(keys, previous * num_atoms + atom)]
    return cells
