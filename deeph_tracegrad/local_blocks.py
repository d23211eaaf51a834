"""Blocks of a matrix between orbitals that are turned with the local frame of their pair.

Shape letters: E pairs, B flat block entries, k pairs of one element pair.
"""

from itertools import groupby

import numpy as np

from deeph_tracegrad.blocks import BlockMatrix
from deeph_tracegrad.frames import rotation_matrices, spin_rotation
from deeph_tracegrad.orbitals import Basis, SpinMode

# Pairs turned at once: what they need stays in a core's cache.
_CHUNK = 512


def to_local(matrix: BlockMatrix, frames: np.ndarray, basis: Basis, species: np.ndarray, spin: SpinMode) -> BlockMatrix:
    """Each block between orbitals, and spinors if noncollinear, that point along its pair's local axes.

    frames: (E, 3, 3), rows are the local axes; species: (N,) int, each atom's place in the basis.
    """
    return _turned(matrix, frames, basis, species, spin)


def to_global(
    matrix: BlockMatrix, frames: np.ndarray, basis: Basis, species: np.ndarray, spin: SpinMode
) -> BlockMatrix:
    """The inverse of `to_local`."""
    return _turned(matrix, frames.transpose(0, 2, 1), basis, species, spin)


def _turned(
    matrix: BlockMatrix, rotations: np.ndarray, basis: Basis, species: np.ndarray, spin: SpinMode
) -> BlockMatrix:
    """U A U† for every block, U the turn of the orbitals under `rotations`; pairs with the identity are copied."""
    entries = matrix.entries.copy()
    turns = (rotations != np.eye(3)).any(axis=(1, 2))
    for (row, column), members, places in matrix.stacks(species):
        selected = np.flatnonzero(turns[members])
        for start in range(0, len(selected), _CHUNK):
            chunk = selected[start : start + _CHUNK]
            frames = rotations[members[chunk]]
            left = _orbital_turns(frames, basis.bases[row].shells, spin)
            right = left if row == column else _orbital_turns(frames, basis.bases[column].shells, spin)
            stack = matrix.entries[places[chunk]].reshape(len(chunk), left.shape[1], right.shape[1])
            entries[places[chunk]] = (left @ stack @ right.conj().transpose(0, 2, 1)).reshape(len(chunk), -1)
    return matrix.with_entries(entries)


def _orbital_turns(rotations: np.ndarray, shells: tuple[int, ...], spin: SpinMode) -> np.ndarray:
    """The matrix that turns one atom's orbitals, (k, n, n), spin-major if noncollinear."""
    size = sum(2 * degree + 1 for degree in shells)
    turns = np.zeros((len(rotations), size, size))
    start = 0
    for degree, run in groupby(shells):
        matrices = rotation_matrices(degree, rotations)
        for _ in run:
            stop = start + 2 * degree + 1
            turns[:, start:stop, start:stop] = matrices
            start = stop
    if spin is not SpinMode.NONCOLLINEAR:
        return turns
    spinors = spin_rotation(rotations)
    return np.einsum("kst,kab->ksatb", spinors, turns).reshape(len(rotations), 2 * size, 2 * size)
