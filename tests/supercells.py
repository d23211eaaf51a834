"""A material repeated, or told in other lattice vectors: the same crystal, so the same energies."""

from dataclasses import replace

import numpy as np
from pymatgen.core.lattice import Lattice
from pymatgen.core.structure import Structure

from deeph_tracegrad.blocks import BlockMatrix
from deeph_tracegrad.material import Material


def repeated(material: Material, times: tuple[int, int, int]) -> Material:
    """Cells along the lattice vectors as one larger cell."""
    cells = np.indices(times).reshape(3, -1).T
    structure = material.structure
    atoms = len(structure)

    def enlarge(matrix: BlockMatrix) -> BlockMatrix:
        shift, cell = np.divmod(cells[:, None] + matrix.pairs[:, :3], times)
        first = np.arange(len(cells))[:, None] * atoms + matrix.pairs[:, 3]
        second = np.ravel_multi_index(tuple(np.moveaxis(cell, -1, 0)), times) * atoms + matrix.pairs[:, 4]
        pairs = np.concatenate([shift, first[..., None], second[..., None]], axis=-1).reshape(-1, 5)
        return BlockMatrix.of(pairs, np.tile(matrix.entries, len(cells)), np.tile(matrix.sizes, len(cells)))

    places = np.concatenate([(structure.frac_coords + cell) / times for cell in cells])
    larger = Structure(
        Lattice(structure.lattice.matrix * np.array(times)[:, None]), material.elements * len(cells), places
    )
    return replace(
        material,
        structure=larger,
        overlap=None if material.overlap is None else enlarge(material.overlap),
        hamiltonian=tuple(enlarge(matrix) for matrix in material.hamiltonian),
        electrons=None if material.electrons is None else material.electrons * len(cells),
    )


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
