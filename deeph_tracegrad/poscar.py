"""POSCAR files (VASP 5): atoms in the file's order, neither wrapped nor sorted, every digit kept."""

import re
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from pymatgen.core import Lattice, Structure

from deeph_tracegrad.errors import MismatchError, ReadError
from deeph_tracegrad.structures.labels import element_of
from deeph_tracegrad.text_tables import read_lines, read_numbers

SMALLEST_VOLUME = 1e-3  # Å³, below which three vectors do not make a cell

_KIND = re.compile(r"([A-Z][a-z]?)(?:[^A-Za-z].*)?")  # Fe, and with what tells kinds of iron apart: Fe1, Fe_up


def read_poscar(path: Path | str) -> Structure:
    """Read a POSCAR with element symbols, in direct or Cartesian coordinates.

    One scale factor (a negative one is the cell's volume in Å³) or three. Line 6 may name an element several times, and
    with a suffix (Fe1, Fe_up), which the sites' labels keep; it may go on in further lines. Whatever follows the
    coordinates of an atom on its line must not be a number; whatever follows the atoms is left unread.

    Raises:
        ReadError: the file cannot be read, is cut off, or is no such POSCAR.
    """
    path = Path(path)
    lines = read_lines(path)
    if len(lines) < 8:
        raise ReadError(path, f"a POSCAR has at least 8 lines and this file has {len(lines)}")
    scale = _scale(path, lines[1], cell := _rows(path, lines[2:5]))
    cell = cell * scale
    with np.errstate(over="ignore"):  # infinite, then
        volume = abs(np.linalg.det(cell))
    if not np.isfinite(volume) or volume < SMALLEST_VOLUME:
        raise ReadError(path, "the lattice vectors in lines 3 to 5 span no volume")
    labels, counts, start = _kinds(path, lines)
    elements = [element_of(label, path) for label in labels]
    number = sum(counts)
    if start < len(lines) and lines[start].strip()[:1] in {"S", "s"}:
        start += 1  # "Selective dynamics" stands before the kind of coordinates
    kind = lines[start].strip()[:1].lower() if start < len(lines) else ""
    if kind not in {"c", "k", "d"}:
        raise ReadError(path, f"line {start + 1} should say Direct or Cartesian")
    rows = lines[start + 1 : start + 1 + number]
    if len(rows) < number:
        raise ReadError(path, f"lines 6 and 7 announce {number} atoms and only {len(rows)} follow")
    coordinates = _rows(path, rows)
    cartesian = kind != "d"
    return Structure(
        Lattice(cell),
        np.repeat(elements, counts).tolist(),
        coordinates * scale if cartesian else coordinates,
        coords_are_cartesian=cartesian,
        labels=np.repeat(labels, counts).tolist(),
    )


def write_poscar(structure: Structure, path: Path | str) -> None:
    """Write a POSCAR in direct coordinates that reads back to the last bit.

    Raises:
        MismatchError: the atoms of an element do not stand together, as the format needs.
    """
    groups = [(symbol, len(list(sites))) for symbol, sites in groupby(site.specie.symbol for site in structure)]
    symbols = [symbol for symbol, _ in groups]
    if len(set(symbols)) < len(symbols):
        raise MismatchError(f"a POSCAR needs the atoms of each element together; here they come as {' '.join(symbols)}")
    lines = [
        f"{structure.composition.reduced_formula} by deeph-tracegrad",
        "1.0",
        *_written(structure.lattice.matrix),
        " ".join(symbols),
        " ".join(str(count) for _, count in groups),
        "Direct",
        *_written(structure.frac_coords),
    ]
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _written(rows: np.ndarray) -> list[str]:
    return ["  " + "  ".join(repr(number) for number in row) for row in rows.tolist()]


def _rows(path: Path, lines: Sequence[str]) -> np.ndarray:
    """The three numbers of each line, (len(lines), 3)."""
    numbers = np.array([read_numbers(path, line.split()[:3], 3) for line in lines]).reshape(-1, 3)
    for line in lines:
        for word in line.split()[3:]:
            if word[0] in "0123456789.+-":
                raise ReadError(path, f"three numbers were expected in the line {line.strip()!r}")
    return numbers


def _scale(path: Path, line: str, cell: np.ndarray) -> np.ndarray:
    """The factor of each Cartesian component, (3,)."""
    words = re.split("[!#]", line, maxsplit=1)[0].split()
    factors = np.array(read_numbers(path, words, 3 if len(words) == 3 else 1))
    if len(factors) == 1 and factors[0] < 0:
        factors = np.cbrt(-factors / max(abs(np.linalg.det(cell)), SMALLEST_VOLUME))
    if not (factors > 0).all():
        raise ReadError(path, f"the scale in line 2 should be one number other than 0 or three positive ones: {line!r}")
    return np.broadcast_to(factors, 3)


def _kinds(path: Path, lines: Sequence[str]) -> tuple[list[str], list[int], int]:
    """Names of the kinds of atoms from line 6 on, the number of atoms of each, and where the next line stands.

    VASP goes on in further lines after twenty kinds.
    """
    place = 5
    labels: list[str] = []
    words: list[str] = []
    while place < len(lines) and lines[place].strip()[:1].isalpha():
        labels += lines[place].split()
        place += 1
    if not labels:
        raise ReadError(path, f"line 6 should name the elements (VASP 5): {lines[5].strip()!r}")
    first = place
    while place < len(lines) and len(words) < len(labels):
        words += lines[place].split()
        place += 1
    if len(words) != len(labels) or not all(word.isdecimal() and len(word) < 10 and int(word) > 0 for word in words):
        found = lines[first].strip() if first < len(lines) else ""
        raise ReadError(path, f"line {first + 1} should give the number of atoms of each of {labels}: {found!r}")
    counts = [int(word) for word in words]
    if sum(counts) > 10_000_000:
        raise ReadError(path, f"line {first + 1} announces {sum(counts)} atoms")
    return labels, counts, place
