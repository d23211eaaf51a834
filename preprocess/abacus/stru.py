"""STRU: the structure of an ABACUS run, with the digits that the user gave it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from pymatgen.core import Element

from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.preprocess.abacus.geometry import Geometry, rows_of_numbers, spanning
from deeph_tracegrad.preprocess.abacus.lattices import NAMED_LATTICES
from deeph_tracegrad.preprocess.abacus.text import bare_lines, numbers
from deeph_tracegrad.structures.labels import element_of
from deeph_tracegrad.text_tables import read_text
from deeph_tracegrad.units import ABACUS_BOHR_ANGSTROM

KEYWORDS = (
    "ATOMIC_SPECIES",
    "NUMERICAL_ORBITAL",
    "LATTICE_CONSTANT",
    "LATTICE_VECTORS",
    "LATTICE_PARAMETERS",
    "ATOMIC_POSITIONS",
    "NUMERICAL_DESCRIPTOR",
    "ABFS_ORBITAL",
    "PAW_FILES",
)
CENTERED_AXES = {
    "Cartesian_angstrom_center_xy": (1, 1, 0),
    "Cartesian_angstrom_center_xz": (1, 0, 1),
    "Cartesian_angstrom_center_yz": (0, 1, 1),
    "Cartesian_angstrom_center_xyz": (1, 1, 1),
}

Lines = list[list[str]]


def read_stru(path: Path, latname: str = "none") -> Geometry:
    """Read a STRU file.

    Args:
        path: the file.
        latname: the parameter of that name in INPUT.

    Returns:
        The geometry; atoms may lie outside the cell.

    Raises:
        ReadError: the file cannot be read, or something is missing from it or ill-formed.
    """
    sections = _sections(path)
    constant = numbers(path, _section(path, sections, "LATTICE_CONSTANT")[0], 1, "LATTICE_CONSTANT")[0]
    constant *= ABACUS_BOHR_ANGSTROM
    lattice = spanning(path, constant * _lattice(path, sections, latname))
    species = [words[0] for words in _section(path, sections, "ATOMIC_SPECIES")]
    orbitals = [words[0] for words in sections.get("NUMERICAL_ORBITAL", [])]
    if orbitals and len(orbitals) != len(species):
        raise ReadError(
            path, f"{len(species)} species are in ATOMIC_SPECIES and {len(orbitals)} files in NUMERICAL_ORBITAL"
        )
    (kind, *_), *atoms = _section(path, sections, "ATOMIC_POSITIONS")
    labels, positions = _atoms(path, atoms, species)
    orbital_files = dict(zip(species, orbitals, strict=True)) if orbitals else {}
    return Geometry(path, labels, lattice, _fractional(path, kind, positions, lattice, constant), orbital_files)


def write_stru(geometry: Geometry, path: Path) -> None:
    """Write a STRU with all digits.

    The pseudopotentials, which nothing here knows, are named after the species, and so are the orbital files that the
    geometry does not name; the user is to put in the real names.

    geometry: with the atoms of each species together.
    """
    species = list(dict.fromkeys(geometry.labels))
    lines = ["ATOMIC_SPECIES"]
    lines += [f"{name} {float(Element(element_of(name, path)).atomic_mass)} {name}.upf" for name in species]
    lines += ["", "NUMERICAL_ORBITAL", *(geometry.orbital_files.get(name, f"{name}.orb") for name in species)]
    lines += ["", "LATTICE_CONSTANT", repr(1 / ABACUS_BOHR_ANGSTROM)]
    lines += ["", "LATTICE_VECTORS", *rows_of_numbers(geometry.lattice)]
    lines += ["", "ATOMIC_POSITIONS", "Direct"]
    positions = rows_of_numbers(geometry.fractional)
    for name in species:
        own = [position for label, position in zip(geometry.labels, positions, strict=True) if label == name]
        lines += ["", name, "0.0", str(len(own)), *(f"{position} 1 1 1" for position in own)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _sections(path: Path) -> dict[str, Lines]:
    sections: dict[str, Lines] = {}
    current: Lines | None = None
    for words in bare_lines(read_text(path, errors="replace")):
        if words[0] in KEYWORDS:
            current = sections.setdefault(words[0], [])
        elif current is not None:
            current.append(words)
    return sections


def _section(path: Path, sections: Mapping[str, Lines], keyword: str) -> Lines:
    if not sections.get(keyword):
        raise ReadError(path, f"{keyword} is missing or empty; is this a whole STRU file of ABACUS?")
    return sections[keyword]


def _lattice(path: Path, sections: Mapping[str, Lines], latname: str) -> np.ndarray:
    """The vectors in units of the lattice constant, (3, 3)."""
    if latname in ("none", "user_defined_lattice"):
        rows = _section(path, sections, "LATTICE_VECTORS")
        if len(rows) != 3:
            raise ReadError(path, f"LATTICE_VECTORS should be three lines, not {len(rows)}")
        return np.array([numbers(path, words, 3, "a line of LATTICE_VECTORS") for words in rows])
    if latname not in NAMED_LATTICES:
        raise ReadError(path, f"INPUT names the lattice '{latname}'; known are {', '.join(NAMED_LATTICES)}")
    count, vectors = NAMED_LATTICES[latname]
    words = [word for line in sections.get("LATTICE_PARAMETERS", []) for word in line]
    try:
        return np.array(vectors(*numbers(path, words, count, f"LATTICE_PARAMETERS of the lattice '{latname}'")))
    except ValueError as error:  # the root of a negative number
        raise ReadError(path, f"LATTICE_PARAMETERS {' '.join(words)} give no '{latname}' lattice") from error


def _atoms(path: Path, lines: Lines, species: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """Label and position of every atom: for each species its label, magnetism, count, then one line an atom."""
    labels: list[str] = []
    positions: list[list[float]] = []
    place = 0
    for expected in species:
        if len(lines) < place + 3:
            raise ReadError(path, f"ATOMIC_POSITIONS ends before the species {expected}")
        (label, *_), _, (count, *_) = lines[place : place + 3]
        if label != expected:
            raise ReadError(path, f"ATOMIC_POSITIONS has '{label}' where ATOMIC_SPECIES lets expect {expected}")
        if not count.isdecimal() or len(count) > 9:
            raise ReadError(path, f"the number of {label} atoms is given as '{count[:80]}'")
        own = lines[place + 3 : place + 3 + int(count)]
        if len(own) < int(count):
            raise ReadError(path, f"{count} atoms of {label} are announced and {len(own)} given")
        positions += [numbers(path, words, 3, f"the position of a {label} atom") for words in own]
        labels += [label] * int(count)
        place += 3 + int(count)
    if place != len(lines):
        raise ReadError(path, f"ATOMIC_POSITIONS goes on after the last species: '{' '.join(lines[place])[:80]}'")
    if not labels:
        raise ReadError(path, "there are no atoms")
    return tuple(labels), np.array(positions)


def _fractional(path: Path, kind: str, positions: np.ndarray, lattice: np.ndarray, constant: float) -> np.ndarray:
    """Fractions of the lattice vectors, (N, 3). constant: the lattice constant in Å."""
    if kind == "Direct":
        return positions
    scales = {"Cartesian": constant, "Cartesian_au": ABACUS_BOHR_ANGSTROM, "Cartesian_angstrom": 1.0}
    scales |= dict.fromkeys(CENTERED_AXES, 1.0)
    if kind not in scales:
        raise ReadError(path, f"'{kind}' is no kind of ATOMIC_POSITIONS; known are Direct, {', '.join(scales)}")
    # Along the other Cartesian axes the origin stays.
    origin = 0.5 * lattice.sum(axis=0) * CENTERED_AXES.get(kind, (0, 0, 0))
    return (positions * scales[kind] + origin) @ np.linalg.inv(lattice)
