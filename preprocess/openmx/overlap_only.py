"""An overlap-only run: S alone, from OpenMX with the patch of github.com/mzjb/overlap-only-OpenMX.

Each MPI rank writes output/overlaps_<rank>.h5, one dataset a block with the name "[R1, R2, R3, i, j]", atoms from 1,
orbitals in OpenMX's order. Everything else is in NAME.out: the input, and the final structure wrapped into the cell.

Shape letters: N atoms, E pairs.
"""

import re
from pathlib import Path

import numpy as np
from pymatgen.core import Lattice, Structure

from deeph_tracegrad import units
from deeph_tracegrad.blocks import BlockMatrix, find_pairs
from deeph_tracegrad.errors import MismatchError, ReadError
from deeph_tracegrad.legacy_blocks import read_blocks
from deeph_tracegrad.material import Material
from deeph_tracegrad.orbitals import Basis, SpinMode
from deeph_tracegrad.preprocess.openmx.checks import check_distances, check_lattice, require
from deeph_tracegrad.preprocess.openmx.folder import overlap_files, overlap_text
from deeph_tracegrad.preprocess.openmx.images import find_images
from deeph_tracegrad.preprocess.openmx.input_file import SPIN_MODES, InputFile, parse_input
from deeph_tracegrad.preprocess.openmx.matrices import Arrangement
from deeph_tracegrad.preprocess.openmx.species import InputAtoms, parse_atoms
from deeph_tracegrad.preprocess.openmx.text_output import FINAL_STRUCTURE, final_structure, read_text_output

LENGTH_UNITS = {"ang": 1.0, "au": units.OPENMX_BOHR_ANGSTROM}
MAX_LENGTH = 1e6  # Å


def read_overlap_only(folder: Path) -> Material:
    """Read the folder of an overlap-only run; there is no H.

    The atoms are put where the cells R of the matrix count from, which the printed structure does not tell
    (`find_images`).

    Raises:
        ReadError: a file is missing, damaged, or does not belong to the others.
    """
    text_path = overlap_text(folder)
    if text_path is None:
        raise ReadError(
            folder, "there are overlaps_*.h5 but no openmx.out; newer versions of the overlap-only patch write it"
        )
    text = read_text_output(text_path)
    names, fractions = final_structure(text, text_path)
    source = parse_input(text.rpartition(FINAL_STRUCTURE)[0], text_path)
    atoms = parse_atoms(source)
    if names != atoms.names:
        raise ReadError(text_path, "the atoms of the final structure are not those of the input")
    basis = atoms.basis_holding(atoms.electrons)
    overlap, printed = _merged(folder, basis.num_orbitals(atoms.elements)), _structure(source, atoms, fractions)
    structure = _placed(folder, printed, basis, overlap.pairs)
    check_distances(text_path, structure, basis, overlap.pairs)
    symmetric, violation = Arrangement(folder, basis, atoms.elements).overlap(overlap)
    version = re.search(r"OpenMX Ver\. (\S+)", text)
    return Material(
        structure=structure,
        basis=basis,
        spin=_spin(source),
        overlap=symmetric,
        electrons=_electrons(text_path, atoms, overlap),
        provenance={
            "source": str(folder),
            "code": "OpenMX",
            "code_version": version[1] if version else None,
            "bohr_angstrom": units.OPENMX_BOHR_ANGSTROM,
            "hermiticity_violation": {"overlap": violation},
            "remarks": ["overlaps alone, from the overlap-only patch of OpenMX"],
        },
    )


def _structure(source: InputFile, atoms: InputAtoms, fractions: np.ndarray) -> Structure:
    """The structure as printed, wrapped into the cell."""
    unit = source.word("Atoms.UnitVectors.Unit", "ang")
    if unit not in LENGTH_UNITS:
        raise ReadError(source.path, f"the unit of the lattice vectors is {unit!r}; it can be Ang or AU")
    rows = source.block("Atoms.UnitVectors")
    try:
        vectors = np.array(rows, dtype=np.float64) * LENGTH_UNITS[unit]
    except ValueError:
        vectors = np.zeros(0)
    if vectors.shape != (3, 3) or not (np.abs(vectors) < MAX_LENGTH).all():
        raise ReadError(source.path, "the block <Atoms.UnitVectors is not three vectors of three numbers")
    lattice = Lattice(vectors)
    check_lattice(source.path, lattice)
    return Structure(lattice, atoms.elements, fractions, to_unit_cell=False, labels=atoms.names)


def _merged(folder: Path, sizes: np.ndarray) -> BlockMatrix:
    """The blocks of all ranks; sizes: (N,) int."""
    parts = [read_blocks(path, sizes, "f", 1)[0] for path in overlap_files(folder)]
    pairs = np.concatenate([part.pairs for part in parts])
    try:
        find_pairs(pairs, pairs)  # refuses one that two ranks have
    except MismatchError as error:
        raise ReadError(folder, f"{error}; are there files of an earlier run with more ranks?") from error
    return BlockMatrix.of(pairs, np.concatenate([part.entries for part in parts]), sizes)


def _placed(folder: Path, printed: Structure, basis: Basis, pairs: np.ndarray) -> Structure:
    """The structure with each atom where the pairs count from."""
    radii = [basis[site.specie.symbol].cutoff_radius for site in printed]
    if None in radii:
        unknown = sorted({str(own.label) for own in basis.bases if own.cutoff_radius is None})
        raise ReadError(
            folder,
            f"the cutoff radius of {', '.join(unknown)} cannot be told from its name (C6.0-s2p2d1), and without it not "
            "where OpenMX put the atoms",
        )
    try:
        cells = find_images(printed, np.array(radii, dtype=float), pairs)
    except MismatchError as error:
        raise ReadError(
            folder,
            f"{error}; is the text output of another run, the file of a rank missing, or the cutoff radius not the one "
            "in the name of the basis file?",
        ) from error
    return Structure(
        printed.lattice, printed.species, printed.frac_coords + cells, to_unit_cell=False, labels=printed.labels
    )


def _spin(source: InputFile) -> SpinMode:
    word = source.word("scf.SpinPolarization", "off")
    if word not in SPIN_MODES:
        raise ReadError(source.path, f"scf.SpinPolarization is {word!r}; it can be off, on or nc")
    return SPIN_MODES[word]


def _electrons(path: Path, atoms: InputAtoms, overlap: BlockMatrix) -> float | None:
    electrons, capacity = atoms.electrons, 2 * overlap.sizes.sum()
    possible = electrons is None or 0 < electrons <= capacity
    require(path, possible, f"there are {electrons} electrons for {capacity} states")
    return electrons
