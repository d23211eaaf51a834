"""Writers of ABACUS' matrix files, MD_dump and logs, for the tests: the layouts as ABACUS' own code has them.

A matrix is a dictionary from the cell R to the dense array (M, M); r(R) has (3, M, M).
"""

import re
import struct
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix

from abacus_layout import BANNER, read_blocks

Cell = tuple[int, int, int]
Matrix = dict[Cell, np.ndarray]

THRESHOLD = 1e-10
BOHR = 0.529177


def dense(path: Path) -> Matrix:
    """A file of the older layout, with one step."""
    _, dimension, blocks = read_blocks(path)
    matrix = {}
    for cell, parts in blocks.items():
        values, columns, pointers = parts or ([], [], ["0"] * (dimension + 1))
        entries = [complex(*map(float, word.strip("()").split(","))) for word in values]
        array = csr_matrix(
            (entries, [int(word) for word in columns], [int(word) for word in pointers]), [dimension] * 2
        )
        matrix[tuple(int(index) for index in cell)] = array.toarray()
    is_complex = any(word.startswith("(") for parts in blocks.values() for word in (parts or [[]])[0][:1])
    return {cell: array if is_complex else array.real for cell, array in matrix.items()}


def older_text(kind: str, matrix: Matrix, step: int = 0) -> str:
    """STEP counts from 0; what has no entry is a line with nnz 0."""
    dimension = next(iter(matrix.values())).shape[-1]
    text = f"STEP: {step}\nMatrix Dimension of {kind}(R): {dimension}\nMatrix number of {kind}(R): {len(matrix)}\n"
    for cell, array in matrix.items():
        own, parts = _parts(array)
        text += f"{' '.join(map(str, cell))} {own.nnz}\n" + "".join(f" {' '.join(part)}\n" for part in parts if own.nnz)
    return text


def position_text(matrix: Matrix, step: int = 0) -> str:
    """R, then for each axis nnz and the arrays; only cells with entries."""
    matrix = {cell: arrays for cell, arrays in matrix.items() if (abs(arrays) > THRESHOLD).any()}
    dimension = next(iter(matrix.values())).shape[-1]
    text = f"STEP: {step}\nMatrix Dimension of r(R): {dimension}\nMatrix number of r(R): {len(matrix)}\n"
    for cell, arrays in matrix.items():
        text += f"{' '.join(map(str, cell))}\n"
        for array in arrays:
            own, parts = _parts(array)
            text += f"{own.nnz}\n" + "".join(f" {' '.join(part)}\n" for part in parts if own.nnz)
    return text


def newer_text(kind: str, matrix: Matrix, cell_text: str, step: int = 0) -> str:
    """The header counts from 1 and holds the unit cell; cells without entries are left out, the number of all stays.

    DM is written without the lines about spin.
    """
    dimension = next(iter(matrix.values())).shape[-1]
    name, spin = ("density", "") if kind == "DM" else (kind, " 1 # number of spin directions\n 1 # spin index\n")
    text = (
        f" --- Ionic Step {step + 1} ---\n # print {name} matrix in real space {kind}(R)\n{spin}"
        f" {dimension} # number of localized basis\n {len(matrix)} # number of Bravais lattice vector R\n\n"
        f"{cell_text}\n{BANNER}\n"
    )
    for cell, array in sorted(matrix.items()):
        own, (values, columns, pointers) = _parts(array)
        if own.nnz:
            text += f" {' '.join(map(str, cell))} {own.nnz}\n # CSR values\n{_wrapped(values, 6)}"
            text += f" # CSR column indices\n{_wrapped(columns, 16)} # CSR row pointers\n{_wrapped(pointers, 16)}\n"
    return text


def binary(matrix: Matrix, step: int = 0, *, pointer: str = "<i8", empty_pointers: bool = True) -> bytes:
    """pointer: type of the row pointers. empty_pointers: whether cells without entries have them."""
    dimension = next(iter(matrix.values())).shape[-1]
    content = struct.pack("<3i", step, dimension, len(matrix))
    for cell, arrays in sorted(matrix.items()):
        content += struct.pack("<3i", *cell)
        for array in arrays if arrays.ndim == 3 else [arrays]:
            own = _sparse(array)
            content += struct.pack("<i", own.nnz) + own.data.tobytes() + own.indices.astype("<i4").tobytes()
            content += own.indptr.astype(pointer).tobytes() if own.nnz or empty_pointers else b""
    return content


def md_dump(step: int, constant: float, lattice: np.ndarray, labels: list[str], fractional: np.ndarray) -> str:
    """constant: in bohr. lattice: in units of it."""
    positions = fractional @ lattice * constant / 1.889727
    rows = "".join(f"  {'  '.join(f'{x:.12f}' for x in row)}\n" for row in lattice)
    atoms = "".join(
        f"  {place}  {label}  {'  '.join(f'{x:.12f}' for x in position)}  0.01  0.02  0.03\n"
        for place, (label, position) in enumerate(zip(labels, positions, strict=True))
    )
    return (
        f"MDSTEP:  {step}\nLATTICE_CONSTANT: {constant * BOHR:.12f} Angstrom\nLATTICE_VECTORS\n{rows}"
        f"INDEX    LABEL    POSITION (Angstrom)    FORCE (eV/Angstrom)\n{atoms}\n\n"
    )


def moving_log(log: str, headings: list[str], fermi: list[float], tables: list[str | None]) -> str:
    """A log of several ionic steps, from that of one: its iterations again for each step.

    headings: what ABACUS prints before each step. tables: what it prints before that, such as new positions.
    """
    start, own = log.split("\n LCAO ALGORITHM", 1)
    text = start
    for place, (heading, level, table) in enumerate(zip(headings, fermi, tables, strict=True)):
        step = re.sub(r"ION= +1 ", f"ION={place + 1:4} ", own)
        step = re.sub(r"EFERMI = \S+", f"EFERMI = {level}", step)
        text += f"{table or ''}\n\n {heading}\n\n\n LCAO ALGORITHM{step}"
    return text


def position_table(labels: list[str], fractional: np.ndarray) -> str:
    """As a relaxation prints it after each move."""
    lines = "".join(
        f"taud_{label}1 {' '.join(f'{x:19.10f}' for x in position)}  0.0000 {'        0.0000000000' * 3}\n"
        for label, position in zip(labels, fractional, strict=True)
    )
    return (
        f"DIRECT COORDINATES\n    atom                   x                   y                   z     mag\n{lines}\n\n"
    )


def lattice_table(lattice: np.ndarray) -> str:
    rows = "".join("".join(f"{x:+20.6g}" for x in row) + "\n" for row in lattice)
    return f"\n Lattice vectors: (Cartesian coordinate: in unit of a_0)\n{rows}"


def _sparse(array: np.ndarray) -> csr_matrix:
    return csr_matrix(np.where(abs(array) > THRESHOLD, array, 0))


def _parts(array: np.ndarray) -> tuple[csr_matrix, list[list[str]]]:
    own = _sparse(array)
    values = [f"({x.real:.8e},{x.imag:.8e})" if np.iscomplexobj(array) else f"{x:.8e}" for x in own.data]
    return own, [values, [str(index) for index in own.indices], [str(index) for index in own.indptr]]


def _wrapped(words: list[str], width: int) -> str:
    return "".join(f" {' '.join(words[begin : begin + width])}\n" for begin in range(0, len(words), width)) or "\n"
