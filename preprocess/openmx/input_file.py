"""The input file of OpenMX: keywords, blocks, and the few of them that a Material needs."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pymatgen.core.periodic_table import Element

from deeph_tracegrad import units
from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.orbitals import SHELL_LETTERS, ElementBasis

MAX_RADIAL_FUNCTIONS = 20
DEFAULT_SCF_CRITERION = 1e-6

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class InputFile:
    """The text of an input file, taken apart. Capitals do not matter in keywords, and the first occurrence counts.

    keywords: words after each keyword, by the keyword in lower case.
    blocks: rows of words between `<Name` and `Name>`, by the name in lower case.
    """

    path: Path
    keywords: Mapping[str, tuple[str, ...]]
    blocks: Mapping[str, tuple[tuple[str, ...], ...]]

    def block(self, name: str) -> tuple[tuple[str, ...], ...]:
        """The rows of a block.

        Raises:
            ReadError: the input has no such block.
        """
        if name.lower() not in self.blocks:
            raise ReadError(self.path, f"the OpenMX input has no block <{name}")
        return self.blocks[name.lower()]

    def word(self, keyword: str, default: str) -> str:
        """The first word after a keyword, in lower case."""
        words = self.keywords.get(keyword.lower())
        return words[0].lower() if words else default

    def number(self, keyword: str, default: float) -> float:
        """The number after a keyword.

        Raises:
            ReadError: it is not a number.
        """
        word = self.word(keyword, str(default))
        try:
            return float(word)
        except ValueError:
            raise ReadError(self.path, f"the OpenMX input gives {keyword} as {word!r}, not a number") from None


@dataclass(frozen=True)
class PathSegment:
    """One line of the block Band.kpath: `points` k-points from `start` to `end`, both included.

    start, end: fractions of the reciprocal vectors. labels: names of the two ends, empty where not given.
    """

    points: int
    start: Vector
    end: Vector
    labels: tuple[str, str]


def parse_input(text: str, path: Path) -> InputFile:
    """Take the text of an input file apart; `path` is where it came from.

    Raises:
        ReadError: a block has no end.
    """
    keywords: dict[str, tuple[str, ...]] = {}
    blocks: dict[str, tuple[tuple[str, ...], ...]] = {}
    name: str | None = None
    rows: list[tuple[str, ...]] = []
    for line in text.splitlines():
        words = tuple(line.split("#", 1)[0].split())
        if not words:
            continue
        if name is None and words[0].startswith("<"):
            name, rows = words[0][1:].lower(), []
        elif name is not None and words[0].lower() == f"{name}>":
            blocks.setdefault(name, tuple(rows))
            name = None
        elif name is not None:
            rows.append(words)
        else:
            keywords.setdefault(words[0].lower(), words[1:])
    if name is not None:
        raise ReadError(path, f"the block <{name} of the OpenMX input has no end")
    return InputFile(path, keywords, blocks)


def parse_species(source: InputFile) -> dict[str, tuple[str, ElementBasis]]:
    """Element and basis of each species, by the name that the input gives it.

    Raises:
        ReadError: a species cannot be understood, or one element has two bases.
    """
    species: dict[str, tuple[str, ElementBasis]] = {}
    bases: dict[str, ElementBasis] = {}
    for row in source.block("Definition.of.Atomic.Species"):
        if len(row) < 3:
            raise ReadError(source.path, f"the species {' '.join(row)!r} needs a name, a basis and a pseudopotential")
        name, label, potential = row[:3]
        element = _element(name, label, potential, source.path)
        basis = _parse_basis(label, source.path)
        if bases.setdefault(element, basis) != basis:
            raise ReadError(
                source.path,
                f"{element} has the basis {bases[element].label} in one species and {label} in another; "
                "only one basis an element is supported",
            )
        species[name] = (element, basis)
    return species


def parse_atoms(source: InputFile) -> list[str]:
    """The species of each atom, in order.

    Raises:
        ReadError: the table is missing or broken.
    """
    rows = source.block("Atoms.SpeciesAndCoordinates")
    if any(len(row) < 2 for row in rows):
        raise ReadError(source.path, "a line of the block <Atoms.SpeciesAndCoordinates has no species")
    return [row[1] for row in rows]


def parse_path_segment(words: Sequence[str], path: Path) -> PathSegment:
    """One line of a band path: number of points, start, end, and maybe their labels.

    Raises:
        ReadError: it is something else.
    """
    try:
        points, numbers = int(words[0]), [float(word) for word in words[1:7]]
        start, end = (numbers[0], numbers[1], numbers[2]), (numbers[3], numbers[4], numbers[5])
    except (ValueError, IndexError):
        points, start, end = 0, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0)
    if not 1 <= points <= 1_000_000 or not all(abs(number) < 1000 for number in (*start, *end)):
        raise ReadError(
            path, f"the line {' '.join(words)!r} of a band path is not 'points kx ky kz kx ky kz label label'"
        )
    labels = (*words[7:9], "", "")
    return PathSegment(points, start, end, (labels[0], labels[1]))


def _parse_basis(label: str, path: Path) -> ElementBasis:
    """From a label such as C6.0-s2p2d1 or Si7.0-s4>2p4>2d1, where the number after > is that of contracted orbitals."""
    stem, _, shells = label.partition("-")
    parts = re.findall(r"([spdfg])(\d{1,4})(?:>(\d{1,4}))?", shells)
    written = "".join(f"{letter}{first}" + (f">{second}" if second else "") for letter, first, second in parts)
    counts = {letter: int(second or first) for letter, first, second in parts}
    if written != shells or len(counts) != len(parts) or not 0 < sum(counts.values()) <= MAX_RADIAL_FUNCTIONS:
        raise ReadError(path, f"the basis {label!r} of the OpenMX input is not of the form C6.0-s2p2d1")
    degrees = [degree for degree, letter in enumerate(SHELL_LETTERS) for _ in range(counts.get(letter, 0))]
    radius = re.match(r"[A-Z][a-z]?(\d{1,2}(?:\.\d{1,3})?)", stem)
    cutoff = float(radius[1]) * units.OPENMX_BOHR_ANGSTROM if radius else None
    return ElementBasis(tuple(degrees), cutoff, label)


def _element(name: str, label: str, potential: str, path: Path) -> str:
    """The element of a species.

    Its name is free (Fe_up, Cs for a surface carbon), so the names of the basis and pseudopotential files count first.
    """
    if potential == "E":
        raise ReadError(path, f"the species {name} is an empty atom (orbitals without a nucleus), not supported")
    found = [
        match[1] if match and Element.is_valid_symbol(match[1]) else None
        for match in (
            re.match(r"([A-Z][a-z]?)(?=_)", potential),
            re.match(r"([A-Z][a-z]?)(?=\d)", label),
            re.match(r"([A-Z][a-z]?)(?![a-z])", name),
        )
    ]
    of_potential, of_basis, of_name = found
    if of_potential and of_potential == of_basis:
        return of_potential
    if of_name and of_name in (of_potential, of_basis):
        return of_name
    known = of_potential or of_basis or of_name
    if known is None or (of_potential and of_basis):
        raise ReadError(path, f"the element of the species {name!r} ({label}, {potential}) cannot be told")
    return known
