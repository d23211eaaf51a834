"""One crystal as a dataset stores it: atoms, edges with local frames, H blocks in local coordinates.

Shape letters: N atoms, E edges, B flat block entries, C spin channels of H.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from pymatgen.core import Element

from deeph_tracegrad.blocks import BlockMatrix, find_pairs, on_site, reversed_pairs
from deeph_tracegrad.edges import edge_pairs
from deeph_tracegrad.errors import MismatchError
from deeph_tracegrad.frames import edge_frames
from deeph_tracegrad.local_blocks import to_local
from deeph_tracegrad.material import Material, pair_vectors
from deeph_tracegrad.orbitals import SpinMode


@dataclass(frozen=True, eq=False)
class Sample:
    """The edges come on-site first, in the order of the atoms, then the bonds sorted by (i, j, R).

    atomic_numbers: (N,) int64. positions: (N, 3) Å. cell: (3, 3) Å, rows.
    pairs: (E, 5) int32, `[R1, R2, R3, i, j]`. vectors: (E, 3) Å, from i to j. frames: (E, 3, 3), rows are local axes.
    blocks: (C, B) eV, row-major block after block in the edges' order and local frames; None if unlabelled.
    metadata: what the source told: Fermi level, electrons, provenance.
    """

    label: str
    atomic_numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    pairs: np.ndarray
    vectors: np.ndarray
    frames: np.ndarray
    blocks: np.ndarray | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def elements(self) -> list[str]:
        """Element symbol of each atom."""
        return [Element.from_Z(number).symbol for number in self.atomic_numbers]

    def with_edges(self, pairs: np.ndarray, sizes: np.ndarray) -> "Sample":
        """The same crystal with other edges, any order; blocks of new ones are zero.

        pairs: (E, 5) int. sizes: (N,) int, rows that an atom takes in a block.
        """
        pairs = _ordered(pairs, len(self.positions), self.label)
        vectors = pair_vectors(self.positions, self.cell, pairs)
        blocks = self.blocks
        if blocks is not None:
            blocks = np.stack([BlockMatrix.of(self.pairs, old, sizes).on_pairs(pairs).entries for old in blocks])
        return replace(self, pairs=pairs, vectors=vectors, frames=edge_frames(vectors), blocks=blocks)

    @property
    def reverse(self) -> np.ndarray:
        """(E,) int64, where the partner (-R, j, i) of each edge stands."""
        return find_pairs(self.pairs, reversed_pairs(self.pairs))


def build_sample(material: Material, label: str, pairs: np.ndarray | None = None) -> Sample:
    """A material as a sample, labelled if it has a Hamiltonian; blocks that it lacks are zero.

    pairs: (E, 5) int, the edges; by default as `edge_pairs` chooses them.

    Raises:
        MismatchError: an atom has no on-site block, a bond no partner, or two atoms coincide.
    """
    if pairs is None:
        if not material.hamiltonian:
            raise MismatchError(f"{label} has no Hamiltonian to learn from")
        pairs = edge_pairs(material)
    species = material.basis.species(material.elements)
    pairs = _ordered(pairs, len(species), label)
    positions, cell = material.structure.cart_coords, material.structure.lattice.matrix.copy()
    vectors = material.pair_vectors(pairs)
    if (np.abs(vectors[len(species) :]).max(axis=1, initial=0.0) < 1e-3).any():  # Å
        raise MismatchError(f"{label} has two atoms at the same place")
    frames = edge_frames(vectors)
    blocks = None
    if material.hamiltonian:
        channels = [
            to_local(matrix, pairs, frames, material.basis, species, material.spin).entries
            for matrix in material.hamiltonian
        ]
        blocks = channels[0][None] if len(channels) == 1 else np.stack(channels)
    metadata = {
        "fermi_level_eV": material.fermi_level,
        "electrons": material.electrons,
        "provenance": dict(material.provenance),
    }
    atomic_numbers = np.array(material.structure.atomic_numbers, dtype=np.int64)
    return Sample(label, atomic_numbers, positions, cell, pairs, vectors, frames, blocks, metadata)


def block_dtype(spin: SpinMode) -> type:
    """The number type of H's entries."""
    return np.complex128 if spin is SpinMode.NONCOLLINEAR else np.float64


def _ordered(pairs: np.ndarray, num_atoms: int, label: str) -> np.ndarray:
    """The pairs, on-site first, then sorted by (i, j, R); checked for partners."""
    own = on_site(pairs)
    if not np.array_equal(np.sort(pairs[own, 3]), np.arange(num_atoms)):
        raise MismatchError(f"{label} does not have exactly one on-site block for each of its {num_atoms} atoms")
    order = np.lexsort((*pairs[:, [2, 1, 0, 4, 3]].T, ~own))
    ordered = np.ascontiguousarray(pairs[order], dtype=np.int32)
    if (find_pairs(ordered, reversed_pairs(ordered)) < 0).any():
        raise MismatchError(f"{label} has a block (R, i, j) without its partner (-R, j, i)")
    return ordered
