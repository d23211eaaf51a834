"""The binary layouts of ABACUS' matrix files (`out_hsr 2`, and earlier a switch in the source).

A matrix is int32 step, int32 M, int32 nR, then for each cell int32 R1 R2 R3 nnz, nnz values (float64 or complex128),
nnz int32 column indices and M+1 row pointers, int32 or int64 by version. An empty block has row pointers or none, by
version too. The position matrix has R1 R2 R3, then for x, y and z in turn nnz and the arrays. Nothing marks the widths:
only the right ones lead from block to block, with row pointers that make sense, to the end of the file.

Shape letters: M rows of the matrix, nR cells.
"""

import itertools
import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from deeph_tracegrad.preprocess.abacus.cell_matrices import Cell, CellMatrices, Header, check_block, check_cells

LARGEST_DIMENSION = 10_000_000
WIDTHS = [(np.dtype(value), np.dtype(pointer)) for value, pointer in itertools.product(["<f8", "<c16"], ["<i4", "<i8"])]

Data = mmap.mmap | bytes


@dataclass(frozen=True)
class _Walk:
    """One matrix, by where its arrays are.

    value, pointer: the widths with which it makes sense. blocks: for each component R, first byte and number of entries
    of every block with some. end: the byte after it.
    """

    step: int
    dimension: int
    value: np.dtype
    pointer: np.dtype
    blocks: list[list[tuple[Cell, int, int]]]
    end: int


def binary_steps(data: Data, components: int) -> Iterator[tuple[int, int]]:
    """Ionic step, counted from 0, and first byte of every matrix in a file, in order; the last may be cut short.

    Raises:
        ValueError: the first is cut short or damaged, or something else follows one.
    """
    walk = _walk(data, 0, components)
    yield walk.step, 0
    while walk.end < len(data):
        begin = walk.end
        step, dimension, _ = _integers(data, begin, 3)
        if dimension != walk.dimension or step < 0:
            raise ValueError(f"is damaged: after byte {begin} no other matrix of {walk.dimension} rows begins")
        yield step, begin
        try:
            walk = _walk(data, begin, components)
        except ValueError:
            return


def parse_binary(data: bytes, components: int) -> list[CellMatrices]:
    """The matrix of one step, or its three components.

    Raises:
        ValueError: the data are cut short or damaged.
    """
    walk = _walk(data, 0, components)
    if walk.end != len(data):
        raise ValueError(f"is damaged: {len(data) - walk.end} bytes follow the last block")
    if not any(walk.blocks):
        raise ValueError("is damaged: no cell has any entry")
    return [_read_blocks(data, walk, blocks) for blocks in walk.blocks]


def _walk(data: Data, begin: int, components: int) -> _Walk:
    """Walk with each pair of widths; that of the only one that arrives."""
    walks, reasons = [], []
    for value, pointer in WIDTHS:
        try:
            walks.append(_walk_with(data, begin, components, value, pointer))
        except ValueError as error:
            reasons.append(str(error))
    if len(walks) > 1:
        raise ValueError("is ambiguous: its blocks make sense with several widths of numbers; write it as text")
    if not walks:
        raise ValueError(f"is damaged or cut short: {max(reasons, key=reasons.count)}")
    return walks[0]


def _walk_with(data: Data, begin: int, components: int, value: np.dtype, pointer: np.dtype) -> _Walk:
    step, dimension, announced = _integers(data, begin, 3)
    if step < 0 or not 0 < dimension <= LARGEST_DIMENSION or announced < 1:
        raise ValueError(f"it announces step {step}, {dimension} rows and {announced} cells")
    blocks: list[list[tuple[Cell, int, int]]] = [[] for _ in range(components)]
    seen: set[Cell] = set()
    position, pointer_bytes = begin + 12, (dimension + 1) * pointer.itemsize
    for _ in range(announced):
        first, second, third = _integers(data, position, 3)
        cell = (first, second, third)
        position += 12
        for own in blocks:
            (count,) = _integers(data, position, 1)
            check_block(cell, count, dimension, seen)
            position += 4
            if count:
                own.append((cell, position, count))
                position += count * (value.itemsize + 4)
                # a slice is a copy: an array on the file itself would keep it open
                pointers = np.frombuffer(data[position : position + pointer_bytes], pointer, dimension + 1)
                if pointers[0] != 0 or pointers[-1] != count or (np.diff(pointers) < 0).any():
                    raise ValueError("row pointers that do not lead from 0 to the number of entries of their block")
                position += pointer_bytes
            elif data[position : position + pointer_bytes] == bytes(pointer_bytes):
                position += pointer_bytes
        seen.add(cell)
    check_cells(seen, announced, may_lack=False)
    return _Walk(step, dimension, value, pointer, blocks, position)


def _read_blocks(data: bytes, walk: _Walk, blocks: list[tuple[Cell, int, int]]) -> CellMatrices:
    values, columns, pointers = [np.zeros(0, walk.value)], [np.zeros(0, "<i4")], [np.zeros(0, walk.pointer)]
    for _, position, count in blocks:
        values.append(np.frombuffer(data, walk.value, count, position))
        columns.append(np.frombuffer(data, "<i4", count, position + values[-1].nbytes))
        end = position + values[-1].nbytes + columns[-1].nbytes
        pointers.append(np.frombuffer(data, walk.pointer, walk.dimension + 1, end))
    cells = np.array([cell for cell, _, _ in blocks], dtype=np.int64).reshape(-1, 3)
    entries = np.concatenate(values)
    if not np.isfinite(entries).all():
        raise ValueError("is damaged: an entry is not a finite number")
    try:
        return CellMatrices.of(
            Header(None, walk.dimension),
            cells,
            np.concatenate(pointers).astype(np.int64).reshape(len(blocks), walk.dimension + 1),
            np.concatenate(columns).astype(np.int64),
            entries,
        )
    except ValueError as error:
        raise ValueError(f"is damaged: {error}") from None


def _integers(data: Data, position: int, count: int) -> tuple[int, ...]:
    try:
        return struct.unpack_from(f"<{count}i", data, position)
    except struct.error:
        raise ValueError(f"it ends at byte {len(data)}, within a block") from None
