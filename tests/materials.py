"""Small materials for tests, made up or read from real runs."""

import numpy as np
from pymatgen.core import Lattice, Structure

from deeph_tracegrad.blocks import BlockMatrix
from deeph_tracegrad.material import Material
from deeph_tracegrad.orbitals import Basis, ElementBasis, SpinMode
from deeph_tracegrad.samples import block_dtype


def random_material(spin: SpinMode, *, seed: int = 0, max_degree: int = 2) -> Material:
    """Three atoms of two elements, with bonds along ±z (the frames' poles) and a random Hermitian H; reach 4.2 Å."""
    rng = np.random.default_rng(seed)
    basis = Basis.of({"Mo": ElementBasis((0, *range(max_degree + 1))), "S": ElementBasis((0, 1, 1))})
    structure = Structure(
        Lattice([[3.1, 0, 0], [-1.2, 3.4, 0.2], [0.1, 0.3, 4.0]]),
        ["Mo", "S", "S"],
        [[0.1, 0.2, 0.3], [0.1, 0.2, 1.9], [1.4, 1.7, 0.9]],
        coords_are_cartesian=True,
    )
    sizes = basis.num_orbitals(["Mo", "S", "S"])
    pairs = _pairs_within(structure, 4.2)
    overlap = BlockMatrix.of(pairs, rng.normal(size=int(_length(pairs, sizes))), sizes).symmetrised()[0]
    sizes = sizes * spin.components
    hamiltonian = []
    for _ in range(spin.channels):
        entries = rng.normal(size=int(_length(pairs, sizes))).astype(block_dtype(spin))
        if spin is SpinMode.NONCOLLINEAR:
            entries += 1j * rng.normal(size=len(entries))
        hamiltonian.append(BlockMatrix.of(pairs, entries, sizes).symmetrised()[0])
    return Material(structure, basis, spin, overlap, tuple(hamiltonian), fermi_level=0.5, electrons=12.0)


def _length(pairs: np.ndarray, sizes: np.ndarray) -> int:
    return (sizes[pairs[:, 3]] * sizes[pairs[:, 4]]).sum()


def _pairs_within(structure: Structure, radius: float) -> np.ndarray:
    first, second, shift, _ = structure.get_neighbor_list(radius)
    atoms = np.arange(len(structure))
    bonds = np.column_stack([shift.astype(int), first, second])
    on_site = np.column_stack([np.zeros((len(atoms), 3), dtype=int), atoms, atoms])
    return np.concatenate([on_site, bonds]).astype(np.int32)
