"""The text files in which ABACUS writes H(R) or S(R): one compressed sparse row (CSR) matrix for each cell R.

Up to 3.10 a block is `R1 R2 R3 nnz` and, where nnz > 0, three lines: values, column indices, row pointers. From 3.11 on
the same numbers are wrapped over lines, with comments, after a header that also holds the unit cell; an empty block has
its row pointers too, or is left out. Both are read here as one stream of tokens, so lines do not matter.

Shape letters: M rows of the matrix, Z stored entries of all cells together, nR cells, N atoms, E atom pairs.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deeph_tracegrad.blocks import BlockMatrix
from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.preprocess.abacus.tokens import Tokens

LARGEST_CELL_INDEX = 10_000

OLD_MARK, OLD_HEADER = (
    b"Matrix Dimension of",
    re.compile(rb"Matrix Dimension of (\w+)\(R\):\s*(\d+)\s+Matrix number of \w+\(R\):\s*(\d+)\s"),
)
NEW_MARK, NEW_HEADER = (
    b"--- Ionic Step",
    re.compile(
        rb"# print (\w+) matrix.*?\s(\d+) # number of localized basis\s+(\d+) # number of Bravais lattice vector R\s"
        rb"(.*?)#\s+CSR [Ff]ormat[^\n]*\n(?:[ \t]*#[^\n]*\n)+",
        re.DOTALL,
    ),
)


@dataclass(frozen=True)
class Header:
    """What stands before the numbers of the last step in the file.

    matrix: H or S. dimension: M. cells: announced number of R. begin: where the blocks begin.
    structure: the unit cell as the newer layout has it; None in the older one.
    steps: ionic steps in the file.
    """

    matrix: str
    dimension: int
    cells: int
    begin: int
    structure: str | None
    steps: int


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
        cell, row_atoms, column_atoms = np.unravel_index(pair_keys, (len(self.cells), len(sizes), len(sizes)))
        pairs = np.concatenate([self.cells[cell], np.stack([row_atoms, column_atoms], axis=1)], axis=1)
        blocks = BlockMatrix.of(
            pairs, np.zeros(int(np.sum(sizes[row_atoms] * sizes[column_atoms])), dtype=self.values.dtype), sizes
        )
        blocks.entries[blocks.offsets[pair] + inside[self.row] * sizes[column_atom] + inside[self.column]] = self.values
        return blocks


def read_csr(path: Path, matrix: str) -> CellMatrices:
    """Read H(R) or S(R); of several ionic steps in one file the last.

    Args:
        path: the file, of either layout.
        matrix: "H" or "S", what the file must hold.

    Returns:
        The entries as they stand in the file: H in Ry, orbitals in ABACUS order, spin fastest for nspin 4.

    Raises:
        ReadError: the file cannot be opened, holds something else, is cut short or is damaged.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ReadError(path, f"cannot be read ({error.strerror})") from None
    header = _read_header(path, text)
    if header.matrix != matrix:
        raise ReadError(path, f"holds the matrix {header.matrix}(R) where {matrix}(R) was expected")
    body = text[header.begin :]
    if b"# representation: gamma-only" in text[: header.begin]:
        raise ReadError(path, "holds a matrix folded to the Γ point, not H(R); run ABACUS with gamma_only 0")
    if b"#" in body:
        body = re.sub(rb"#[^\n]*", b"", body)
    is_complex = b"(" in body
    if is_complex:
        body = body.translate(bytes.maketrans(b"(),", b"   "))
    try:
        return _read_blocks(Tokens(body), header, is_complex=is_complex)
    except ValueError as error:
        raise ReadError(path, f"is damaged or cut short: {error}") from None


