"""The text layouts of ABACUS' matrix files.

Up to 3.10 a block is `R1 R2 R3 nnz` and, where nnz > 0, three lines: values, column indices, row pointers. From 3.11 on
the same numbers are wrapped over lines, with comments, after a header that also holds the unit cell; an empty block has
its row pointers too, or is left out. The position matrix has `R1 R2 R3`, then for x, y and z in turn nnz and the three
lines. All are read here as one stream of tokens, so lines do not matter.

Shape letters: M rows of the matrix, nR cells.
"""

import mmap
import re
from collections.abc import Iterator

import numpy as np

from deeph_tracegrad.preprocess.abacus.cell_matrices import Cell, CellMatrices, Header, check_block, check_cells
from deeph_tracegrad.preprocess.abacus.tokens import Tokens

OLD_MARK, OLD_HEADER = (
    b"Matrix Dimension of",
    re.compile(rb"Matrix Dimension of (\w+)\(R\):\s*(\d+)\s+Matrix number of \w+\(R\):\s*(\d+)\s"),
)
NEW_MARK, NEW_HEADER = (
    b"--- Ionic Step",
    re.compile(
        rb"# print .*?in real space (\w+)\(R\).*?\s(\d+) # number of localized basis\s+"
        rb"(\d+) # number of Bravais lattice vector R\s(.*?)#\s+CSR [Ff]ormat[^\n]*\n(?:[ \t]*#[^\n]*\n)+",
        re.DOTALL,
    ),
)
# Early versions of get_S print no step.
OLD_STEP = re.compile(rb"(IONIC_)?STEP:\s*(\d{1,9})\s*\Z")
NEW_STEP = re.compile(rb"--- Ionic Step\s+(\d{1,9}) ---")
LONGEST_STEP_LINE = 40


def text_steps(data: mmap.mmap | bytes) -> Iterator[tuple[int, int]]:
    """Ionic step, counted from 0, and first byte of every matrix in a text, in order.

    Raises:
        ValueError: a step has no number.
    """
    for place in sorted([*_places(data, OLD_MARK), *_places(data, NEW_MARK)]):
        if data[place : place + 1] == NEW_MARK[:1]:
            found = NEW_STEP.match(data[place : place + LONGEST_STEP_LINE])
            if found is None:
                raise ValueError(f"has no number after '{NEW_MARK.decode()}'")
            yield max(int(found.group(1)) - 1, 0), place
            continue
        before = max(place - LONGEST_STEP_LINE, 0)
        line = OLD_STEP.search(data[before:place])
        if line is None:
            yield 0, place
        else:
            first = 0 if line.group(1) is None else 1  # IONIC_STEP counts from 1
            yield max(int(line.group(2)) - first, 0), before + line.start()


def parse_text(text: bytes, components: int) -> list[CellMatrices]:
    """The matrix of one step, or its three components.

    Raises:
        ValueError: the text is cut short, damaged, or folded to the Γ point.
    """
    header, announced, begin = _header(text)
    body = text[begin:]
    if b"# representation: gamma-only" in text[:begin]:
        raise ValueError("holds a matrix folded to the Γ point, not H(R); run ABACUS with gamma_only 0")
    if b"#" in body:
        body = re.sub(rb"#[^\n]*", b"", body)
    parts = 2 if b"(" in body else 1
    if parts == 2:
        body = body.translate(bytes.maketrans(b"(),", b"   "))
    try:
        tokens = Tokens(body)
        tables = _find_blocks(tokens, header, announced, parts, components)
        return [_read_blocks(tokens, header, table, parts) for table in tables]
    except ValueError as error:
        raise ValueError(f"is damaged or cut short: {error}") from None


def _places(data: mmap.mmap | bytes, mark: bytes) -> Iterator[int]:
    place = data.find(mark)
    while place >= 0:
        yield place
        place = data.find(mark, place + 1)


def _header(text: bytes) -> tuple[Header, int, int]:
    """The header, the number of cells that it announces, and where the blocks begin."""
    new = NEW_MARK in text[:LONGEST_STEP_LINE]
    found = (NEW_HEADER if new else OLD_HEADER).search(text)
    if found is None:
        raise ValueError("has no complete header; the file is cut short")
    kind, dimension, cells, *rest = found.groups()
    if max(len(dimension), len(cells)) > 9:
        raise ValueError(f"announces an impossible size: {dimension.decode()} rows, {cells.decode()} cells")
    structure = rest[0].decode(errors="replace") if rest else None
    return Header(kind.decode(), int(dimension), structure), int(cells), found.end()


def _find_blocks(tokens: Tokens, header: Header, announced: int, parts: int, components: int) -> list[np.ndarray]:
    """Step from block to block by their counts.

    Returns:
        For each component (nR, 5): R, the place of the first value token, the number of entries; only blocks with some.
    """
    found: list[list[tuple[int, ...]]] = [[] for _ in range(components)]
    seen: set[Cell] = set()
    position = 0
    while position < len(tokens):
        if position + 4 > len(tokens):
            raise ValueError("it ends within the line R1 R2 R3 nnz of a block")
        first, second, third = (int(tokens.word(position + place)) for place in range(3))
        cell = (first, second, third)
        position += 3
        for blocks in found:
            if position >= len(tokens):
                raise ValueError(f"it ends within the block of R = {list(cell)}")
            count = int(tokens.word(position))
            check_block(cell, count, header.dimension, seen)
            position += 1
            length = count * (parts + 1) + header.dimension + 1
            if count:
                blocks.append((*cell, position, count))
                position += length
            elif header.structure is not None and tokens.are_zero(position, position + length):
                position += length
            if position > len(tokens):
                raise ValueError(f"it ends within the block of R = {list(cell)}")
        seen.add(cell)
    check_cells(seen, announced, may_lack=header.structure is not None or header.matrix == "DM")
    if not any(found):
        raise ValueError("no cell has any entry")
    return [np.array(blocks, dtype=np.int64).reshape(-1, 5) for blocks in found]


def _read_blocks(tokens: Tokens, header: Header, table: np.ndarray, parts: int) -> CellMatrices:
    cells, begins, counts = table[:, :3], table[:, 3], table[:, 4]
    values = tokens.decimals(_ranges(begins, counts * parts))
    columns = tokens.integers(_ranges(begins + counts * parts, counts))
    pointers = tokens.integers(_ranges(begins + counts * (parts + 1), np.full(len(cells), header.dimension + 1)))
    pointers = pointers.reshape(len(cells), header.dimension + 1)
    if (pointers[:, -1] != counts).any():
        raise ValueError("row pointers that do not lead from 0 to the number of entries of their block")
    return CellMatrices.of(header, cells, pointers, columns, values.view(np.complex128) if parts == 2 else values)


def _ranges(begins: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The numbers begin, begin + 1, ... of each range, one after the other."""
    ends = np.cumsum(lengths)
    return np.arange(lengths.sum()) + np.repeat(begins - (ends - lengths), lengths)
