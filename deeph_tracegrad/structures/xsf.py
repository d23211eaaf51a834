"""XCrySDen's structure files, http://www.xcrysden.org/doc/XSF.html, of one crystal each."""

from pathlib import Path

import numpy as np
from pymatgen.core import Element, Structure

from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.structures.checks import checked_lattice
from deeph_tracegrad.structures.labels import element_of
from deeph_tracegrad.text_tables import read_numbers, read_text

MAX_ATOMIC_NUMBER = 118


def read_xsf(path: Path) -> Structure:
    """Read the atoms (PRIMCOORD) and the cell (PRIMVEC) of an XSF file, in Å; forces and grids are left unread.

    Raises:
        ReadError: the file cannot be read, is cut off, is no XSF, a molecule, or an animation.
    """
    lines = [words for line in _lines(path) if (words := line.split("#", 1)[0].split())]
    places: dict[str, int] = {}
    for place, words in enumerate(lines):
        places.setdefault(words[0].upper(), place)
    if "ANIMSTEPS" in places:
        raise ReadError(path, "is an animation; keep one structure a file")
    if "PRIMVEC" not in places or "PRIMCOORD" not in places:
        raise ReadError(path, "has no PRIMVEC and PRIMCOORD: an XSF of a periodic structure has both")
    vectors = lines[places["PRIMVEC"] + 1 : places["PRIMVEC"] + 4]
    start = places["PRIMCOORD"] + 1
    header = lines[start] if start < len(lines) else []
    if len(header) != 2 or not header[0].isdecimal() or len(header[0]) > 9:
        raise ReadError(path, "the number of atoms and 1 should follow PRIMCOORD")
    rows = lines[start + 1 : start + 1 + int(header[0])]
    if len(vectors) < 3 or len(rows) < int(header[0]):
        raise ReadError(path, f"announces {int(header[0])} atoms and ends before them; the file is cut off")
    labels = [_label(path, words[0]) for words in rows]
    return Structure(
        checked_lattice(path, np.array([read_numbers(path, words, 3) for words in vectors])),
        [element_of(label, path) for label in labels],
        np.reshape([read_numbers(path, words[1:4], 3) for words in rows], (-1, 3)),
        coords_are_cartesian=True,
        labels=labels,
    )


def _lines(path: Path) -> list[str]:
    """The lines of the file, whose last number is whole: pymatgen ends no line there, but has as many digits in all."""
    lines = read_text(path).split("\n")
    decimals = [line.rpartition(".")[2] for line in lines[-2:]]
    if lines[-1] and len(decimals[0]) != len(decimals[-1]):
        raise ReadError(
            path, "the last line does not end with a line break, so the file may be cut off; add one if not"
        )
    return lines


def _label(path: Path, word: str) -> str:
    """The symbol of an atom, which may be given as its atomic number (0 is an atom without nucleus)."""
    if not word.isdecimal():
        return word
    if len(word) > 3 or int(word) > MAX_ATOMIC_NUMBER:
        raise ReadError(path, f"{word[:20]!r} is no atomic number")
    return Element.from_Z(int(word)).symbol if int(word) else "X"
