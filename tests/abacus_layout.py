"""Rewriting of ABACUS' CSR files, for the tests: into the layout of 3.11 and later, or cut down to a few cells."""

from pathlib import Path

BANNER = """\
 #----------------------------------------------------------------------#
 #                               CSR Format                             #
 # The outer loop corresponds to the number of Bravais lattice vectors. #
 # The first line contains the index of the Bravais lattice vector      #
 # (Rx, Ry, Rz), followed by the number of non-zero elements.           #
 # The subsequent lines consist of three blocks of data, which are      #
 # values, column indices, row pointers.                                #
 #----------------------------------------------------------------------#
"""

SI2_CELL = """\
 user_defined_lattice
 1
 0 2.715 2.715
 2.715 0 2.715
 2.715 2.715 0
 Si
 2
 Direct
 0 0 0
 0.25 0.25 0.25
"""

BI_CELL = """\
 user_defined_lattice
 1
 4.34 0 0
 -2.17 3.75855 0
 0 0 16
 Bi
 2
 Direct
 0.333333 0.666667 0.445625
 0.666667 0.333333 0.554375
"""

FE_CELL = """\
 user_defined_lattice
 1
 -1.433 1.433 1.433
 1.433 -1.433 1.433
 1.433 1.433 -1.433
 Fe
 1
 Direct
 0 0 0
"""

Blocks = dict[tuple[str, str, str], list[list[str]]]


def read_blocks(path: Path) -> tuple[str, int, Blocks]:
    """Matrix name, dimension, and for each cell its values, columns and pointers as text, of the older layout."""
    lines = path.read_text().splitlines()
    matrix, dimension = lines[1].split()[3][0], int(lines[1].split()[-1])
    blocks: Blocks = {}
    rest = iter(lines[3:])
    for line in rest:
        *cell, count = line.split()
        blocks[tuple(cell)] = [next(rest).split() for _ in range(3)] if int(count) else []
    return matrix, dimension, blocks


def older_layout(matrix: str, dimension: int, blocks: Blocks, *, step: bool = True) -> str:
    text = "STEP: 0\n" if step else ""
    text += f"Matrix Dimension of {matrix}(R): {dimension}\nMatrix number of {matrix}(R): {len(blocks)}\n"
    for cell, parts in blocks.items():
        text += f"{' '.join(cell)} {len(parts[0]) if parts else 0}\n"
        text += "".join(f" {' '.join(part)}\n" for part in parts)
    return text


def newer_layout(matrix: str, dimension: int, blocks: Blocks, cell_text: str, *, empty: str = "written") -> str:
    """empty: whether empty blocks are written with their pointers, or left out."""
    text = (
        f" --- Ionic Step 1 ---\n # print {matrix} matrix in real space {matrix}(R)\n 1 # number of spin directions\n"
        f" 1 # spin index\n {dimension} # number of localized basis\n"
        f" {len(blocks)} # number of Bravais lattice vector R\n\n{cell_text}\n{BANNER}\n"
    )
    for cell, parts in sorted(blocks.items(), key=lambda item: [int(index) for index in item[0]]):
        if not parts and empty != "written":
            continue
        values, columns, pointers = parts or ([], [], ["0"] * (dimension + 1))
        text += f" {' '.join(cell)} {len(values)}\n # CSR values\n{_wrapped(values, 6)} # CSR column indices\n"
        text += f"{_wrapped(columns, 16)} # CSR row pointers\n{_wrapped(pointers, 16)}\n"
    return text


def keep_cells(blocks: Blocks, cells: list[tuple[str, str, str]]) -> Blocks:
    return {cell: parts for cell, parts in blocks.items() if cell in cells}


def _wrapped(words: list[str], width: int) -> str:
    return "".join(f" {' '.join(words[begin : begin + width])}\n" for begin in range(0, len(words), width)) or "\n"
