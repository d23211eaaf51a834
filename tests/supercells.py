"""A material told in other lattice vectors: the same crystal, so the same energies."""

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

    return replace(
        material,
        structure=same_atoms,
        overlap=None if material.overlap is None else reindexed(material.overlap),
        hamiltonian=tuple(reindexed(matrix) for matrix in material.hamiltonian),
    )
