"""The matrix files of the legacy DeepH format: one HDF5 dataset a block, told apart by their names.

Shape letters: N atoms, E pairs.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deeph_tracegrad.blocks import BlockMatrix, find_pairs
from deeph_tracegrad.deeph_matrices import check_entries, check_pairs
from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.hdf5_files import new_hdf5, open_hdf5, read_dataset

_INTEGER = r"(-?\d{1,9})"


def read_blocks(path: Path, sizes: np.ndarray, kinds: str, number: int) -> tuple[BlockMatrix, ...]:
    """The matrices in a file of one dataset a block, pairs in the file's order; sizes: (N,) int, rows of each atom."""
    with open_hdf5(path) as file:
        names = list(file)
        pairs, directions = _pairs(path, names, number)
        pairs = check_pairs(path, pairs, len(sizes))
        shapes = np.stack([sizes[pairs[:, 3]], sizes[pairs[:, 4]]], axis=1).tolist()
        blocks = [
            read_dataset(path, file, name, kinds, tuple(shape)) for name, shape in zip(names, shapes, strict=True)
        ]
        matrices = []
        for direction in range(number):
            chosen = np.flatnonzero(directions == direction)
            entries = np.concatenate([np.zeros(0), *(blocks[place].ravel() for place in chosen)])
            matrices.append(BlockMatrix.of(pairs[chosen], check_entries(path, entries), sizes))
        first = matrices[0].pairs
        if any(len(matrix) != len(first) or (find_pairs(matrix.pairs, first) < 0).any() for matrix in matrices):
            raise ReadError(path, "some pairs of atoms lack one of the three directions")
        return tuple(matrix if matrix is matrices[0] else matrix.on_pairs(first) for matrix in matrices)


def _pairs(path: Path, names: list[str], number: int) -> tuple[np.ndarray, np.ndarray]:
    """What block names tell: the pairs, atoms from 0, (E, 5), and which of the matrices each is of, (E,).

    "[R1, R2, R3, i, j]", atoms from 1; in a file of several matrices their number follows, from 1.
    """
    example = [0, 0, 0, 1, 1] + [1] * (number > 1)
    pattern = re.compile(r"\[" + r",\s*".join([_INTEGER] * len(example)) + r"\]", re.ASCII)
    matches = [pattern.fullmatch(name) for name in names]
    if None in matches:
        raise ReadError(path, f"block names should look like '{example}', not {names[matches.index(None)]!r}")
    table = np.array([[int(word) for word in match.groups()] for match in matches if match], dtype=np.int64)
    table = table.reshape(-1, len(example)) - example
    directions = table[:, 5] if number > 1 else np.zeros(len(table), dtype=np.int64)
    if ((directions < 0) | (directions >= number)).any():
        raise ReadError(path, f"the last number of a block's name should be 1 to {number}, for x, y and z")
    return table[:, :5], directions


def has_spin(path: Path, orbitals: np.ndarray) -> bool:
    """Whether the blocks are spinful, told by the size of the first."""
    with open_hdf5(path) as file:
        name = next(iter(file), None)
        if name is None:
            return False
        pair = check_pairs(path, _pairs(path, [name], 1)[0], len(orbitals))[0]
        return file[name].shape == (2 * orbitals[pair[3]], 2 * orbitals[pair[4]])


def write_blocks(path: Path, matrices: Sequence[BlockMatrix]) -> None:
    """A file of one dataset a block, in the order of the pairs; several matrices are numbered in the names, from 1."""
    pairs = (matrices[0].pairs + np.array([0, 0, 0, 1, 1])).tolist()
    with new_hdf5(path, track_order=True) as file:
        for number, matrix in enumerate(matrices, 1):
            for place, pair in enumerate(pairs):
                name = str(pair if len(matrices) == 1 else [*pair, number])
                file.create_dataset(name, data=matrix.block(place))
