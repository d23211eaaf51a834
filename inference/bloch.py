"""Bloch sums A(k) = Σ_R exp(2πi k·R) A(R) as sparse matrices with one pattern for all k.

Blocks stay where the material holds them; what is kept beside them are a few numbers a block, not an index an entry.
Only the blocks of atoms i <= j are read, the others are their mirror images, so A(k) is Hermitian to the last bit.

Shape letters: N atoms, E pairs, U coupled atom pairs (i, j) whatever the cell, M rows of H(k), Z stored entries of
H(k), C cells R, B flat block entries.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from deeph_tracegrad.blocks import BlockMatrix
from deeph_tracegrad.errors import SolverError
from deeph_tracegrad.inference.bloch_sum import BlockSum, Kind, sum_blocks
from deeph_tracegrad.material import Material

SAME_POINT = 1e-12  # of 2k from whole numbers, where k and -k differ by a reciprocal lattice vector


@dataclass(frozen=True, eq=False)
class BlochPattern:
    """Where the blocks of all cells fall in one CSR matrix whose rows are ordered atom by atom.

    sizes: (N,) rows of each atom. atom_pairs: (U,) ascending i * N + j.
    start: (N,) where the entries of the atom's first row begin; width: (N,) entries in each of its rows.
    column: (U,) where the entries of the pair begin inside a row of its first atom.
    indptr: (M+1,), indices: (Z,) as in scipy.
    """

    sizes: np.ndarray
    atom_pairs: np.ndarray
    start: np.ndarray
    width: np.ndarray
    column: np.ndarray
    indptr: np.ndarray
    indices: np.ndarray

    @classmethod
    def of(cls, pair_lists: Sequence[np.ndarray], sizes: np.ndarray) -> "BlochPattern":
        """The pattern that holds every pair (E, 5) of the lists, and its reverse."""
        atoms = len(sizes)
        coupled = [pairs[:, 3].astype(np.int64) * atoms + pairs[:, 4] for pairs in pair_lists]
        coupled += [pairs[:, 4].astype(np.int64) * atoms + pairs[:, 3] for pairs in pair_lists]
        atom_pairs = np.unique(np.concatenate(coupled))
        i, j = np.divmod(atom_pairs, atoms)
        first = np.cumsum(sizes) - sizes
        width = np.bincount(i, weights=sizes[j], minlength=atoms).astype(np.int64)
        start = np.cumsum(sizes * width) - sizes * width
        column = np.cumsum(sizes[j]) - sizes[j] - (np.cumsum(width) - width)[i]

        stored = int((sizes * width).sum())
        small = np.int32 if stored < np.iinfo(np.int32).max else np.int64
        row = np.repeat(first[j] - np.cumsum(sizes[j]) + sizes[j], sizes[j]) + np.arange(sizes[j].sum())
        indices = np.empty(stored, dtype=small)
        for atom, begin in enumerate(np.cumsum(width) - width):  # every row of an atom has the same columns
            rows = indices[start[atom] : start[atom] + sizes[atom] * width[atom]].reshape(sizes[atom], width[atom])
            rows[:] = row[begin : begin + width[atom]]
        indptr = np.concatenate([[0], np.cumsum(np.repeat(width, sizes))]).astype(small)
        return cls(sizes, atom_pairs, start, width, column, indptr, indices)

    @property
    def num_orbitals(self) -> int:
        """Rows of the matrix: orbitals in the cell, with spin where H has it."""
        return len(self.indptr) - 1


@dataclass(frozen=True, eq=False)
class SparseOperator:
    """A real-space matrix ready to be summed at any k.

    cells: (C, 3) the R that occur. entries: (B,) as the matrix holds them.
    parts: what goes where; one, or one for each spin.
    """

    pattern: BlochPattern
    cells: np.ndarray
    entries: np.ndarray
    parts: tuple[BlockSum, ...]

    @classmethod
    def of(cls, matrix: BlockMatrix, pattern: BlochPattern) -> "SparseOperator":
        """From a Hermitian matrix whose pairs the pattern holds; a spinless one fills both spins of the pattern."""
        atoms = len(pattern.sizes)
        kept = np.flatnonzero(matrix.pairs[:, 3] <= matrix.pairs[:, 4])
        cells, cell = np.unique(matrix.pairs[kept, :3], axis=0, return_inverse=True)
        halves = matrix.pairs[kept, 3].astype(np.int64) * atoms + matrix.pairs[kept, 4]
        order = np.lexsort((cell.ravel(), halves))
        halves = halves[order]

        i, j = np.divmod(pattern.atom_pairs, atoms)
        half = np.minimum(i, j) * atoms + np.maximum(i, j)
        begin, end = np.searchsorted(halves, half), np.searchsorted(halves, half, side="right")
        here = end > begin
        i, j = i[here], j[here]
        rows, columns, step = matrix.sizes[i], matrix.sizes[j], pattern.width[i]
        place = pattern.start[i] + pattern.column[here]
        parts = tuple(
            BlockSum(
                cell=cell.ravel()[order].astype(np.int32),
                offset=matrix.offsets[:-1][kept[order]],
                first=np.searchsorted(i, np.append(np.unique(i), atoms)),
                begin=begin[here],
                end=end[here],
                kind=np.where(i < j, Kind.DIRECT, np.where(i > j, Kind.MIRRORED, Kind.DIAGONAL)),
                rows=rows,
                columns=columns,
                place=place + spin * (rows * step + columns),
                step=step,
            )
            for spin in range(int(pattern.sizes[0] // matrix.sizes[0]))
        )
        wide = np.complex128 if np.iscomplexobj(matrix.entries) else np.float64
        return cls(pattern, cells, np.ascontiguousarray(matrix.entries, dtype=wide), parts)

    def at_k(self, k: np.ndarray, *, single: bool = False, out: sparse.csr_array | None = None) -> sparse.csr_array:
        """A(k), (M, M) CSR; k: (3,) in units of the reciprocal lattice vectors.

        complex128; float64 where k and -k are the same point and A(R) is real. single: half of that precision.
        out: what this gave for another k and nobody needs any more: to be written over, as new memory takes as long to
        get as the sum itself.
        """
        phases = bloch_phases(self.cells, k)
        real = not (np.iscomplexobj(phases) or np.iscomplexobj(self.entries))
        dtype = {(True, False): "f8", (True, True): "f4", (False, False): "c16", (False, True): "c8"}[real, single]
        if out is not None and out.dtype == dtype and np.shares_memory(out.indices, self.pattern.indices):
            data = out.data  # what no block covers stays zero
        else:
            covered = sum(part.size for part in self.parts) == len(self.pattern.indices)
            data = (np.empty if covered else np.zeros)(len(self.pattern.indices), dtype)
        for part in self.parts:
            sum_blocks(self.entries, phases, part, data)
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
        return not any(np.iscomplexobj(channel.entries) for channel in self.hamiltonian)


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


def bloch_phases(cells: np.ndarray, k: np.ndarray) -> np.ndarray:
    """The factors exp(2πi k·R) of cells (C, 3): complex128, or float64 ±1 where k and -k are the same point."""
    k = np.asarray(k, dtype=float)
    if (np.abs(2 * k - np.round(2 * k)) < SAME_POINT).all():
        return 1.0 - 2.0 * (cells @ np.round(2 * k).astype(np.int64) % 2)
    return np.exp(2j * np.pi * (cells * k).sum(axis=1))
