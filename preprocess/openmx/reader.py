"""From an OpenMX run to a Material.

Shape letters: N atoms, E pairs, B flat block entries, k pairs of one shape.
"""

from pathlib import Path

import numpy as np
from pymatgen.core.lattice import Lattice
from pymatgen.core.structure import Structure

from deeph_tracegrad import units
from deeph_tracegrad.blocks import BlockMatrix
from deeph_tracegrad.errors import MismatchError, ReadError
from deeph_tracegrad.material import Material
from deeph_tracegrad.orbitals import Basis, ElementBasis, OrbitalConvention, SpinMode
from deeph_tracegrad.preprocess.openmx.input_file import (
    DEFAULT_SCF_CRITERION,
    InputFile,
    parse_atoms,
    parse_input,
    parse_species,
)
from deeph_tracegrad.preprocess.openmx.scfout import SPIN_SWITCHES, VERSIONS, ScfOut, read_scfout
from deeph_tracegrad.preprocess.openmx.text_output import (
    find_text_output,
    last_chemical_potential,
    read_text_output,
    scf_reached,
)

SPIN_MODES = {0: SpinMode.NONE, 1: SpinMode.COLLINEAR, 3: SpinMode.NONCOLLINEAR}
NEGF_SOLVER = 4

# Beyond these a file is damaged. Real ones: 1e-8 eV and 1e-10 off hermiticity, orbitals normalised to 2 %,
# and matrix elements of at most some hundred Hartree even with core states.
MAX_VIOLATION_EV = 1e-3
MAX_OVERLAP_VIOLATION = 1e-6
MAX_NORM_ERROR = 0.2
MAX_ENTRY_HARTREE = 1e4
MAX_POTENTIAL_HARTREE = 10.0
MAX_POTENTIAL_DIFFERENCE_HARTREE = 1e-6  # printed with 12 digits
MIN_VOLUME_BOHR3 = 1.0
MIN_DISTANCE = 0.1  # Å
REACH_TOLERANCE = 0.5  # Å beyond the sum of two cutoff radii, which are known from file names only


def find_scfout(folder: Path) -> list[Path]:
    """The `.scfout` files right in a folder, sorted; none where it is no folder."""
    return sorted(path for path in folder.glob("*.scfout") if path.is_file())


def read_openmx(path: Path) -> Material:
    """Read an OpenMX run: a folder that holds one `.scfout`, or that file itself.

    Geometry, orbitals, matrices, Fermi level and electrons come from the `.scfout` alone; only whether the run
    converged is looked up in the text output, where there is one.

    Raises:
        ReadError: no file or several, or one that is damaged or not supported.
    """
    path = Path(path)
    scfout = read_scfout(_locate(path))
    try:
        with np.errstate(all="ignore"):  # of damaged files, whose values the checks find
            return _material(scfout)
    except MismatchError as error:
        raise ReadError(scfout.path, f"{error}; the file is damaged") from error


def _locate(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = find_scfout(path)
    if not found:
        raise ReadError(path, "there is no .scfout in this folder; run OpenMX with `HS.fileout on`")
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise ReadError(path, f"there are several .scfout in this folder ({names}); leave one here")
    return found[0]


def _material(scfout: ScfOut) -> Material:
    source = parse_input(scfout.input_text, scfout.path)
    elements, basis = _elements_and_basis(scfout, source)
    structure = _structure(scfout, elements)
    _check_distances(scfout, basis, elements)

    orders = [basis[element].order(OrbitalConvention.OPENMX, OrbitalConvention.DEEPH) for element in basis]
    kinds = basis.species(elements)
    overlap = BlockMatrix.of(scfout.pairs, scfout.overlap, scfout.num_orbitals)
    _require(scfout, (overlap.reverse >= 0).all(), "the partner (-R, j, i) of an atom pair is missing")
    overlap, overlap_violation = overlap.reordered(orders, kinds).symmetrised()
    _check_overlap(scfout, overlap, overlap_violation)

    spin = SPIN_MODES[scfout.spin_switch]
    _check_energies(scfout, source)
    orders = [order.repeated(spin.components) for order in orders]
    symmetrised = [matrix.reordered(orders, kinds).symmetrised() for matrix in _hamiltonian(scfout)]
    violation = max(violation for _, violation in symmetrised)
    _require(scfout, violation <= MAX_VIOLATION_EV, f"H is off hermiticity by {violation:.2g} eV")

    converged, text_source = _convergence(scfout, source)
    return Material(
        structure=structure,
        basis=basis,
        spin=spin,
        overlap=overlap,
        hamiltonian=tuple(matrix for matrix, _ in symmetrised),
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
            "hermiticity_violation": {"hamiltonian": violation, "overlap": overlap_violation},
            "convergence_from": text_source,
        },
    )


