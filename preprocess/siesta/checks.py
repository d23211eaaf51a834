"""What must hold of a SIESTA run; where it does not, the file is damaged, or of a kind that cannot be used.

Shape letters: N atoms, E pairs.
"""

import numpy as np

from deeph_tracegrad.blocks import BlockMatrix
from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.material import pair_vectors
from deeph_tracegrad.preprocess.siesta.netcdf_file import NetcdfFile
from deeph_tracegrad.structures.checks import heights

# Real ones: orbitals normalised to 1e-6, electrons to 1e-5.
MAX_NORM_ERROR = 1e-3
MAX_ELECTRON_ERROR = 1e-3  # of the electrons
MAX_LEVEL_RYDBERG = 20.0
MIN_VOLUME_BOHR3 = 1.0
REACH_TOLERANCE = 1e-3  # bohr


def check_geometry(source: NetcdfFile) -> None:
    """Hold the structure against the pattern of the matrices.

    Two atoms share an element only where their orbitals touch, or the projectors of a third atom lead across. A run
    without k-points has no supercell, and then the elements between an atom and several images of another are added up.

    Raises:
        ReadError: two atoms are too far from each other for their elements, or the matrices may be added up so.
    """
    if not abs(np.linalg.det(source.cell)) > MIN_VOLUME_BOHR3:
        raise ReadError(source.path, "the lattice vectors span no volume")
    atom = np.repeat(np.arange(len(source.species)), [species.num_orbitals for species in source.species])
    pairs = np.unique(
        np.column_stack([source.cells[source.cell_numbers], atom[source.rows], atom[source.columns]]), axis=0
    )
    vectors = pair_vectors(source.positions, source.cell, pairs)
    radii = np.array([species.reach for species in source.species])
    bridge = 2 * max(species.projector_reach for species in source.species)
    excess = np.linalg.norm(vectors, axis=1) - radii[pairs[:, 3]] - radii[pairs[:, 4]] - bridge
    if not excess.max() <= REACH_TOLERANCE:
        raise ReadError(
            source.path,
            f"the pair [R1, R2, R3, i, j] = {pairs[excess.argmax()].tolist()}, 0-based, is {excess.max():.3g} bohr "
            "longer than orbitals and projectors reach; the file is damaged",
        )
    fractions = np.linalg.solve(source.cell.T, source.positions.T).T
    # at least so far is any atom from any in the next cell
    nearest = heights(source.cell) * (1 - np.ptp(fractions, axis=0))
    folded = (source.supercell == 1) & (nearest < 2 * radii.max() + bridge)
    if folded.any():
        raise ReadError(
            source.path,
            f"along lattice vector {folded.argmax() + 1} the run had no k-points and its matrices may be folded into "
            "one cell; run SIESTA with ForceAuxCell true",
        )


def check_overlap(source: NetcdfFile, overlap: BlockMatrix) -> None:
    """SIESTA's orbitals are normalised.

    Raises:
        ReadError: an orbital's overlap with itself is not 1.
    """
    norms = overlap.diagonals()
    if len(norms) < overlap.sizes.sum() or not (abs(norms - 1) <= MAX_NORM_ERROR).all():
        raise ReadError(source.path, "S has diagonal elements other than 1; the file is damaged")


def check_electrons(source: NetcdfFile, overlap: BlockMatrix, density: tuple[BlockMatrix, ...]) -> None:
    """The orbitals have room for the electrons, and the density matrix, where it was read, holds them.

    Raises:
        ReadError: they have not, or it does not.
    """
    orbitals = overlap.sizes.sum()
    if not 0 < source.electrons <= 2 * orbitals:
        raise ReadError(source.path, f"there are {source.electrons:g} electrons for {orbitals} orbitals")
    held = sum(float(channel.entries @ overlap.entries) for channel in density)
    if density and not abs(held - source.electrons) <= MAX_ELECTRON_ERROR * source.electrons:
        raise ReadError(
            source.path,
            f"the density matrix holds {held:.6g} electrons, tr(D S), where the run has {source.electrons:.6g}",
        )


def check_fermi_levels(source: NetcdfFile) -> None:
    """They are energies of valence electrons.

    Raises:
        ReadError: one is not.
    """
    largest = abs(source.fermi_levels).max()
    if not largest <= MAX_LEVEL_RYDBERG:
        raise ReadError(source.path, f"the Fermi level is {largest:.3g} Ry; the file is damaged")
