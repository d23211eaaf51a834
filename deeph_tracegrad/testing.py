"""Checks that anyone can run on a material, a dataset or a model.

Shape letters: N atoms, E pairs.
"""

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
    turned = to_local(matrix, np.broadcast_to(rotation, (len(matrix), 3, 3)), material.basis, species, spin)
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
