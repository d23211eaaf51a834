"""How the DeepH formats pack spin into a single matrix, and how it is taken apart.

A spinful block is (2 n_i, 2 n_j), spin-major: uu ud / du dd. With collinear spin ud and du vanish.

Shape letters: k pairs of one shape.
"""

from pathlib import Path

import numpy as np

from deeph_tracegrad.blocks import BlockMatrix
from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.orbitals import SpinMode


def spin_mode(path: Path, spinful: bool, complex_entries: bool | None, stored: SpinMode | None) -> SpinMode:
    """The spin mode: ours where stored, else collinear for real spinful blocks and noncollinear for complex ones.

    complex_entries: None where no matrix depends on spin.
    """
    if not spinful:
        mode = SpinMode.NONE
    elif stored not in (None, SpinMode.NONE):
        mode = stored
    else:
        mode = SpinMode.COLLINEAR if complex_entries is False else SpinMode.NONCOLLINEAR
    if stored not in (None, mode):
        raise ReadError(path, f"says spinful = {spinful} in one place and spin {stored} in another")
    return mode


def spin_channels(path: Path, matrix: BlockMatrix, spin: SpinMode) -> tuple[BlockMatrix, ...]:
    """The channels of H, or of a density matrix, that is stored as a single matrix."""
    if spin is SpinMode.COLLINEAR:
        return split_spins(path, matrix)
    if spin is SpinMode.NONCOLLINEAR:
        return (matrix.with_entries(matrix.entries.astype(np.complex128, copy=False)),)
    if np.iscomplexobj(matrix.entries):
        raise ReadError(path, "is complex, though the folder has no spin")
    return (matrix,)


def join_spins(up: BlockMatrix, down: BlockMatrix) -> BlockMatrix:
    """Real spinful blocks with the channels, which have the same pairs, on their diagonals."""
    joined = BlockMatrix.of(up.pairs, np.zeros(4 * len(up.entries)), 2 * up.sizes)
    for (rows, columns), members, places in joined.stacks():
        stack = np.zeros((len(members), 2, rows // 2, 2, columns // 2))
        start = up.offsets[members, None] + np.arange(rows * columns // 4)
        for component, channel in enumerate((up, down)):
            stack[:, component, :, component] = channel.entries[start].reshape(-1, rows // 2, columns // 2)
        joined.entries[places] = stack.reshape(len(members), -1)
    return joined


def split_spins(path: Path, matrix: BlockMatrix) -> tuple[BlockMatrix, BlockMatrix]:
    """The up and down channels, real, of spinful blocks whose other parts vanish.

    Raises:
        ReadError: the up-down blocks do not vanish.
    """
    sizes = matrix.sizes // 2
    channels = [BlockMatrix.of(matrix.pairs, np.zeros(len(matrix.entries) // 4), sizes) for _ in range(2)]
    for (rows, columns), members, places in matrix.stacks():
        stack = matrix.entries[places].reshape(-1, 2, rows // 2, 2, columns // 2)
        if stack[:, 0, :, 1].any() or stack[:, 1, :, 0].any() or np.imag(stack).any():
            raise ReadError(path, "should be collinear, but its up-down blocks or imaginary parts are not zero")
        for component, channel in enumerate(channels):
            start = channel.offsets[members, None]
            block = stack[:, component, :, component].real.reshape(len(members), -1)
            channel.entries[start + np.arange(rows * columns // 4)] = block
    return channels[0], channels[1]
