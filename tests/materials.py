"""Small materials for tests, made up or read from real runs."""

from dataclasses import replace

import numpy as np
from pymatgen.core import Lattice, Structure

from deeph_tracegrad.blocks import BlockMatrix, union_pairs
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


def with_density_and_position(material: Material, *, seed: int = 1) -> Material:
    """With a random density matrix on a third of H's pairs, and position matrices, random as counted from midway."""
    rng = np.random.default_rng(seed)
    overlap, pairs = material.overlap, material.overlap.pairs
    middle = np.repeat(pairs[:, :3] @ material.structure.lattice.matrix / 2, np.diff(overlap.offsets), axis=0)
    position, density = [], []
    for direction in range(3):
        symmetric = overlap.with_entries(rng.normal(size=len(overlap.entries))).symmetrised()[0]
        position.append(symmetric.with_entries(symmetric.entries + middle[:, direction] * overlap.entries))
    for channel in material.hamiltonian:
        entries = rng.normal(size=len(channel.entries)).astype(channel.entries.dtype)
        if np.iscomplexobj(entries):
            entries += 1j * rng.normal(size=len(entries))
        density.append(channel.with_entries(entries).on_pairs(pairs[::3]).symmetrised()[0])
    return replace(material, density=tuple(density), position=tuple(position))


def assert_same_matrices(one: Material, other: Material) -> None:
    """The same blocks to the last bit, where a missing one counts as zero; the same kinds of matrices and numbers."""
    assert one.spin is other.spin
    for kind in ("overlap", "hamiltonian", "density", "position"):
        own, others = (getattr(material, kind) or () for material in (one, other))
        if kind == "overlap":
            own, others = ((matrix,) if matrix else () for matrix in (own, others))
        for left, right in zip(own, others, strict=True):
            pairs = union_pairs(left.pairs, right.pairs)
            assert left.entries.dtype == right.entries.dtype
            np.testing.assert_array_equal(left.on_pairs(pairs).entries, right.on_pairs(pairs).entries)
            assert left.entries.any()


def _length(pairs: np.ndarray, sizes: np.ndarray) -> int:
    return (sizes[pairs[:, 3]] * sizes[pairs[:, 4]]).sum()


def _pairs_within(structure: Structure, radius: float) -> np.ndarray:
    first, second, shift, _ = structure.get_neighbor_list(radius)
    atoms = np.arange(len(structure))
    bonds = np.column_stack([shift.astype(int), first, second])
    on_site = np.column_stack([np.zeros((len(atoms), 3), dtype=int), atoms, atoms])
    return np.concatenate([on_site, bonds]).astype(np.int32)
