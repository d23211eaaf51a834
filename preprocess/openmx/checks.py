"""What numbers read from OpenMX cannot be, unless their file is damaged.

Shape letters: N atoms, E pairs.
"""

from pathlib import Path

import numpy as np
from pymatgen.core import Lattice, Structure

from deeph_tracegrad.blocks import BlockMatrix
from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.material import pair_vectors
from deeph_tracegrad.orbitals import Basis
from deeph_tracegrad.preprocess.openmx.input_file import InputFile
from deeph_tracegrad.preprocess.openmx.scfout import SPIN_SWITCHES, ScfOut

# Real files: 1e-8 eV and 1e-10 off hermiticity, orbitals normalised to 2 %, and at most some thousand eV even with core
# states. The position matrix is summed on a grid and off by some 1e-4 Å.
MAX_OVERLAP_VIOLATION = 1e-6
MAX_NORM_ERROR = 0.2
MAX_VIOLATION = {"hamiltonian": 1e-3, "density": 1e-3, "position": 0.1}
MAX_ENTRY = {"hamiltonian": 3e5, "density": 1e6, "position": 100.0}
UNITS = {"hamiltonian": " eV", "density": "", "position": " Å"}
MAX_POTENTIAL_HARTREE = 10.0
MIN_VOLUME = 0.1  # Å³
MIN_DISTANCE = 0.1  # Å
REACH_TOLERANCE = 0.5  # Å beyond the sum of two cutoff radii, which are known from file names only
MAX_MOVE_BOHR = 2e-3  # 5e-7 with grids of 180 to 400 Ry; a femtosecond moves atoms by 1e-2


def require(path: Path, holds: bool | np.bool_, reason: str) -> None:
    """Refuse the file unless the condition holds.

    Raises:
        ReadError: it does not hold.
    """
    if not holds:
        raise ReadError(path, f"{reason}; the file is damaged")


def check_lattice(path: Path, lattice: Lattice) -> None:
    """The lattice vectors span a volume."""
    require(path, lattice.volume > MIN_VOLUME, f"the volume of the cell is {lattice.volume:.3g} Å³")


def check_distances(path: Path, structure: Structure, basis: Basis, pairs: np.ndarray) -> None:
    """Stored pairs are neither on top of each other nor farther apart than their orbitals reach."""
    vectors = pair_vectors(structure.cart_coords, structure.lattice.matrix, pairs)
    distances = np.linalg.norm(vectors, axis=1)
    nearest = distances[~_own(pairs)].min(initial=np.inf)
    require(path, nearest > MIN_DISTANCE, f"two atoms are {nearest:.3g} Å apart")
    radii = np.array([basis[site.specie.symbol].cutoff_radius or np.inf for site in structure])
    beyond = distances - radii[pairs[:, 3]] - radii[pairs[:, 4]]
    require(
        path,
        (beyond < REACH_TOLERANCE).all(),
        f"two neighbours are {beyond.max():.3g} Å farther apart than their orbitals reach",
    )


def check_overlap(path: Path, overlap: BlockMatrix, violation: float) -> None:
    """S is symmetric, and its orbitals are about normalised."""
    require(path, violation <= MAX_OVERLAP_VIOLATION, f"S is off symmetry by {violation:.2g}")
    own = np.flatnonzero(_own(overlap.pairs))
    sizes = overlap.sizes[overlap.pairs[own, 3]]
    steps = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    norms = overlap.entries[np.repeat(overlap.offsets[own], sizes) + steps * np.repeat(sizes + 1, sizes)]
    worst = np.abs(norms - 1).max(initial=0)
    require(path, worst < MAX_NORM_ERROR, f"the norm of an orbital is off 1 by {worst:.2g}")
    largest = np.abs(overlap.entries).max(initial=0)
    require(path, largest < 1 + MAX_NORM_ERROR, f"an overlap is as large as {largest:.3g}")


def check_matrix(path: Path, name: str, matrix: BlockMatrix, violation: float) -> None:
    """A matrix other than S is Hermitian and has no impossible entry."""
    largest, unit = np.abs(matrix.entries).max(initial=0), UNITS[name]
    require(path, largest < MAX_ENTRY[name], f"an entry of the {name} is as large as {largest:.3g}{unit}")
    require(path, violation <= MAX_VIOLATION[name], f"the {name} is off hermiticity by {violation:.2g}{unit}")


def check_energies(scfout: ScfOut, source: InputFile) -> None:
    """Chemical potential, electrons and spin are possible, the last as the input asks for."""
    path = scfout.path
    potential, electrons = scfout.chemical_potential, scfout.electrons
    require(path, abs(potential) < MAX_POTENTIAL_HARTREE, f"the chemical potential is {potential:.3g} Hartree")
    capacity = 2 * scfout.num_orbitals.sum()
    require(path, 0 < electrons <= capacity, f"there are {electrons:.6g} electrons for {capacity} states")
    polarization = source.word("scf.SpinPolarization", "off")
    require(
        path,
        polarization == SPIN_SWITCHES[scfout.spin_switch],
        f"the matrices are for spin {SPIN_SWITCHES[scfout.spin_switch]}, the input asks for {polarization}",
    )


def check_places(scfout: ScfOut) -> None:
    """The atoms stand where their orbitals do.

    OpenMX moves the atoms on after the last step where molecular dynamics were continued from an earlier run
    (`MD.Current.Iter`) or had only one step, and then writes the new positions beside the matrices of the old ones.
    """
    moved = np.abs(scfout.first_moments).max()
    if not moved < MAX_MOVE_BOHR:
        raise ReadError(
            scfout.path,
            f"an atom stands {moved:.3g} bohr beside its orbitals: OpenMX moved the atoms after it made the matrices, "
            "or the file is damaged; run OpenMX with `MD.Type Nomd` on the structure wanted",
        )


def _own(pairs: np.ndarray) -> np.ndarray:
    """Which pairs are an atom with itself, (E,) bool."""
    return (pairs[:, 3] == pairs[:, 4]) & ~pairs[:, :3].any(axis=1)
