"""Cell and atoms of an ABACUS run, from STRU or from the header of a newer CSR file.

Shape letters: N atoms.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.preprocess.abacus.text import numbers
from deeph_tracegrad.structures.checks import LONGEST_VECTOR, THINNEST_CELL, heights

LARGEST_DEVIATION = 2e-5  # relative: logs and headers print six digits


@dataclass(frozen=True, eq=False)
class Geometry:
    """A cell with labelled atoms, in the order of the matrices.

    path: the file it comes from. labels: (N,) as in STRU: an element, perhaps with a number or a suffix.
    lattice: (3, 3) Å, rows. fractional: (N, 3).
    orbital_files: .orb file name of each label, where the source names it.
    """

    path: Path
    labels: tuple[str, ...]
    lattice: np.ndarray
    fractional: np.ndarray
    orbital_files: Mapping[str, str] = field(default_factory=dict)

    def placed_like(self, other: "Geometry") -> "Geometry":
        """The same atoms, each in the periodic image that it has in `other`.

        ABACUS moves atoms into the cell before it counts R, and what it made of them it prints with fewer digits.

        Raises:
            ReadError: the two are not the same structure.
        """
        if len(other.labels) != len(self.labels):
            raise ReadError(
                self.path, f"has {len(self.labels)} atoms where {other.path} has {len(other.labels)}; was it edited?"
            )
        moved = replace(self, fractional=self.fractional + np.rint(other.fractional - self.fractional))
        longest = np.linalg.norm(self.lattice, axis=1).max()
        deviation = max(
            np.abs(moved.fractional - other.fractional).max(), np.abs(moved.lattice - other.lattice).max() / longest
        )
        if not deviation < LARGEST_DEVIATION:
            raise ReadError(
                self.path,
                f"is not the structure of this run: it differs from {other.path} by {deviation * longest:.2g} Å; "
                "was it edited?",
            )
        return moved

    def same_lattice(self, lattice: np.ndarray) -> bool:
        """Whether a lattice is this one to the digits that logs and headers print; lattice: (3, 3) Å."""
        longest = np.linalg.norm(self.lattice, axis=1).max()
        return bool(np.abs(self.lattice - lattice).max() < LARGEST_DEVIATION * longest)

    def wrapped(self) -> "Geometry":
        """All atoms in the cell, as ABACUS puts them: 0 <= fractional < 1."""
        return replace(self, fractional=np.fmod(np.fmod(self.fractional, 1.0) + 1.0, 1.0))


def spanning(path: Path, lattice: np.ndarray) -> np.ndarray:
    """The lattice itself, (3, 3) Å.

    Raises:
        ReadError: its vectors do not span a cell, or not one of possible size.
    """
    if not (np.abs(lattice) < LONGEST_VECTOR).all() or heights(lattice).min() < THINNEST_CELL:
        raise ReadError(path, f"the lattice vectors {lattice.tolist()} Å do not span a cell")
    return lattice


def parse_csr_structure(path: Path, text: str) -> Geometry:
    """The POSCAR-like unit cell in the header of a CSR file: name, scale in Å, vectors, labels, counts, coordinates.

    Raises:
        ReadError: it is not complete.
    """
    lines = [words for line in text.splitlines() if (words := line.split()) and not words[0].startswith("#")]
    if len(lines) < 8 or len(lines[5]) != len(lines[6]):
        raise ReadError(path, "the unit cell in its header is not complete")
    scale = numbers(path, lines[1], 1, "the lattice constant in the header")[0]
    lattice = scale * np.array([numbers(path, words, 3, "a lattice vector in the header") for words in lines[2:5]])
    counts = [int(number) for number in numbers(path, lines[6], len(lines[6]), "the header's line of atom counts")]
    positions = np.array([numbers(path, words, 3, "a position in the header") for words in lines[8:]]).reshape(-1, 3)
    if min(counts) < 0 or not sum(counts) == len(positions) > 0 or lines[7] != ["Direct"]:
        raise ReadError(path, f"its header announces {sum(counts)} atoms and lists {len(positions)} positions")
    labels = tuple(label for label, count in zip(lines[5], counts, strict=True) for _ in range(count))
    return Geometry(path, labels, spanning(path, lattice), positions)


def csr_structure(geometry: Geometry) -> str:
    """What `parse_csr_structure` reads, with all digits; the atoms of a label stand together."""
    labels = list(dict.fromkeys(geometry.labels))
    lines = [
        "user_defined_lattice",
        "1",
        *rows_of_numbers(geometry.lattice),
        " ".join(labels),
        " ".join(str(geometry.labels.count(label)) for label in labels),
        "Direct",
        *rows_of_numbers(geometry.fractional),
    ]
    return "".join(f" {line}\n" for line in lines)


def rows_of_numbers(rows: np.ndarray) -> list[str]:
    """A line for each row, with the digits that give back every bit."""
    return [" ".join(map(repr, row)) for row in rows.tolist()]