def _elements_and_basis(scfout: ScfOut, source: InputFile) -> tuple[list[str], Basis]:
    """Element of each atom, and the bases of the elements that occur, in the order of the input's species."""
    species = parse_species(source)
    names = parse_atoms(source)
    if len(names) != len(scfout.num_orbitals):
        raise ReadError(
            scfout.path,
            f"the file has {len(scfout.num_orbitals)} atoms and its input lists {len(names)}; "
            "runs with leads (NEGF) are not supported",
        )
    unknown = sorted(set(names) - set(species))
    _require(scfout, not unknown, f"the species of an atom is not defined: {', '.join(unknown)}")
    elements = [species[name][0] for name in names]
    bases: dict[str, ElementBasis] = {species[name][0]: species[name][1] for name in species if name in set(names)}
    basis = Basis.of(bases)
    expected = basis.num_orbitals(elements)
    if not np.array_equal(expected, scfout.num_orbitals):
        atom = int(np.flatnonzero(expected != scfout.num_orbitals)[0])
        raise ReadError(
            scfout.path,
            f"atom {atom + 1} has {scfout.num_orbitals[atom]} orbitals, but {basis[elements[atom]].label} has "
            f"{expected[atom]}; the file is damaged",
        )
    return elements, basis


def _structure(scfout: ScfOut, elements: list[str]) -> Structure:
    volume = abs(np.linalg.det(scfout.lattice))
    _require(scfout, volume > MIN_VOLUME_BOHR3, f"the volume of the cell is {volume:.3g} bohr³")
    return Structure(
        Lattice(scfout.lattice * units.OPENMX_BOHR_ANGSTROM),
        elements,
        scfout.positions * units.OPENMX_BOHR_ANGSTROM,
        coords_are_cartesian=True,
        to_unit_cell=False,
    )


def _check_distances(scfout: ScfOut, basis: Basis, elements: list[str]) -> None:
    """Listed neighbours are neither on top of each other nor farther apart than their orbitals reach."""
    first, second = scfout.pairs[:, 3], scfout.pairs[:, 4]
    positions = scfout.positions
    vectors = positions[second] + scfout.pairs[:, :3] @ scfout.lattice - positions[first]
    distances = np.linalg.norm(vectors, axis=1) * units.OPENMX_BOHR_ANGSTROM
    self_pairs = (first == second) & ~scfout.pairs[:, :3].any(axis=1)
    nearest = distances[~self_pairs].min(initial=np.inf)
    _require(scfout, nearest > MIN_DISTANCE, f"two atoms are {nearest:.3g} Å apart")
    radii = np.array([basis[element].cutoff_radius or np.inf for element in elements])
    beyond = distances - radii[first] - radii[second]
    _require(
        scfout,
        (beyond < REACH_TOLERANCE).all(),
        f"two neighbours are {beyond.max():.3g} Å farther apart than their orbitals reach",
    )


