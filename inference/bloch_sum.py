"""The sum over cells of blocks times phases, by a compiled kernel, or by NumPy where there is no compiler.

Shape letters: N atoms, U atom pairs (i, j), F blocks of those with i <= j in all cells, C cells, B flat block entries,
Z stored entries of the matrix.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch

from deeph_tracegrad.nn.kernels.library import compiled, kernel

CHUNK = 2**18  # entries at a time in NumPy; they and their places fit into a cache
WORTH_A_THREAD = 2**20  # entries


class Kind(IntEnum):
    """How a pair (i, j) follows from the blocks of the atoms' lower and higher number."""

    DIRECT = 0
    MIRRORED = 1
    DIAGONAL = 2


@dataclass(frozen=True, eq=False)
class BlockSum:
    """Which blocks add up to which part of the matrix.

    cell: (F,) int32 of each block; offset: (F,) where it begins in the entries.
    first: (N+1,) where the pairs of each atom begin.
    begin, end: (U,) of a pair's blocks among these, whose conjugate transpose counts if it is mirrored; kind: (U,).
    rows, columns: (U,) of the pair's block in the matrix. place: (U,) where it begins among the matrix's values,
    ascending; step: (U,) from a row to the next there.
    """

    cell: np.ndarray
    offset: np.ndarray
    first: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    kind: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    place: np.ndarray
    step: np.ndarray

    @property
    def size(self) -> int:
        """Entries of the matrix that are written."""
        return int((self.rows * self.columns).sum())


def sum_blocks(entries: np.ndarray, phases: np.ndarray, part: BlockSum, values: np.ndarray) -> None:
    """Write the sum over cells into a Hermitian matrix's values (Z,), in place.

    entries: (B,) float64 or complex128. phases: (C,) float64 or complex128. values: real only if both are.
    """
    precision = torch.float32 if values.dtype in (np.float32, np.complex64) else torch.float64
    if np.iscomplexobj(entries):
        phases = phases.astype(np.complex128)
    if not compiled(torch.empty(0, dtype=precision)):
        _sum_by_numpy(entries, phases, part, values)
        return
    kernel("bloch_sum", precision)(
        int(np.iscomplexobj(entries)),
        int(np.iscomplexobj(phases)),
        entries,
        phases,
        part.cell,
        part.offset,
        part.first,
        len(part.first) - 1,
        int(part.size == len(values)),
        *(part.begin, part.end, part.kind, part.rows, part.columns, part.place, part.step),
        values,
        min(torch.get_num_threads(), 1 + len(values) // WORTH_A_THREAD),
    )


def _sum_by_numpy(entries: np.ndarray, phases: np.ndarray, part: BlockSum, values: np.ndarray) -> None:
    counts = part.end - part.begin
    for rows, columns, kind in np.unique(np.stack([part.rows, part.columns, part.kind]), axis=1).T.tolist():
        members = np.flatnonzero((part.rows == rows) & (part.columns == columns) & (part.kind == kind))
        members = members[np.argsort(-counts[members], kind="stable")]  # those with most blocks first
        inside = np.arange(rows * columns)
        for chunk in np.split(members, range(0, len(members), max(1, CHUNK // (rows * columns)))[1:]):
            total = np.zeros((len(chunk), rows * columns), phases.dtype)
            for number in range(counts[chunk[0]]):
                block = part.begin[chunk[counts[chunk] > number]] + number
                total[: len(block)] += phases[part.cell[block], None] * entries[part.offset[block, None] + inside]
            blocks = _blocks(total, rows, columns, kind)
            row = part.step[chunk, None, None] * np.arange(rows)[:, None]
            values[part.place[chunk, None, None] + row + np.arange(columns)] = blocks


def _blocks(total: np.ndarray, rows: int, columns: int, kind: int) -> np.ndarray:
    """The blocks (n, rows, columns) of some pairs from their sums (n, rows * columns)."""
    if kind == Kind.MIRRORED:
        return total.reshape(-1, columns, rows).conj().transpose(0, 2, 1)
    blocks = total.reshape(-1, rows, columns)
    if kind == Kind.DIAGONAL:
        above = np.triu(blocks, 1)
        return above + above.conj().transpose(0, 2, 1) + np.eye(rows) * blocks.real
    return blocks