def _read_header(path: Path, text: bytes) -> Header:
    for mark, pattern in ((OLD_MARK, OLD_HEADER), (NEW_MARK, NEW_HEADER)):
        last = text.rfind(mark)
        if last < 0:
            continue
        found = pattern.search(text, last)
        if found is None:
            raise ReadError(path, f"has no complete header after its last '{mark.decode()}'; the file is cut short")
        kind, dimension, cells, *rest = found.groups()
        structure = rest[0].decode(errors="replace") if rest else None
        if max(len(dimension), len(cells)) > 9:
            raise ReadError(path, f"announces an impossible size: {dimension.decode()} rows, {cells.decode()} cells")
        return Header(kind.decode(), int(dimension), int(cells), found.end(), structure, text.count(mark))
    raise ReadError(
        path,
        f"is not a text CSR file of ABACUS: it has neither '{OLD_MARK.decode()} H(R)' nor '{NEW_MARK.decode()}'",
    )


def _read_blocks(tokens: Tokens, header: Header, *, is_complex: bool) -> CellMatrices:
    cells, begins, counts = _find_blocks(tokens, header, parts := 2 if is_complex else 1)
    size = header.dimension
    values = tokens.decimals(_ranges(begins, counts * parts))
    columns = tokens.integers(_ranges(begins + counts * parts, counts))
    pointers = tokens.integers(_ranges(begins + counts * (parts + 1), np.full(len(cells), size + 1)))
    pointers = pointers.reshape(len(cells), size + 1)
    in_row = np.diff(pointers, axis=1)  # (nR, M) entries of each row
    if (pointers[:, 0] != 0).any() or (pointers[:, -1] != counts).any() or (in_row < 0).any():
        raise ValueError("row pointers that do not lead from 0 to the number of entries of their block")
    line = np.repeat(np.arange(in_row.size), in_row.ravel())  # (Z,) row counted through all cells
    if (columns >= size).any() or (np.diff(columns)[np.diff(line) == 0] <= 0).any():
        raise ValueError(f"column indices that do not ascend within a row, or reach beyond {size}")
    entries = values.view(np.complex128) if is_complex else values
    return CellMatrices(header, cells, *np.divmod(line, size), columns, entries)


def _find_blocks(tokens: Tokens, header: Header, parts: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Step from block to block by their counts.

    Returns:
        For each cell with entries: R (nR, 3), the place of its first value token, and its number of entries.
    """
    blocks, seen, position = [], set(), 0
    while position < len(tokens):
        if position + 4 > len(tokens):
            raise ValueError("it ends within the line R1 R2 R3 nnz of a block")
        *cell, count = (int(tokens.word(position + place)) for place in range(4))
        if max(map(abs, cell)) > LARGEST_CELL_INDEX or not 0 <= count <= header.dimension**2:
            raise ValueError(f"a block begins with R = {cell} and {count} entries")
        if tuple(cell) in seen:
            raise ValueError(f"the cell R = {cell} occurs twice")
        seen.add(tuple(cell))
        position += 4
        length = count * (parts + 1) + header.dimension + 1
        if count:
            blocks.append((*cell, position, count))
            position += length
        elif header.structure is not None and tokens.are_zero(position, position + length):
            position += length
        if position > len(tokens):
            raise ValueError(f"it ends within the block of R = {cell}")
    # The newer layout may leave out empty blocks; then only the partners show that nothing else is missing.
    complete = len(seen) == header.cells if header.structure is None else 0 < len(seen) <= header.cells
    lonely = [cell for cell in seen if tuple(-index for index in cell) not in seen]
    if not complete or lonely:
        raise ValueError(
            f"{header.cells} cells are announced and {len(seen)} found"
            + (f"; R = {list(lonely[0])} is there and -R is not" if lonely else "")
        )
    if not blocks:
        raise ValueError("no cell has any entry")
    table = np.array(blocks, dtype=np.int64)
    return table[:, :3], table[:, 3], table[:, 4]


def _ranges(begins: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The numbers begin, begin + 1, ... of each range, one after the other."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1]) + np.repeat(begins - (ends - lengths), lengths)
