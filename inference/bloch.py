"""Bloch sums A(k) = Σ_R exp(2πi k·R) A(R) as sparse matrices with one pattern for all k.

Shape letters: N atoms, E pairs, U coupled atom pairs (i, j) whatever the cell, M rows of H(k), Z stored entries of
H(k), T of them above the diagonal, C cells R, B flat block entries.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from deeph_tracegrad.blocks import BlockMatrix, reversed_pairs
from deeph_tracegrad.errors import SolverError
from deeph_tracegrad.material import Material


@dataclass(frozen=True, eq=False)
class BlochPattern:
    """Where the blocks of all cells fall in one CSR matrix whose rows are ordered atom by atom.

    sizes: (N,) rows of each atom; first: (N,) the first of them.
    atom_pairs: (U,) ascending i * N + j.
    start: (N,) where the entries of the atom's first row begin; width: (N,) entries in each of its rows.
    column: (U,) where the entries of the pair begin inside a row of its first atom.
    indptr: (M+1,), indices: (Z,) as in scipy.
    upper, lower: (T,) places of the entries above the diagonal and of their mirror images; diagonal: (M,).
    """

    sizes: np.ndarray
    first: np.ndarray
    atom_pairs: np.ndarray
    start: np.ndarray
    width: np.ndarray
    column: np.ndarray
    indptr: np.ndarray
    indices: np.ndarray
    upper: np.ndarray
    lower: np.ndarray
    diagonal: np.ndarray

    @classmethod
    def of(cls, pair_lists: Sequence[np.ndarray], sizes: np.ndarray) -> "BlochPattern":
        """The pattern that holds every pair (E, 5) of the lists, and its reverse."""
        atoms = len(sizes)
        pairs = np.concatenate([part for pairs in pair_lists for part in (pairs, reversed_pairs(pairs))])
        atom_pairs = np.unique(pairs[:, 3].astype(np.int64) * atoms + pairs[:, 4])
        i, j = np.divmod(atom_pairs, atoms)
        first = np.cumsum(sizes) - sizes
        width = np.bincount(i, weights=sizes[j], minlength=atoms).astype(np.int64)
        start = np.cumsum(sizes * width) - sizes * width
        column = np.cumsum(sizes[j]) - sizes[j] - (np.cumsum(width) - width)[i]
        reverse = np.searchsorted(atom_pairs, j * atoms + i)

        block, row, col = _block_entries(sizes[i], sizes[j])
        place = (start[i] + column)[block] + row * width[i][block] + col
        mirror = (start[j] + column[reverse])[block] + col * width[j][block] + row
        rows, columns = first[i][block] + row, first[j][block] + col
        small = np.int32 if len(place) < np.iinfo(np.int32).max else np.int64
        indices = np.empty(len(place), dtype=small)
        indices[place] = columns
        indptr = np.concatenate([[0], np.cumsum(np.repeat(width, sizes))]).astype(small)
        above = rows < columns
        diagonal = np.sort(place[rows == columns])
        return cls(
            sizes, first, atom_pairs, start, width, column, indptr, indices, place[above], mirror[above], diagonal
        )

    @property
    def num_orbitals(self) -> int:
        """Rows of the matrix: orbitals in the cell, with spin where H has it."""
        return len(self.indptr) - 1

    def upper_entries(self, matrix: BlockMatrix, spin: int) -> tuple[np.ndarray, np.ndarray]:
        """The entries (B,) of a matrix that fall on or above the diagonal, and the place of each in the CSR data.

        spin: spin component that a matrix with smaller blocks than the pattern's is meant for.
        """
        i, j = matrix.pairs[:, 3].astype(np.int64), matrix.pairs[:, 4].astype(np.int64)
        block, row, col = _block_entries(matrix.sizes[i], matrix.sizes[j])
        row += (spin * matrix.sizes[i])[block]
        col += (spin * matrix.sizes[j])[block]
        kept = np.flatnonzero(self.first[i][block] + row <= self.first[j][block] + col)
        pair = np.searchsorted(self.atom_pairs, i * len(self.sizes) + j)
        base = self.start[i] + self.column[pair]
        return kept, (base[block] + row * self.width[i][block] + col)[kept]


@dataclass(frozen=True, eq=False)
class SparseOperator:
    """A real-space matrix ready to be summed at any k.

    Only the entries on and above the diagonal are summed; the rest is mirrored, so A(k) is Hermitian to the last bit.

    cells: (C, 3) the R that occur. values: CSR (Z, C), column c holds A(R_c) at the places of the pattern.
    """

    pattern: BlochPattern
    cells: np.ndarray
    values: sparse.csr_array

    @classmethod
    def of(cls, matrix: BlockMatrix, pattern: BlochPattern) -> "SparseOperator":
        """From a Hermitian matrix whose pairs the pattern holds; a spinless one fills both spins of the pattern."""
        cells, cell = np.unique(matrix.pairs[:, :3], axis=0, return_inverse=True)
        cell = np.repeat(cell.ravel(), np.diff(matrix.offsets))
        components = int(pattern.sizes[0] // matrix.sizes[0])
        kept, place = zip(*(pattern.upper_entries(matrix, spin) for spin in range(components)), strict=True)
        source = np.concatenate(kept)
        shape = (len(pattern.indices), len(cells))
        values = sparse.coo_array((matrix.entries[source], (np.concatenate(place), cell[source])), shape=shape)
        return cls(pattern, cells, values.tocsr())

    def at_k(self, k: np.ndarray) -> sparse.csr_array:
        """A(k), (M, M) complex128 CSR; k: (3,) in units of the reciprocal lattice vectors."""
        angle = 2 * np.pi * (self.cells * np.asarray(k, dtype=float)).sum(axis=1)
        data = self.values @ np.exp(1j * angle)
        data[self.pattern.lower] = data[self.pattern.upper].conj()
        data[self.pattern.diagonal] = data[self.pattern.diagonal].real
        size = self.pattern.num_orbitals
        return sparse.csr_array((data, self.pattern.indices, self.pattern.indptr), shape=(size, size))


@dataclass(frozen=True, eq=False)
class BlochOperators:
    """H (one for each spin channel) and S of a material, on one pattern."""

    hamiltonian: tuple[SparseOperator, ...]
    overlap: SparseOperator

    @property
    def num_orbitals(self) -> int:
        """Rows of H(k)."""
        return self.overlap.pattern.num_orbitals

    @property
    def is_real(self) -> bool:
        """Whether H(R) is real, so that E(-k) = E(k)."""
        return not any(np.iscomplexobj(channel.values.data) for channel in self.hamiltonian)


def bloch_operators(material: Material) -> BlochOperators:
    """H and S of a material, ready to be summed at any k.

    Raises:
        SolverError: the material has no Hamiltonian or no overlap.
    """
    if not material.hamiltonian or material.overlap is None:
        missing = "overlap S(R)" if material.hamiltonian else "Hamiltonian H(R)"
        raise SolverError(f"there is no {missing}; bands need both H(R) and S(R)")
    matrices = (*material.hamiltonian, material.overlap)
    pattern = BlochPattern.of([matrix.pairs for matrix in matrices], material.hamiltonian[0].sizes)
    channels = tuple(SparseOperator.of(matrix, pattern) for matrix in material.hamiltonian)
    return BlochOperators(channels, SparseOperator.of(material.overlap, pattern))


def _block_entries(rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For every entry of blocks with these shapes, in order: its block, and its row and column inside the block."""
    lengths = rows * columns
    block = np.repeat(np.arange(len(rows)), lengths)
    inside = np.arange(len(block)) - (np.cumsum(lengths) - lengths)[block]
    return block, *np.divmod(inside, columns[block])
