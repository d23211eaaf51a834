"""The atoms of an OpenMX input: their species, elements, basis and valence electrons."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pymatgen.core.periodic_table import Element

from deeph_tracegrad import units
from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.orbitals import SHELL_LETTERS, Basis, ElementBasis
from deeph_tracegrad.preprocess.openmx.input_file import InputFile

MAX_RADIAL_FUNCTIONS = 20
EMPTY_ATOM = "E"  # the pseudopotential of orbitals without a nucleus
CHARGE_TOLERANCE = 1e-6  # electrons


@dataclass(frozen=True)
class InputAtoms:
    """The atoms in the input's order.

    names: of each atom's species, as the input calls it (Fe1, C_up). elements: its element symbol.
    basis: of the elements that occur, in the order of the input's species, without valence electrons.
    valence: electrons of each element's neutral atom; None where the input does not tell them, or in two ways.
    charge: electrons that the cell lacks.
    """

    names: tuple[str, ...]
    elements: tuple[str, ...]
    basis: Basis
    valence: dict[str, float] | None
    charge: float

    @property
    def electrons(self) -> float | None:
        """Valence electrons in the cell."""
        if self.valence is None:
            return None
        return sum(self.valence[element] for element in self.elements) - self.charge

    def basis_holding(self, electrons: float | None) -> Basis:
        """The basis, with valence electrons if they add up to the `electrons` of the cell."""
        valence, own = self.valence, self.electrons
        if valence is None or own is None or electrons is None or not abs(own - electrons) < CHARGE_TOLERANCE:
            return self.basis
        return Basis.of(
            {element: replace(basis, valence_electrons=valence[element]) for element, basis in self.basis.items()}
        )


def parse_atoms(source: InputFile) -> InputAtoms:
    """The atoms of an input.

    OpenMX insists that the initial up and down electrons of an atom, columns 6 and 7 of its table, are together those
    of its pseudopotential.

    Raises:
        ReadError: a table is missing or broken, a species cannot be understood, or one element has two bases.
    """
    rows = source.block("Atoms.SpeciesAndCoordinates")
    if any(len(row) < 2 for row in rows):
        raise ReadError(source.path, "a line of the block <Atoms.SpeciesAndCoordinates has no species")
    names = tuple(row[1] for row in rows)
    species = parse_species(source, names)
    unknown = sorted(set(names) - set(species))
    if unknown:
        raise ReadError(source.path, f"the species of an atom is not defined: {', '.join(unknown)}")
    elements = tuple(species[name][0] for name in names)
    valence = _valence(elements, rows)
    return InputAtoms(
        names, elements, Basis.of(dict(species.values())), valence, source.number("scf.system.charge", 0.0)
    )


def parse_species(source: InputFile, names: Collection[str]) -> dict[str, tuple[str, ElementBasis]]:
    """Element and basis of each species of these names, as far as the input defines them, in its order.

    Raises:
        ReadError: a species cannot be understood, or one element has two bases.
    """
    species: dict[str, tuple[str, ElementBasis]] = {}
    bases: dict[str, ElementBasis] = {}
    for row in source.block("Definition.of.Atomic.Species"):
        if row[0] not in names:
            continue
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


def _valence(elements: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, float] | None:
    """Initial electrons of each element's atoms, up and down together; None where they are missing or differ."""
    try:
        electrons = [round(float(row[5]) + float(row[6]), 6) for row in rows]
    except (ValueError, IndexError):
        return None
    found = set(zip(elements, electrons, strict=True))
    valence = dict(found)
    return valence if len(valence) == len(found) else None


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
    if potential == EMPTY_ATOM:
        raise ReadError(
            path,
            f"the species {name} is an empty atom: orbitals without a nucleus have no element, by which the formats "
            "and the network tell atoms",
        )
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
