"""What holds of position matrices, <i in cell 0 | r | j in cell R> from a fixed origin.

Shape letters: E pairs, B flat block entries.
"""

from collections.abc import Sequence

import numpy as np

from deeph_tracegrad.blocks import BlockMatrix
from deeph_tracegrad.errors import MismatchError


def position_violation(position: Sequence[BlockMatrix], overlap: BlockMatrix, cell: np.ndarray) -> float:
    """How far the matrices of x, y and z are from those of a Hermitian operator, in Å.

    The partner (-R, j, i) of a block counts from an origin moved by -R·L. Counted from midway, both blocks are those of
    r - (R·L)/2 S, which is Hermitian.

    cell: (3, 3) Å, lattice vectors are rows.

    Raises:
        MismatchError: a pair has no partner, or is listed twice.
    """
    largest = 0.0
    for direction, matrix in enumerate(position):
        if (matrix.reverse < 0).any():
            pair = matrix.pairs[np.flatnonzero(matrix.reverse < 0)[0]].tolist()
            raise MismatchError(f"the pair [R1, R2, R3, i, j] = {pair}, 0-based, has no partner")
        middle = np.repeat(matrix.pairs[:, :3] @ cell[:, direction] / 2, np.diff(matrix.offsets))  # (B,)
        from_middle = matrix.entries - middle * overlap.on_pairs(matrix.pairs).entries
        largest = max(largest, matrix.with_entries(from_middle).symmetrised()[1])
    return largest
