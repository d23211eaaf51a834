"""Blocks of a matrix between orbitals that are turned with the local frame of their pair.

Shape letters: N atoms, E pairs, k pairs of one element pair.
"""

from itertools import groupby

import numpy as np

from deeph_tracegrad.blocks import BlockMatrix, block_offsets, find_pairs
from deeph_tracegrad.frames import euler_angles, rotation_matrices, spin_rotation
from deeph_tracegrad.orbitals import Basis, ElementBasis, SpinMode

# Pairs turned at once: what they need stays in a core's cache.
_CHUNK = 256


def to_local(
    matrix: BlockMatrix, pairs: np.ndarray, frames: np.ndarray, basis: Basis, species: np.ndarray, spin: SpinMode
) -> BlockMatrix:
    """The matrix on these pairs, each block between orbitals, and spinors if noncollinear, along its pair's local axes.

    pairs: (E, 5); blocks that the matrix lacks are zero. frames: (E, 3, 3), rows are the local axes.
    species: (N,) int, each atom's place in the basis.
    """
    source = find_pairs(matrix.pairs, pairs)
    offsets = block_offsets(pairs, matrix.sizes)
    entries = np.zeros(offsets[-1], matrix.entries.dtype)
    turns = (frames != np.eye(3)).any(axis=(1, 2))
    kinds = species[pairs[:, 3]] * len(basis) + species[pairs[:, 4]]
    for kind in np.unique(kinds):
        left, right = (basis.bases[place] for place in divmod(int(kind), len(basis)))
        rows, columns = (element.num_orbitals * spin.components for element in (left, right))
        inside = np.arange(rows * columns)
        members = np.flatnonzero((kinds == kind) & (source >= 0))
        for start in range(0, len(members), _CHUNK):
            chunk = members[start : start + _CHUNK]
            stack = matrix.entries[matrix.offsets[source[chunk], None] + inside].reshape(-1, rows, columns)
            turned = turns[chunk]
            stack[turned] = _turned(stack[turned], frames[chunk[turned]], left, right, spin)
            entries[offsets[chunk, None] + inside] = stack.reshape(len(chunk), -1)
    return BlockMatrix.of(pairs, entries, matrix.sizes)


def to_global(
    matrix: BlockMatrix, frames: np.ndarray, basis: Basis, species: np.ndarray, spin: SpinMode
) -> BlockMatrix:
    """The inverse of `to_local`, on the matrix' own pairs."""
    return to_local(matrix, matrix.pairs, frames.transpose(0, 2, 1), basis, species, spin)


def _turned(
    blocks: np.ndarray, rotations: np.ndarray, left: ElementBasis, right: ElementBasis, spin: SpinMode
) -> np.ndarray:
    """U A U† of every block (k, n_i, n_j), U being the turn of the orbitals under its rotation."""
    rows = _orbital_turns(rotations, left.shells, spin)
    columns = rows if left is right else _orbital_turns(rotations, right.shells, spin)
    return rows @ blocks @ columns.conj().transpose(0, 2, 1)


def _orbital_turns(rotations: np.ndarray, shells: tuple[int, ...], spin: SpinMode) -> np.ndarray:
    """The matrix that turns one atom's orbitals, (k, n, n), spin-major if noncollinear."""
    size = sum(2 * degree + 1 for degree in shells)
    turns = np.zeros((len(rotations), size, size))
    angles = euler_angles(rotations)
    start = 0
    for degree, run in groupby(shells):
        matrices = rotation_matrices(degree, rotations, angles)
        for _ in run:
            stop = start + 2 * degree + 1
            turns[:, start:stop, start:stop] = matrices
            start = stop
    if spin is not SpinMode.NONCOLLINEAR:
        return turns
    spinors = spin_rotation(rotations)
    return np.einsum("kst,kab->ksatb", spinors, turns).reshape(len(rotations), 2 * size, 2 * size)
