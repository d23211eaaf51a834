"""Which periodic image of each atom a matrix counts from."""

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from deeph_tracegrad.errors import MismatchError
from deeph_tracegrad.preprocess.openmx.images import find_images

LATTICE = np.array([[4.0, 0.3, 0.0], [-1.0, 5.0, 0.2], [0.4, 0.0, 6.0]])
BOX = np.stack(np.meshgrid(*3 * [np.arange(-4, 5)], indexing="ij"), axis=-1).reshape(-1, 3)


def touching(structure, radii):
    """All pairs within reach, by trying every cell of a box."""
    pairs = []
    for i, start in enumerate(structure.cart_coords):
        for j, end in enumerate(structure.cart_coords):
            length = np.linalg.norm(end + BOX @ structure.lattice.matrix - start, axis=1)
            pairs += [[*cell, i, j] for cell in BOX[length < radii[i] + radii[j] + 1e-9].tolist()]
    return np.array(pairs, dtype=np.int32)


def counted_from(pairs, cells):
    """The same pairs for atoms that stand in other cells."""
    pairs = pairs.copy()
    pairs[:, :3] -= cells[pairs[:, 4]] - cells[pairs[:, 3]]
    return pairs


@pytest.mark.parametrize("seed", range(5))
def test_random_structures(seed):
    generator = np.random.default_rng(seed)
    structure = Structure(Lattice(LATTICE), ["C"] * 6, generator.random((6, 3)))
    radii, cells = generator.uniform(0.8, 2.5, 6), generator.integers(-3, 4, (6, 3))
    stored = counted_from(touching(structure, radii), cells)
    found = find_images(structure, radii, generator.permutation(stored))
    np.testing.assert_array_equal(counted_from(touching(structure, radii), found), stored)


def test_parts_that_do_not_touch():
    structure = Structure(Lattice.cubic(20), ["C"] * 4, [[0, 0, 0], [0.1, 0, 0], [0.5, 0.5, 0.5], [0.6, 0.5, 0.5]])
    radii, cells = np.full(4, 1.5), np.array([[1, 0, 0], [0, 0, 0], [5, 5, 5], [5, 5, 6]])
    found = find_images(structure, radii, counted_from(touching(structure, radii), cells))
    np.testing.assert_array_equal(found, [[0, 0, 0], [-1, 0, 0], [0, 0, 0], [0, 0, 1]])


@pytest.mark.parametrize("kept", [slice(None), slice(0, None, 2)])
def test_pairs_that_just_touch_may_be_stored_or_not(kept):
    structure = Structure(Lattice.cubic(4.0), ["C"] * 2, [[0.2, 0, 0], [0.7, 0.3, 0]])
    radii, cells = np.full(2, 2.0), np.array([[0, 0, 0], [1, -1, 2]])
    pairs = touching(structure, radii)
    just = np.linalg.norm(pairs[:, :3], axis=1) * (pairs[:, 3] == pairs[:, 4]) == 1
    assert just.sum() == 12
    stored = np.concatenate([pairs[~just], pairs[just][kept]])
    np.testing.assert_array_equal(find_images(structure, radii, counted_from(stored, cells)), cells)


def test_pairs_of_other_structures():
    structure = Structure(Lattice(LATTICE), ["C"] * 3, [[0.1, 0.2, 0.3], [0.6, 0.7, 0.2], [0.4, 0.1, 0.9]])
    radii = np.full(3, 2.2)
    pairs = touching(structure, radii)
    cells = np.zeros((3, 3), dtype=int)
    for wrong, message in [
        (pairs[1:], "0 are too far apart and 1 are missing"),
        (np.concatenate([pairs, [[4, 4, 4, 0, 1]]]), "1 are too far apart and 0 are missing"),
        (np.where(pairs[:, 3:4] == 1, pairs + np.array([1, 0, 0, 0, 0]), pairs), "too far apart"),
        (touching(structure, radii * 0.8), "are missing"),
        (touching(structure, radii * 1.2), "too far apart"),
        (np.concatenate([pairs, pairs[-1:]]), "listed twice"),
        (pairs[:3], "only 3 atom pairs are stored where about"),
        (counted_from(pairs, cells)[:, [0, 1, 2, 4, 3]], "are missing"),
    ]:
        with pytest.raises(MismatchError, match=message):
            find_images(structure, radii, wrong.astype(np.int32))
    flat = Structure(Lattice([[4, 0, 0], [4, 0.01, 0], [0, 0, 300]]), ["C"], [[0, 0, 0]])
    with pytest.raises(MismatchError, match="planes are too close"):
        find_images(flat, radii[:1], pairs)
