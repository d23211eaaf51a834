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
        overlap, violation = self._symmetrised(overlap, 1)
        check_overlap(self.path, overlap, violation)
        return overlap, violation

    def matrices(
        self, name: str, matrices: Sequence[BlockMatrix], components: int = 1
    ) -> tuple[tuple[BlockMatrix, ...], float]:
        """The parts of another matrix in the project's order, Hermitian, and their largest violation before.

        name: hamiltonian, density or position. components: rows of one orbital.

        Raises:
            ReadError: they cannot be such a matrix.
        """
        arranged = [self._symmetrised(matrix, components) for matrix in matrices]
        for matrix, violation in arranged:
            check_matrix(self.path, name, matrix, violation)
        return tuple(matrix for matrix, _ in arranged), max(violation for _, violation in arranged)

    def _symmetrised(self, matrix: BlockMatrix, components: int) -> tuple[BlockMatrix, float]:
        orders = [
            basis.order(OrbitalConvention.OPENMX, OrbitalConvention.DEEPH).repeated(components)
            for basis in self.basis.bases
        ]
        return matrix.reordered(orders, self.basis.species(self.elements)).symmetrised()


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

    The file has <i|r - x_i|j>. Seen from the middle m_ij between the two atoms it is Hermitian,

        <i|r - m_ij|j>(R) = <j|r - m_ji|i>(-R)^T,

    up to the error of OpenMX's grid. The mean of both sides is taken, and m_ij S_ij added back.

    overlap: S as arranged.
    """
    half_bond = pair_vectors(scfout.positions, scfout.lattice, scfout.pairs) / 2
    middle = (scfout.positions[scfout.pairs[:, 3]] + half_bond) * units.OPENMX_BOHR_ANGSTROM
    lengths = np.diff(overlap.offsets)
    centred = [
        BlockMatrix.of(
            scfout.pairs,
            (entries - np.repeat(half_bond[:, axis], lengths) * scfout.overlap) * units.OPENMX_BOHR_ANGSTROM,
            scfout.num_orbitals,
        )
        for axis, entries in enumerate(scfout.position)
    ]
    arranged, violation = arrangement.matrices("position", centred)
    absolute = [
        matrix.with_entries(matrix.entries + np.repeat(middle[:, axis], lengths) * overlap.entries)
        for axis, matrix in enumerate(arranged)
    ]
    return tuple(absolute), violation


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
