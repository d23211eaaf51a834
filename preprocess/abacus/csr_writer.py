"""H(R) and S(R) in the text layout of ABACUS from 3.9.0.25 on, line for line as its own reader takes it.

That reader (`csrFileReader`, behind `init_chg hr`) counts lines: six of the header, a blank one, the unit cell, a blank
one, eight comments, then for each cell R a blank line and the block. It needs entries in every block.

Shape letters: M rows of the matrix, E atom pairs, B flat block entries.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from deeph_tracegrad.blocks import BlockMatrix

VALUES_IN_LINE, INDICES_IN_LINE = 8, 16
COMMENTS = """\
 #--------------------------------------------------------------#
 #                          CSR Format                          #
 # A block for each lattice vector R: its three integers and    #
 # the number of entries, then                                  #
 # their values (H in Ry, S without unit),                      #
 # the column of each, from 0, and                              #
 # where each row begins among them.                            #
 #--------------------------------------------------------------#
"""


@dataclass(frozen=True)
class CsrHeader:
    """What a file tells before its blocks.

    matrix: H or S. structure: the lines of the unit cell. nspin: as in INPUT. spin: the channel, from 1.
    """

    matrix: str
    structure: str
    nspin: int
    spin: int = 1


def write_csr(path: Path, header: CsrHeader, blocks: BlockMatrix) -> None:
    """Write every entry that is not zero, with all its digits.

    blocks: Hermitian, in the unit and order of the file, as `Layout.for_file` gives them.
    """
    occupied = np.add.reduceat(blocks.entries != 0, blocks.offsets[:-1]) > 0  # no block has size 0
    pairs = blocks.pairs[occupied]
    ordered = blocks.on_pairs(pairs[np.lexsort(pairs[:, [2, 1, 0]].T)])
    cells = ordered.pairs[:, :3]
    begins = np.flatnonzero(np.diff(cells, axis=0, prepend=cells[:1] - 1).any(axis=1)).tolist()
    with path.open("w", encoding="utf-8") as file:
        file.write(
            f" --- Ionic Step 1 ---\n # print {header.matrix} matrix in real space {header.matrix}(R)\n"
            f" {header.nspin} # number of spin directions\n {header.spin} # spin index\n"
            f" {blocks.sizes.sum()} # number of localized basis\n"
            f" {len(begins)} # number of Bravais lattice vector R\n\n{header.structure}\n{COMMENTS}\n"
        )
        for begin, end in zip(begins, [*begins[1:], len(ordered)], strict=True):
            file.writelines(_block(cells[begin], _matrix(ordered, begin, end)))


def _matrix(blocks: BlockMatrix, begin: int, end: int) -> csr_matrix:
    """The nonzero entries of some pairs, which share one R, (M, M)."""
    rows, columns = blocks.pairs[begin:end, 3:].T
    starts = np.cumsum(blocks.sizes) - blocks.sizes
    first, last = blocks.offsets[begin], blocks.offsets[end]
    pair = np.repeat(np.arange(end - begin), np.diff(blocks.offsets[begin : end + 1]))
    row, column = np.divmod(np.arange(first, last) - blocks.offsets[begin:end][pair], blocks.sizes[columns][pair])
    places = np.stack([row + starts[rows][pair], column + starts[columns][pair]])
    values = blocks.entries[first:last]
    present = values != 0
    return csr_matrix((values[present], places[:, present]), shape=(blocks.sizes.sum(),) * 2)


def _block(cell: np.ndarray, matrix: csr_matrix) -> Iterator[str]:
    yield f" {' '.join(map(str, cell))} {matrix.nnz}\n # CSR values\n"
    yield from _lines(matrix.data, VALUES_IN_LINE, _spinor_word if np.iscomplexobj(matrix.data) else "{:.16e}".format)
    yield " # CSR column indices\n"
    yield from _lines(matrix.indices, INDICES_IN_LINE, str)
    yield " # CSR row pointers\n"
    yield from _lines(matrix.indptr, INDICES_IN_LINE, str)
    yield "\n"


def _spinor_word(value: complex) -> str:
    return f"({value.real:.16e},{value.imag:.16e})"


def _lines(numbers: np.ndarray, width: int, word: Callable[[Any], str]) -> Iterator[str]:
    for begin in range(0, len(numbers), width):
        yield f" {' '.join(map(word, numbers[begin : begin + width].tolist()))}\n"