def _check_overlap(scfout: ScfOut, overlap: BlockMatrix, violation: float) -> None:
    _require(scfout, violation <= MAX_OVERLAP_VIOLATION, f"S is off symmetry by {violation:.2g}")
    own = np.flatnonzero((overlap.pairs[:, 3] == overlap.pairs[:, 4]) & ~overlap.pairs[:, :3].any(axis=1))
    sizes = overlap.sizes[overlap.pairs[own, 3]]
    steps = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    norms = overlap.entries[np.repeat(overlap.offsets[own], sizes) + steps * np.repeat(sizes + 1, sizes)]
    worst = np.abs(norms - 1).max()
    _require(scfout, worst < MAX_NORM_ERROR, f"the norm of an orbital is off 1 by {worst:.2g}")
    largest = np.abs(overlap.entries).max()
    _require(scfout, largest < 1 + MAX_NORM_ERROR, f"an overlap is as large as {largest:.3g}")


def _check_energies(scfout: ScfOut, source: InputFile) -> None:
    largest = max(np.abs(part).max(initial=0) for part in (scfout.hamiltonian, scfout.hamiltonian_imaginary))
    _require(scfout, largest < MAX_ENTRY_HARTREE, f"an entry of H is as large as {largest:.3g} Hartree")
    potential, electrons = scfout.chemical_potential, scfout.electrons
    _require(scfout, abs(potential) < MAX_POTENTIAL_HARTREE, f"the chemical potential is {potential:.3g} Hartree")
    capacity = 2 * scfout.num_orbitals.sum()
    _require(scfout, 0 < electrons <= capacity, f"there are {electrons:.6g} electrons for {capacity} states")
    polarization = source.word("scf.SpinPolarization", "off")
    _require(
        scfout,
        polarization == SPIN_SWITCHES[scfout.spin_switch],
        f"the matrices are for spin {SPIN_SWITCHES[scfout.spin_switch]}, the input asks for {polarization}",
    )


def _hamiltonian(scfout: ScfOut) -> list[BlockMatrix]:
    """H in eV, in OpenMX's order of orbitals: one matrix, up and down, or one with spinors."""
    real = scfout.hamiltonian * units.OPENMX_HARTREE_EV
    if scfout.spin_switch != 3:
        return [BlockMatrix.of(scfout.pairs, entries, scfout.num_orbitals) for entries in real]
    imaginary = scfout.hamiltonian_imaginary * units.OPENMX_HARTREE_EV
    up_up = real[0] + 1j * imaginary[0]
    down_down = real[1] + 1j * imaginary[1]
    up_down = BlockMatrix.of(scfout.pairs, real[2] + 1j * (real[3] + imaginary[2]), scfout.num_orbitals)
    down_up = up_down.adjoint().on_pairs(scfout.pairs)

    sizes = 2 * scfout.num_orbitals
    spinor = BlockMatrix.of(scfout.pairs, np.empty(4 * len(up_up), dtype=np.complex128), sizes)
    for (rows, columns), members, places in up_down.stacks():
        quarters = np.stack([part[places] for part in (up_up, up_down.entries, down_up.entries, down_down)])
        blocks = quarters.reshape(2, 2, len(members), rows, columns).transpose(2, 0, 3, 1, 4)
        start = spinor.offsets[members, None]
        spinor.entries[start + np.arange(4 * rows * columns)] = blocks.reshape(len(members), -1)
    return [spinor]


def _convergence(scfout: ScfOut, source: InputFile) -> tuple[bool | None, str | None]:
    """Whether the self-consistency was reached, and the text that told; None for both where nothing tells."""
    if scfout.solver == NEGF_SOLVER:
        return None, None
    text, origin = scfout.appended_text, f"the text appended to {scfout.path.name}"
    if not text.strip():
        beside = find_text_output(scfout.path)
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


def _require(scfout: ScfOut, holds: bool | np.bool_, reason: str) -> None:
    if not holds:
        raise ReadError(scfout.path, f"{reason}; the file is damaged")
