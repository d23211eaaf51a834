"""Structures in CIF: every atom of the cell from those listed and the symmetry operations, none sorted, none reduced.

Shape letters: N atoms of the cell, O operations. Coordinates are fractional.
"""

import re
from collections import Counter
from pathlib import Path

import numpy as np
from pymatgen.core import Lattice, Structure

from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.structures.cif_text import Block, read_blocks
from deeph_tracegrad.structures.labels import element_of
from deeph_tracegrad.structures.symmetry import IDENTITY, operation, orbit

CELL = [*(f"_cell_length_{axis}" for axis in "abc"), *(f"_cell_angle_{angle}" for angle in ("alpha", "beta", "gamma"))]
OPERATIONS = ("_space_group_symop_operation_xyz", "_symmetry_equiv_pos_as_xyz")
GROUPS = (
    *("_space_group_name_h-m_alt", "_symmetry_space_group_name_h-m"),
    *("_space_group_name_hall", "_symmetry_space_group_name_hall"),
    *("_space_group_it_number", "_symmetry_int_tables_number"),
)
NO_SYMMETRY = {"P1", "1", "?", "."}
SMALLEST_VOLUME = 1e-4  # of vectors of length 1, squared
LARGEST_NUMBER = 1e6
LARGEST_CELL = 1_000_000  # atoms
MOST_OPERATIONS = 192  # of any space group
NUMBER = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?:\(\d+\))?")
FORMULA_PART = re.compile(r"([A-Z][a-z]?)(\d*\.?\d*)")


def read_cif(path: Path) -> Structure:
    """Read the one structure of a CIF.

    The images of an atom follow it. A listed position moves only where the operations map it onto itself within
    symmetry.SAME_PLACE: there it becomes the mean of its images, so that 0.3333 on a threefold axis is 1/3. Without
    operations it stays as it is.

    Raises:
        ReadError: the file is no CIF, holds no or several structures, says too little (a space group's name without
            its operations), or one that no calculation could have: partly occupied, without some of its atoms.
    """
    block = _block_with_atoms(path)
    items = block.items
    lattice = _lattice(path, block)
    rows = len(items["_atom_site_fract_x"])
    positions = np.array([_column(path, block, f"_atom_site_fract_{axis}", rows) for axis in "xyz"]).T
    _require_whole_atoms(path, block, rows)
    labels = _texts(path, block, "_atom_site_label", rows) or _texts(path, block, "_atom_site_type_symbol", rows)
    kinds = _texts(path, block, "_atom_site_type_symbol", rows) or labels
    if not labels:
        raise ReadError(path, "its atoms have neither _atom_site_type_symbol nor _atom_site_label")
    rotations, translations = _operations(path, block)
    if len(rotations) > MOST_OPERATIONS or rows * len(rotations) > LARGEST_CELL:
        raise ReadError(path, f"lists {rows} atoms and {len(rotations)} symmetry operations, more than a crystal has")
    images = []
    for label, position in zip(labels, positions, strict=True):
        places = orbit(position, rotations, translations, lattice.matrix)
        if places is None:
            raise ReadError(
                path,
                f"the symmetry operations do not map the atom {label} to a whole number of places; they are not all "
                "of a group, or its coordinates need more digits",
            )
        images.append(places)
    elements = [element_of(kind, path) for kind in kinds]
    species = [element for element, places in zip(elements, images, strict=True) for _ in places]
    _require_formula(path, block, species)
    return Structure(
        lattice,
        species,
        np.concatenate(images),
        labels=[label for label, places in zip(labels, images, strict=True) for _ in places],
    )


def _block_with_atoms(path: Path) -> Block:
    blocks = read_blocks(path)
    found = [block for block in blocks if "_atom_site_fract_x" in block.items]
    if len(found) > 1:
        names = ", ".join(block.name for block in found)
        raise ReadError(path, f"holds {len(found)} structures ({names[:60]}); keep one a file")
    if found:
        return found[0]
    if any("_atom_site_cartn_x" in block.items for block in blocks):
        raise ReadError(path, "gives its atoms in Cartesian coordinates only, where fractional ones are needed")
    raise ReadError(path, "lists no atoms (_atom_site_fract_x); is it the file of the structure?")


