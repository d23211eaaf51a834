"""The density and the position matrix of an ABACUS run, which are large and only read when asked for.

Shape letters: N atoms, E atom pairs.
"""

from pathlib import Path

import numpy as np
from pymatgen.core import Structure

from deeph_tracegrad.blocks import BlockMatrix, reversed_pairs, union_pairs
from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.material import pair_vectors
from deeph_tracegrad.orbitals import SpinMode
from deeph_tracegrad.preprocess.abacus.cell_matrices import CellMatrices
from deeph_tracegrad.preprocess.abacus.layout import Layout, symmetrised
from deeph_tracegrad.units import ABACUS_BOHR_ANGSTROM

# Of the electrons; density matrices have five digits or more.
LARGEST_EXCESS = 1e-3


def density_matrix(
    files: dict[Path, CellMatrices], layout: Layout, overlap: BlockMatrix, electrons: float | None
) -> tuple[tuple[BlockMatrix, ...], float]:
    """The density matrix of each spin channel; and the largest violation of hermiticity that it had.

    files: each channel's, by its path. overlap: S, spinless. electrons: in the cell; None where unknown.

    Raises:
        ReadError: of a run with spinors, of which ABACUS writes a part only; the matrix does not fit or is damaged; or
            it does not hold the electrons of the run.
    """
    path = next(iter(files))
    if layout.spin is SpinMode.NONCOLLINEAR:
        raise ReadError(
            path,
            "with nspin 4 ABACUS writes the real parts of its density matrix's components only, from which the matrix "
            "cannot be put together; read the run without it",
        )
    channels = [layout.hermitian(file, matrix, "DM") for file, matrix in files.items()]
    held = sum(np.vdot(overlap.entries, channel.on_pairs(overlap.pairs).entries) for channel, _ in channels)
    if electrons is not None and not abs(held - electrons) <= LARGEST_EXCESS * electrons:
        raise ReadError(path, f"holds {held:.6g} electrons, tr(D S), where the run has {electrons:.6g}")
    return tuple(channel for channel, _ in channels), max(violation for _, violation in channels)


def position_matrix(
    path: Path, components: list[CellMatrices], layout: Layout, overlap: BlockMatrix, structure: Structure
) -> tuple[tuple[BlockMatrix, ...], float]:
    """<i|r|j> for x, y and z in Å from the Cartesian origin, spinless; and the largest violation that it had.

    components: x, y and z as in the file, in bohr. overlap: S, spinless.

    Counted from the midpoint of its two atoms the matrix is Hermitian: <i0|r|jR> - (x_i + x_j + R)/2 S_ij(R) is what
    (-R, j, i) has, transposed.

    Raises:
        ReadError: the matrix does not fit the basis, the overlap or the structure, or is damaged.
    """
    matrices = [layout.spinless(path, layout.blocks(path, matrix, "r")) for matrix in components]
    listed = union_pairs(overlap.pairs, *(matrix.pairs for matrix in matrices))
    pairs = union_pairs(listed, reversed_pairs(listed))
    overlap = overlap.on_pairs(pairs)
    vectors = pair_vectors(structure.cart_coords, structure.lattice.matrix, pairs)
    middle = structure.cart_coords[pairs[:, 3]] + vectors / 2  # (E, 3)
    result, violations = [], []
    for axis, matrix in enumerate(matrices):
        moved = np.repeat(middle[:, axis], np.diff(overlap.offsets)) * overlap.entries
        entries = matrix.on_pairs(pairs).entries * ABACUS_BOHR_ANGSTROM
        centred, violation = symmetrised(path, overlap.with_entries(entries - moved), np.abs(entries).max(initial=0.0))
        result.append(centred.with_entries(centred.entries + moved))
        violations.append(violation)
    return tuple(result), max(violations)
