"""What holds of position matrices, <i in cell 0 | r | j in cell R>.

Shape letters: E pairs.
"""

from collections.abc import Sequence

import numpy as np

from deeph_tracegrad.blocks import BlockMatrix
from deeph_tracegrad.errors import MismatchError


def symmetrised_position(
    position: Sequence[BlockMatrix], overlap: BlockMatrix, middles: np.ndarray
) -> tuple[tuple[BlockMatrix, ...], float]:
    """The matrices of x, y and z as those of a Hermitian operator, and how far they were off before, in their unit.

    A block and its partner (-R, j, i) may count from different points. Counted from the middle m between their atoms,
    both are those of r - m, which is Hermitian: the mean of both is taken there, and m S added back.

    position: on one list of pairs. overlap: S, on any.
    middles: (E, 3), m of each pair, seen from the point that its block counts from.

    Raises:
        MismatchError: a pair has no partner, or is listed twice.
    """
    first = position[0]
    if (first.reverse < 0).any():
        pair = first.pairs[np.flatnonzero(first.reverse < 0)[0]].tolist()
        raise MismatchError(f"the pair [R1, R2, R3, i, j] = {pair}, 0-based, has no partner")
    overlaps, lengths = overlap.on_pairs(first.pairs).entries, np.diff(first.offsets)
    symmetric, violations = [], []
    for matrix, middle in zip(position, middles.T, strict=True):
        moved = np.repeat(middle, lengths) * overlaps
        centred, violation = matrix.with_entries(matrix.entries - moved).symmetrised()
        symmetric.append(centred.with_entries(centred.entries + moved))
        violations.append(violation)
    return tuple(symmetric), float(np.max(violations))
