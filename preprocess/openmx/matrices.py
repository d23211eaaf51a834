"""From the matrices of OpenMX to those of a Material: spin put together, orbitals in order, symmetrised.

Shape letters: E pairs, B flat block entries, k pairs of one shape.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deeph_tracegrad import units
from deeph_tracegrad.blocks import BlockMatrix
from deeph_tracegrad.material import pair_vectors
from deeph_tracegrad.orbitals import Basis, OrbitalConvention
from deeph_tracegrad.position import symmetrised_position
from deeph_tracegrad.preprocess.openmx.checks import check_matrix, check_overlap, require
from deeph_tracegrad.preprocess.openmx.scfout import ScfOut


@dataclass(frozen=True)
class Arrangement:
    """How the orbitals of a run are ordered. path: of its file, for messages. elements: of each atom."""

    path: Path
    basis: Basis
    elements: tuple[str, ...]

    def overlap(self, overlap: BlockMatrix) -> tuple[BlockMatrix, float]:
        """S in the project's order, symmetric, and its largest violation before.

        Raises:
            ReadError: it cannot be an overlap.
        """
        require(self.path, (overlap.reverse >= 0).all(), "the partner (-R, j, i) of an atom pair is missing")
        overlap, violation = self.ordered(overlap).symmetrised()
        check_overlap(self.path, overlap, violation)
        return overlap, violation

    def matrices(
        self, name: str, matrices: Sequence[BlockMatrix], components: int = 1
    ) -> tuple[tuple[BlockMatrix, ...], float]:
        """The parts of another matrix in the project's order, Hermitian, and their largest violation before.

        name: hamiltonian or density. components: rows of one orbital.

        Raises:
            ReadError: they cannot be such a matrix.
        """
        arranged = [self.ordered(matrix, components).symmetrised() for matrix in matrices]
        for matrix, violation in arranged:
            check_matrix(self.path, name, matrix, violation)
        return tuple(matrix for matrix, _ in arranged), max(violation for _, violation in arranged)

    def ordered(self, matrix: BlockMatrix, components: int = 1) -> BlockMatrix:
        """The matrix in the project's order. components: rows of one orbital."""
        orders = [
            basis.order(OrbitalConvention.OPENMX, OrbitalConvention.DEEPH).repeated(components)
            for basis in self.basis.bases
        ]
        return matrix.reordered(orders, self.basis.species(self.elements))


def hamiltonian_parts(scfout: ScfOut) -> list[BlockMatrix]:
    """H in eV, in OpenMX's order of orbitals: one matrix, up and down, or one with spinors."""
    real = scfout.hamiltonian * units.OPENMX_HARTREE_EV
    if scfout.spin_switch != 3:
        return [BlockMatrix.of(scfout.pairs, entries, scfout.num_orbitals) for entries in real]
    imaginary = scfout.hamiltonian_imaginary * units.OPENMX_HARTREE_EV
    return [
        _spinor(
            scfout,
            up_up=real[0] + 1j * imaginary[0],
            down_down=real[1] + 1j * imaginary[1],
            up_down=real[2] + 1j * (real[3] + imaginary[2]),
        )
    ]


def density_parts(scfout: ScfOut) -> list[BlockMatrix]:
    """The density matrix in the form of H: sum of the spins, up and down, or one with spinors.

    The file has the conjugate of the expansion coefficients of the density operator: there, Re Σ D_ij H_ij over all
    pairs is the band energy that OpenMX prints. Without spin it has that of one spin.
    """
    real, imaginary = scfout.density, scfout.density_imaginary
    if scfout.spin_switch != 3:
        factor = 2 if scfout.spin_switch == 0 else 1
        return [BlockMatrix.of(scfout.pairs, factor * entries, scfout.num_orbitals) for entries in real]
    return [
        _spinor(
            scfout,
            up_up=real[0] - 1j * imaginary[0],
            down_down=real[1] - 1j * imaginary[1],
            up_down=real[2] - 1j * real[3],
        )
    ]


def position_matrices(
    scfout: ScfOut, arrangement: Arrangement, overlap: BlockMatrix
) -> tuple[tuple[BlockMatrix, ...], float]:
    """<i|r|j> along x, y, z from the Cartesian origin, in Å and the project's order, and its largest violation before.

    The file has <i|r - x_i|j>, summed on OpenMX's grid.

    overlap: S as arranged.

    Raises:
        ReadError: they cannot be position matrices.
    """
    bonds = pair_vectors(scfout.positions, scfout.lattice, scfout.pairs) * units.OPENMX_BOHR_ANGSTROM
    stored = [
        arrangement.ordered(BlockMatrix.of(scfout.pairs, entries * units.OPENMX_BOHR_ANGSTROM, scfout.num_orbitals))
        for entries in scfout.position
    ]
    from_atom, violation = symmetrised_position(stored, overlap, bonds / 2)
    for matrix in from_atom:
        check_matrix(arrangement.path, "position", matrix, violation)
    origins = np.repeat(scfout.positions[scfout.pairs[:, 3]], np.diff(overlap.offsets), axis=0)  # (B, 3)
    moved = origins * units.OPENMX_BOHR_ANGSTROM * overlap.entries[:, None]
    position = (matrix.with_entries(matrix.entries + own) for matrix, own in zip(from_atom, moved.T, strict=True))
    return tuple(position), violation


def _spinor(scfout: ScfOut, up_up: np.ndarray, down_down: np.ndarray, up_down: np.ndarray) -> BlockMatrix:
    """One matrix with blocks uu ud / du dd from the entries (B,) of its parts; du is the adjoint of ud."""
    ud = BlockMatrix.of(scfout.pairs, up_down, scfout.num_orbitals)
    du = ud.adjoint().on_pairs(scfout.pairs)
    spinor = BlockMatrix.of(scfout.pairs, np.empty(4 * len(up_up), dtype=np.complex128), 2 * scfout.num_orbitals)
    for (rows, columns), members, places in ud.stacks():
        quarters = np.stack([part[places] for part in (up_up, ud.entries, du.entries, down_down)])
        blocks = quarters.reshape(2, 2, len(members), rows, columns).transpose(2, 0, 3, 1, 4)
        start = spinor.offsets[members, None]
        spinor.entries[start + np.arange(4 * rows * columns)] = blocks.reshape(len(members), -1)
    return spinor
