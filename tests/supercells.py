"""A material told in other words: the same crystal, so the same blocks and energies."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from pymatgen.core.lattice import Lattice
from pymatgen.core.structure import Structure

from deeph_tracegrad.blocks import BlockMatrix
from deeph_tracegrad.material import Material


def in_lattice_vectors(material: Material, transform: np.ndarray) -> Material:
    """The same atoms with the lattice vectors a' = T a; T (3, 3) integer with |det T| = 1."""
    inverse = np.linalg.inv(transform)
    structure = material.structure
    lattice = Lattice(transform @ structure.lattice.matrix)
    same_atoms = Structure(lattice, material.elements, structure.cart_coords, coords_are_cartesian=True)

    def reindexed(matrix: BlockMatrix) -> BlockMatrix:
        cells = np.rint(matrix.pairs[:, :3] @ inverse).astype(np.int32)
        return BlockMatrix.of(np.concatenate([cells, matrix.pairs[:, 3:]], axis=1), matrix.entries, matrix.sizes)

    return _with_matrices(material, same_atoms, reindexed)


def with_atoms_in_other_cells(material: Material, cells: np.ndarray) -> Material:
    """Each atom replaced by its image in another cell; cells: (N, 3) int."""
    structure = material.structure
    same_atoms = Structure(structure.lattice, material.elements, structure.frac_coords + cells)

    def reindexed(matrix: BlockMatrix) -> BlockMatrix:
        between = matrix.pairs[:, :3] + cells[matrix.pairs[:, 3]] - cells[matrix.pairs[:, 4]]
        return BlockMatrix.of(np.concatenate([between, matrix.pairs[:, 3:]], axis=1), matrix.entries, matrix.sizes)

    return _with_matrices(material, same_atoms, reindexed)


def with_atoms_in_order(material: Material, order: np.ndarray) -> Material:
    """The atoms numbered anew; order: (N,) int, the old number of each."""
    structure = material.structure
    elements = [material.elements[atom] for atom in order]
    same_atoms = Structure(structure.lattice, elements, structure.frac_coords[order])
    number = np.argsort(order)

    def reindexed(matrix: BlockMatrix) -> BlockMatrix:
        pairs = np.concatenate([matrix.pairs[:, :3], number[matrix.pairs[:, 3:]]], axis=1)
        return BlockMatrix.of(pairs, matrix.entries, matrix.sizes[order])

    return _with_matrices(material, same_atoms, reindexed)


def _with_matrices(
    material: Material, structure: Structure, reindexed: Callable[[BlockMatrix], BlockMatrix]
) -> Material:
    return replace(
        material,
        structure=structure,
        overlap=None if material.overlap is None else reindexed(material.overlap),
        hamiltonian=tuple(reindexed(matrix) for matrix in material.hamiltonian),
    )
