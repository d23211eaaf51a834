"""A real-space matrix as ABACUS' files hold it: one compressed sparse row (CSR) matrix for each cell R.

Shape letters: M rows of the matrix, Z stored entries of all cells together, nR cells, N atoms, E atom pairs.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from deeph_tracegrad.blocks import BlockMatrix

LARGEST_CELL_INDEX = 10_000

Cell = tuple[int, int, int]


@dataclass(frozen=True)
class Header:
    """What a file tells beside the entries.

    matrix: H, S, DM or r; None where the file does not tell. dimension: M.
    structure: the unit cell as the newer text layout has it; None in all others.
    """

    matrix: str | None
    dimension: int
    structure: str | None = None


@dataclass(frozen=True, eq=False)
class CellMatrices:
    """A real-space matrix as coordinate lists, in the units and the orbital order of the file.

    cells: (nR, 3) int64, only those with entries.
    cell, row, column: (Z,) int64, where each entry stands. values: (Z,) float64 or complex128.
    """

    header: Header
    cells: np.ndarray
    cell: np.ndarray
    row: np.ndarray
    column: np.ndarray
    values: np.ndarray

    @classmethod
    def of(
        cls, header: Header, cells: np.ndarray, pointers: np.ndarray, columns: np.ndarray, values: np.ndarray
    ) -> "CellMatrices":
        """From the three arrays of CSR, those of all cells one after the other.

        cells: (nR, 3) int. pointers: (nR, M+1) int. columns: (Z,) int. values: (Z,).

        Raises:
            ValueError: they are not those of a sparse matrix of this size.
        """
        size = header.dimension
        in_row = np.diff(pointers, axis=1)  # (nR, M) entries of each row
        if (pointers[:, 0] != 0).any() or (in_row < 0).any() or pointers[:, -1].sum() != len(values):
            raise ValueError("row pointers that do not lead from 0 to the number of entries of their block")
        line = np.repeat(np.arange(in_row.size), in_row.ravel())  # (Z,) row counted through all cells
        outside = (columns < 0).any() or (columns >= size).any()
        if outside or (np.diff(columns)[np.diff(line) == 0] <= 0).any():
            raise ValueError(f"column indices that do not ascend within a row, or reach beyond {size}")
        return cls(header, cells, *np.divmod(line, size), columns, values)

    def to_blocks(self, sizes: np.ndarray) -> BlockMatrix:
        """Dense blocks for every atom pair with at least one entry; what the file leaves out is zero.

        sizes: (N,) int64, rows of each atom.
        """
        ends = np.cumsum(sizes)
        atom = np.repeat(np.arange(len(sizes)), sizes)  # (M,)
        inside = np.arange(ends[-1]) - np.repeat(ends - sizes, sizes)  # (M,) place in the atom's own rows
        row_atom, column_atom = atom[self.row], atom[self.column]
        key = (self.cell * len(sizes) + row_atom) * len(sizes) + column_atom
        # Entries of a row that belong to one pair follow each other, so that only the runs need sorting.
        run_starts = np.flatnonzero(np.diff(key, prepend=-1))
        pair_keys, run_pairs = np.unique(key[run_starts], return_inverse=True)
        pair = np.repeat(run_pairs, np.diff(run_starts, append=len(key)))  # (Z,)
        cell, atoms = np.divmod(pair_keys, len(sizes) ** 2)
        row_atoms, column_atoms = np.divmod(atoms, len(sizes))
        pairs = np.concatenate([self.cells[cell], np.stack([row_atoms, column_atoms], axis=1)], axis=1)
        blocks = BlockMatrix.of(
            pairs, np.zeros(int(np.sum(sizes[row_atoms] * sizes[column_atoms])), dtype=self.values.dtype), sizes
        )
        blocks.entries[blocks.offsets[pair] + inside[self.row] * sizes[column_atom] + inside[self.column]] = self.values
        return blocks


def check_block(cell: Cell, count: int, dimension: int, seen: Collection[Cell]) -> None:
    """Whether a block may begin with this cell and number of entries, after those of the cells `seen`.

    Raises:
        ValueError: it may not.
    """
    if max(map(abs, cell)) > LARGEST_CELL_INDEX or not 0 <= count <= dimension**2:
        raise ValueError(f"a block begins with R = {list(cell)} and {count} entries")
    if cell in seen:
        raise ValueError(f"the cell R = {list(cell)} occurs twice")


def check_cells(seen: Collection[Cell], announced: int, *, may_lack: bool) -> None:
    """Whether the cells of a file are all there.

    may_lack: the layout leaves out empty blocks; then only the partners show that nothing else is missing.

    Raises:
        ValueError: they are not.
    """
    complete = 0 < len(seen) <= announced if may_lack else len(seen) == announced
    lonely = [cell for cell in seen if (-cell[0], -cell[1], -cell[2]) not in seen]
    if not complete or lonely:
        raise ValueError(
            f"{announced} cells are announced and {len(seen)} found"
            + (f"; R = {list(lonely[0])} is there and -R is not" if lonely else "")
        )
