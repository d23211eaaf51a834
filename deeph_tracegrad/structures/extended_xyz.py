"""Extended XYZ: an XYZ file whose second line gives the cell and says what the columns are.

https://github.com/libAtoms/extxyz: Lattice="ax ay az bx by bz cx cy cz" Properties=species:S:1:pos:R:3, in Å.
"""

import re
from pathlib import Path

import numpy as np
from pymatgen.core import Structure

from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.structures.checks import checked_lattice
from deeph_tracegrad.structures.labels import element_of
from deeph_tracegrad.text_tables import read_lines, read_numbers

PAIR = re.compile(r"""(?<!\S)(\w+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|'([^']*)'|\{([^}]*)\}|([^\s"'{]+))""")
PLAIN_COLUMNS = "species:S:1:pos:R:3"


def read_extended_xyz(path: Path) -> Structure:
    """Read the one structure of an extended XYZ file; what other columns hold is left unread.

    Raises:
        ReadError: the file cannot be read, is cut off, is no such file, has no cell, or holds several structures.
    """
    lines = read_lines(path)
    count = lines[0].strip()
    if not count.isdecimal() or len(count) > 9 or len(lines) < 2:
        raise ReadError(path, f"the first line of an XYZ file is the number of atoms, and here it is {lines[0][:40]!r}")
    rows, rest = lines[2 : 2 + int(count)], lines[2 + int(count) :]
    if len(rows) < int(count):
        raise ReadError(
            path, f"the first line announces {int(count)} atoms and only {len(rows)} lines follow the second"
        )
    if any(line.strip() for line in rest):
        raise ReadError(path, "more follows the last atom; keep one structure a file")
    settings = {match[1].lower(): next(filter(None, match.groups()[1:]), "") for match in PAIR.finditer(lines[1])}
    if "lattice" not in settings:
        raise ReadError(
            path,
            'has no cell: the second line should hold Lattice="ax ay az bx by bz cx cy cz" in Å (for a molecule, a box '
            "with empty space around it)",
        )
    cell = np.reshape(read_numbers(path, settings["lattice"].replace(",", " ").split(), 9), (3, 3))
    kind, place, width = _columns(path, settings.get("properties", PLAIN_COLUMNS))
    labels, positions = [], []
    for row in rows:
        words = row.split()
        if len(words) < width:
            raise ReadError(path, f"{width} columns were expected in the line {row.strip()[:60]!r}")
        labels.append(words[kind])
        positions.append(read_numbers(path, words[place : place + 3], 3))
    return Structure(
        checked_lattice(path, cell),
        [element_of(label, path) for label in labels],
        np.reshape(positions, (-1, 3)),
        coords_are_cartesian=True,
        labels=labels,
    )


def _columns(path: Path, properties: str) -> tuple[int, int, int]:
    """Where the species and the first coordinate stand, and the number of columns."""
    words = properties.split(":")
    start, places = 0, {}
    for name, number in zip(words[::3], words[2::3], strict=False):
        if not number.isdecimal() or len(number) > 3:
            break
        places[name.lower(), int(number)] = start
        start += int(number)
    if ("species", 1) not in places or ("pos", 3) not in places:
        raise ReadError(path, f"Properties should name species:S:1 and pos:R:3, not {properties[:60]!r}")
    return places["species", 1], places["pos", 3], start