def _lattice(path: Path, block: Block) -> Lattice:
    values = []
    for name in CELL:
        given = block.items.get(name, [])
        if len(given) != 1:
            raise ReadError(path, f"should give one {name}")
        values.append(_number(path, name, given[0]))
    lengths, angles = np.array(values[:3]), np.array(values[3:])
    cosines = np.cos(np.radians(angles))
    volume = 1 + 2 * cosines.prod() - (cosines**2).sum()  # squared, of unit vectors
    if not ((lengths > 0) & (angles > 0) & (angles < 180)).all() or volume < SMALLEST_VOLUME:
        raise ReadError(path, f"a, b, c, α, β, γ = {', '.join(map(str, values))} make no cell")
    return Lattice.from_parameters(*values)


def _texts(path: Path, block: Block, name: str, rows: int) -> list[str]:
    """A value for each listed atom; none if the file does not give them."""
    values = block.items.get(name, [])
    if values and len(values) != rows:
        raise ReadError(path, f"lists {rows} atoms and {len(values)} values of {name}")
    return values


def _column(path: Path, block: Block, name: str, rows: int) -> list[float]:
    if name not in block.items:
        raise ReadError(path, f"lists no {name}")
    return [_number(path, name, value) for value in _texts(path, block, name, rows)]


def _number(path: Path, name: str, text: str) -> float:
    """A number, perhaps with its uncertainty in parentheses."""
    match = NUMBER.fullmatch(text)
    if match is None or abs(float(match[1])) > LARGEST_NUMBER:
        raise ReadError(path, f"{name} should be a number, not {text[:40]!r}")
    return float(match[1])


def _require_whole_atoms(path: Path, block: Block, rows: int) -> None:
    """Refuse what stands for atoms that are there at times, or not at all."""
    for name, whole, meaning in [
        ("_atom_site_occupancy", 1.0, "partly occupied sites have no one Hamiltonian; make an ordered structure of it"),
        ("_atom_site_attached_hydrogens", 0.0, "hydrogens without positions are missing; add them to the list"),
    ]:
        for value in _texts(path, block, name, rows):
            if value not in {"?", "."} and _number(path, name, value) != whole:
                raise ReadError(path, f"has an atom with {name} {value}; {meaning}")
    if "dum" in _texts(path, block, "_atom_site_calc_flag", rows):
        raise ReadError(path, "has a dummy atom (_atom_site_calc_flag dum); remove it")


def _operations(path: Path, block: Block) -> tuple[np.ndarray, np.ndarray]:
    """Rotations (O, 3, 3) and translations (O, 3), the identity first."""
    listed = next((block.items[name] for name in OPERATIONS if block.items.get(name)), [])
    operations = [operation(text, path) for text in listed]
    others = [one for one in operations if one != IDENTITY]
    if not others:
        for name in GROUPS:
            for group in block.items.get(name, []):
                if re.sub(r"[\s_]", "", group).upper() not in NO_SYMMETRY:
                    raise ReadError(
                        path,
                        f"names the space group {group} without its operations, which depend on the origin; list them "
                        "(_space_group_symop_operation_xyz), or list all atoms of the cell and call the group P 1",
                    )
    rotations, translations = zip(IDENTITY, *others, strict=True)
    return np.array(rotations), np.array(translations)


def _require_formula(path: Path, block: Block, species: list[str]) -> None:
    """Compare the cell with the formula and the number of its units, where given: a row may have been lost."""
    parts = [
        FORMULA_PART.fullmatch(part) for text in block.items.get("_chemical_formula_sum", []) for part in text.split()
    ]
    formula = {element_of(part[1], path): float(part[2] or 1) for part in parts if part is not None and part[2] != "."}
    if not parts or len(formula) < len(parts) or not all(formula.values()):
        return
    counts = Counter(species)
    units = {round(counts[element] / number, 3) for element, number in formula.items()}
    stated = block.items.get("_cell_formula_units_z", [])
    # some programs give the formula of the whole cell, and the number of units as well
    expected = {1.0, *(float(number) for number in stated if number.isdecimal())} if stated else units
    if counts.keys() != formula.keys() or len(units) > 1 or not units <= expected:
        listed = " ".join(f"{element}{number}" for element, number in counts.items())
        raise ReadError(
            path,
            f"the cell holds {listed}, which is not {' '.join(stated)} times the formula "
            f"{' '.join(block.items['_chemical_formula_sum'])}; an atom or an operation is missing, or the formula is "
            "wrong: correct or remove it",
        )
