"""A material turned, inverted or told in other words, with the S and H that follow.

Shape letters: N atoms, E pairs.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from pymatgen.core import Lattice, Structure

from deeph_tracegrad.blocks import BlockMatrix
from deeph_tracegrad.local_blocks import to_local
from deeph_tracegrad.material import Material
from deeph_tracegrad.orbitals import SpinMode


def random_rotation(seed: int) -> np.ndarray:
    """A proper rotation, (3, 3)."""
    matrix, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return matrix * np.linalg.det(matrix)


def transformed(material: Material, operation: np.ndarray) -> Material:
    """The same material turned, or turned and inverted: structure, S and H, spins included.

    operation: (3, 3), orthogonal; x -> operation @ x.
    """
    determinant = float(np.sign(np.linalg.det(operation)))
    structure = Structure(
        Lattice(material.structure.lattice.matrix @ operation.T),
        material.structure.species,
        material.structure.cart_coords @ operation.T,
        coords_are_cartesian=True,
    )

    def turn(matrix: BlockMatrix, spin: SpinMode) -> BlockMatrix:
        return transformed_matrix(matrix, material, spin, operation * determinant, inverted=determinant < 0)

    return replace(
        material,
        structure=structure,
        overlap=None if material.overlap is None else turn(material.overlap, SpinMode.NONE),
        hamiltonian=tuple(turn(matrix, material.spin) for matrix in material.hamiltonian),
    )


def transformed_matrix(
    matrix: BlockMatrix, material: Material, spin: SpinMode, rotation: np.ndarray, *, inverted: bool
) -> BlockMatrix:
    """A matrix of the material between orbitals, and spinors if noncollinear, of the turned material.

    rotation: (3, 3), proper; inverted: whether the inversion follows it, which leaves spins alone.
    """
    species = material.basis.species(material.elements)
    # a material turned by R, seen along fixed axes, is the material itself seen along axes turned by R
    frames = np.broadcast_to(rotation, (len(matrix), 3, 3))
    turned = to_local(matrix, matrix.pairs, frames, material.basis, species, spin)
    if not inverted:
        return turned
    parities = [
        np.tile(np.repeat((-1.0) ** shells, 2 * shells + 1), spin.components)
        for shells in (np.array(basis.shells) for basis in material.basis.bases)
    ]
    entries = turned.entries.copy()
    for (row, column), _, places in turned.stacks(species):
        entries[places] *= np.outer(parities[row], parities[column]).ravel()
    return turned.with_entries(entries)


def repeated(material: Material, times: tuple[int, int, int]) -> Material:
    """A supercell, `times` cells along each lattice vector: the same crystal, so the same blocks and energies."""
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
    electrons = None if material.electrons is None else material.electrons * len(cells)
    return replace(_with_matrices(material, larger, enlarge), electrons=electrons)


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
