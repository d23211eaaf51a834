"""From an OpenMX run to a Material."""

from collections.abc import Collection
from pathlib import Path

import numpy as np
from pymatgen.core.lattice import Lattice
from pymatgen.core.structure import Structure

from deeph_tracegrad import units
from deeph_tracegrad.blocks import BlockMatrix
from deeph_tracegrad.errors import MismatchError, ReadError
from deeph_tracegrad.material import Material
from deeph_tracegrad.preprocess.openmx.checks import (
    check_distances,
    check_energies,
    check_lattice,
    check_places,
)
from deeph_tracegrad.preprocess.openmx.folder import overlap_files, scfout_files, scfout_text
from deeph_tracegrad.preprocess.openmx.input_file import (
    DEFAULT_SCF_CRITERION,
    SPIN_MODES,
    InputFile,
    parse_input,
)
from deeph_tracegrad.preprocess.openmx.matrices import (
    Arrangement,
    density_parts,
    hamiltonian_parts,
    position_matrices,
)
from deeph_tracegrad.preprocess.openmx.overlap_only import read_overlap_only
from deeph_tracegrad.preprocess.openmx.scfout import SPIN_SWITCHES, VERSIONS, ScfOut, read_scfout
from deeph_tracegrad.preprocess.openmx.species import InputAtoms, parse_atoms
from deeph_tracegrad.preprocess.openmx.text_output import (
    last_chemical_potential,
    read_text_output,
    scf_reached,
)

NEGF_SOLVER = 4
MAX_POTENTIAL_DIFFERENCE_HARTREE = 1e-6  # printed with 12 digits


def read_openmx(path: Path, matrices: Collection[str] = ()) -> Material:
    """Read an OpenMX run: a folder that holds one `.scfout`, that file itself, or the folder of an overlap-only run.

    Geometry, orbitals, matrices, Fermi level and electrons come from the `.scfout` alone; only whether the run
    converged is looked up in the text output, where there is one.

    matrices: those of `density` and `position` to be read too, where the run has them.

    Raises:
        ReadError: no file or several, or one that is damaged or not supported.
    """
    path = Path(path)
    if path.is_dir() and not scfout_files(path) and overlap_files(path):
        return read_overlap_only(path)
    scfout = read_scfout(_locate(path), matrices)
    try:
        with np.errstate(all="ignore"):  # of damaged files, whose values the checks find
            return _material(scfout)
    except MismatchError as error:
        raise ReadError(scfout.path, f"{error}; the file is damaged") from error


def _locate(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = scfout_files(path)
    if not found:
        raise ReadError(path, "there is no .scfout in this folder; run OpenMX with `HS.fileout on`")
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise ReadError(path, f"there are several .scfout in this folder, each a run of its own ({names}); name one")
    return found[0]


def _material(scfout: ScfOut) -> Material:
    source = parse_input(scfout.input_text, scfout.path)
    atoms = _atoms(scfout, source)
    basis = atoms.basis_holding(scfout.electrons)
    structure = _structure(scfout, atoms)
    check_places(scfout)
    check_distances(scfout.path, structure, basis, scfout.pairs)
    check_energies(scfout, source)

    spin = SPIN_MODES[SPIN_SWITCHES[scfout.spin_switch]]
    arrangement, violations = Arrangement(scfout.path, basis, atoms.elements), dict[str, float]()
    overlap, violations["overlap"] = arrangement.overlap(
        BlockMatrix.of(scfout.pairs, scfout.overlap, scfout.num_orbitals)
    )
    hamiltonian, violations["hamiltonian"] = arrangement.matrices(
        "hamiltonian", hamiltonian_parts(scfout), spin.components
    )
    density: tuple[BlockMatrix, ...] = ()
    if len(scfout.density):
        density, violations["density"] = arrangement.matrices("density", density_parts(scfout), spin.components)
    position: tuple[BlockMatrix, ...] = ()
    if len(scfout.position):
        position, violations["position"] = position_matrices(scfout, arrangement, overlap)

    converged, text_source = _convergence(scfout, source)
    return Material(
        structure=structure,
        basis=basis,
        spin=spin,
        overlap=overlap,
        hamiltonian=hamiltonian,
        density=density,
        position=position,
        fermi_level=scfout.chemical_potential * units.OPENMX_HARTREE_EV,
        electrons=scfout.electrons,
        converged=converged,
        provenance={
            "source": str(scfout.path),
            "code": "OpenMX",
            "code_version": VERSIONS[scfout.version],
            "format_version": scfout.version,
            "hartree_eV": units.OPENMX_HARTREE_EV,
            "bohr_angstrom": units.OPENMX_BOHR_ANGSTROM,
            "hermiticity_violation": violations,
            "convergence_from": text_source,
        },
    )


def _atoms(scfout: ScfOut, source: InputFile) -> InputAtoms:
    """The atoms of the input, which have the file's numbers of orbitals."""
    atoms = parse_atoms(source)
    if len(atoms.names) != len(scfout.num_orbitals):
        raise ReadError(
            scfout.path,
            f"the file has {len(scfout.num_orbitals)} atoms and its input lists {len(atoms.names)}; "
            "runs with leads (NEGF) are not supported",
        )
    expected = atoms.basis.num_orbitals(atoms.elements)
    if not np.array_equal(expected, scfout.num_orbitals):
        atom = int(np.flatnonzero(expected != scfout.num_orbitals)[0])
        raise ReadError(
            scfout.path,
            f"atom {atom + 1} has {scfout.num_orbitals[atom]} orbitals, but {atoms.basis[atoms.elements[atom]].label} "
            f"has {expected[atom]}; the file is damaged",
        )
    return atoms


def _structure(scfout: ScfOut, atoms: InputAtoms) -> Structure:
    lattice = Lattice(scfout.lattice * units.OPENMX_BOHR_ANGSTROM)
    check_lattice(scfout.path, lattice)
    return Structure(
        lattice,
        atoms.elements,
        scfout.positions * units.OPENMX_BOHR_ANGSTROM,
        coords_are_cartesian=True,
        to_unit_cell=False,
        labels=atoms.names,
    )


def _convergence(scfout: ScfOut, source: InputFile) -> tuple[bool | None, str | None]:
    """Whether the self-consistency was reached, and the text that told; None for both where nothing tells."""
    if scfout.solver == NEGF_SOLVER:
        return None, None
    text, origin = scfout.appended_text, f"the text appended to {scfout.path.name}"
    if not text.strip():
        beside = scfout_text(scfout.path)
        if beside is None:
            return None, None
        text, origin = read_text_output(beside), beside.name
    printed = last_chemical_potential(text)
    if printed is not None and not abs(printed - scfout.chemical_potential) < MAX_POTENTIAL_DIFFERENCE_HARTREE:
        raise ReadError(
            scfout.path,
            f"the chemical potential is {scfout.chemical_potential:.12g} Hartree here and {printed:.12g} in {origin}: "
            "they are of different runs, or one is damaged; take the text away if it is of another run",
        )
    reached = scf_reached(text, source.number("scf.criterion", DEFAULT_SCF_CRITERION))
    return reached, None if reached is None else origin
