"""Matrices between local orbitals, stored as atom-pair blocks.

Shape letters: N atoms, E pairs (edges), B flat block entries, M orbitals, k pairs of one shape.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from deeph_tracegrad.errors import MismatchError
from deeph_tracegrad.orbitals import OrbitalOrder


@dataclass(frozen=True, eq=False)
class BlockMatrix:
    """Blocks <i in cell 0 | A | j in cell R> of a real-space matrix such as H(R) or S(R).

    pairs: (E, 5) int32, rows `[R1, R2, R3, i, j]`, 0-based.
    offsets: (E+1,) int64, where each block begins in `entries`.
    entries: (B,) float64 or complex128; block e is row-major (n_i, n_j). eV for H, 1 for S.
    sizes: (N,) int64, rows n_i that an atom takes: its orbitals, doubled for a noncollinear H.
    """

    pairs: np.ndarray
    offsets: np.ndarray
    entries: np.ndarray
    sizes: np.ndarray

    def __post_init__(self) -> None:
        expected = block_offsets(self.pairs, self.sizes)
        if not np.array_equal(expected, self.offsets) or len(self.entries) != expected[-1]:
            raise MismatchError(
                f"{len(self.pairs)} blocks between atoms of these sizes need {expected[-1]} entries; "
                f"the matrix has {len(self.entries)}, or its offsets say otherwise"
            )

    @classmethod
    def of(cls, pairs: np.ndarray, entries: np.ndarray, sizes: np.ndarray) -> "BlockMatrix":
        """From pairs and flat entries; the offsets follow."""
        pairs = np.ascontiguousarray(pairs, dtype=np.int32)
        sizes = np.asarray(sizes, dtype=np.int64)
        return cls(pairs, block_offsets(pairs, sizes), entries, sizes)

    @classmethod
    def scattered(
        cls, cells: np.ndarray, rows: np.ndarray, columns: np.ndarray, values: np.ndarray, sizes: np.ndarray
    ) -> "BlockMatrix":
        """From Z single entries: a dense block for each atom pair that has one, zero where none is given.

        cells: (Z, 3) int, R of each entry. rows, columns: (Z,) int, counted through all atoms. values: (Z,).

        Raises:
            MismatchError: an entry is given twice.
        """
        starts = np.concatenate([[0], np.cumsum(sizes)])
        atom = np.repeat(np.arange(len(sizes)), sizes)
        every = np.column_stack([cells, atom[rows], atom[columns]])
        (keys,) = _pair_keys(every)
        _, first, pair = np.unique(keys, return_index=True, return_inverse=True)
        offsets = block_offsets(every[first], sizes)
        inside = (rows - starts[every[:, 3]]) * sizes[every[:, 4]] + columns - starts[every[:, 4]]
        places = offsets[pair] + inside
        if len(np.unique(places)) < len(places):
            raise MismatchError("an element of the matrix is given twice")
        entries = np.zeros(offsets[-1], values.dtype)
        entries[places] = values
        return cls.of(every[first], entries, sizes)

    def __len__(self) -> int:
        """Number of blocks."""
        return len(self.pairs)

    def block(self, pair: int) -> np.ndarray:
        """One block, (n_i, n_j)."""
        i, j = self.pairs[pair, 3:]
        return self.entries[self.offsets[pair] : self.offsets[pair + 1]].reshape(self.sizes[i], self.sizes[j])

    def with_entries(self, entries: np.ndarray) -> "BlockMatrix":
        """The same pattern with other values."""
        return replace(self, entries=entries)

    def stacks(self, kinds: np.ndarray | None = None) -> Iterator[tuple[tuple[int, int], np.ndarray, np.ndarray]]:
        """Blocks grouped so that each group is one dense stack.

        kinds: (N,) int, atoms of one kind have one size; by default the sizes themselves.
        Yields ((kind_i, kind_j), pair numbers (k,), places in `entries` (k, n_i * n_j)).
        """
        kinds = self.sizes if kinds is None else kinds
        kind_pairs = np.stack([kinds[self.pairs[:, 3]], kinds[self.pairs[:, 4]]])
        labels = kind_pairs[0] * (int(kinds.max(initial=0)) + 1) + kind_pairs[1]
        for label in np.unique(labels):
            members = np.flatnonzero(labels == label)
            length = self.offsets[members[0] + 1] - self.offsets[members[0]]
            places = self.offsets[members, None] + np.arange(length)
            yield (int(kind_pairs[0, members[0]]), int(kind_pairs[1, members[0]])), members, places

    def adjoint(self) -> "BlockMatrix":
        """The blocks of A†: pair (R, i, j) becomes (-R, j, i) with the conjugate transpose; same order of pairs."""
        entries = np.empty_like(self.entries)
        for (rows, columns), _, places in self.stacks():
            stack = self.entries[places].reshape(-1, rows, columns)
            entries[places] = stack.conj().transpose(0, 2, 1).reshape(len(places), -1)
        return BlockMatrix(reversed_pairs(self.pairs), self.offsets, entries, self.sizes)

    @cached_property
    def reverse(self) -> np.ndarray:
        """(E,) int64: where the partner (-R, j, i) of each pair stands; -1 where it is missing."""
        return find_pairs(self.pairs, reversed_pairs(self.pairs))

    def on_pairs(self, pairs: np.ndarray) -> "BlockMatrix":
        """The matrix on another list of pairs: blocks that it lacks are zero, blocks not listed are left out."""
        if np.array_equal(pairs, self.pairs):
            return self
        source = find_pairs(self.pairs, pairs)
        offsets = block_offsets(pairs, self.sizes)
        lengths = np.diff(offsets)
        found = np.repeat(source >= 0, lengths)
        places = np.repeat(self.offsets[source] - offsets[:-1], lengths) + np.arange(offsets[-1])
        entries = np.zeros(offsets[-1], self.entries.dtype)
        entries[found] = self.entries[places[found]]
        return BlockMatrix.of(pairs, entries, self.sizes)

    def permuted(self, order: np.ndarray) -> "BlockMatrix":
        """The same blocks for atoms in another order: new atom a is old atom order[a]; order: (N,) int."""
        pairs = np.concatenate([self.pairs[:, :3], np.argsort(order)[self.pairs[:, 3:]]], axis=1)
        return BlockMatrix.of(pairs, self.entries, self.sizes[order])

    def symmetrised(self) -> tuple["BlockMatrix", float]:
        """(A + A†) / 2, and the largest |A - A†| before.

        A block whose partner is missing is kept and its partner added.
        """
        lone = self.reverse < 0
        if lone.any():
            adjoint = self.adjoint()
            pairs = np.concatenate([self.pairs, adjoint.pairs[lone]])
            entries = np.concatenate([self.entries, adjoint.entries[np.repeat(lone, np.diff(self.offsets))]])
            return BlockMatrix.of(pairs, entries, self.sizes).symmetrised()
        adjoint_entries = np.empty_like(self.entries)
        for (rows, columns), members, places in self.stacks():
            partner_places = self.offsets[self.reverse[members], None] + np.arange(rows * columns)
            stack = self.entries[partner_places].reshape(-1, columns, rows)
            adjoint_entries[places] = stack.conj().transpose(0, 2, 1).reshape(len(places), -1)
        violation = float(np.abs(self.entries - adjoint_entries).max(initial=0.0))
        return self.with_entries((self.entries + adjoint_entries) / 2), violation

    def reordered(self, orders: Sequence[OrbitalOrder], kinds: np.ndarray) -> "BlockMatrix":
        """Every atom's orbitals in another order.

        orders: one for each kind; kinds: (N,) int, the kind of each atom.
        """
        entries = np.empty_like(self.entries)
        for (row, column), _, places in self.stacks(kinds):
            rows, columns = orders[row], orders[column]
            stack = self.entries[places].reshape(-1, len(rows.index), len(columns.index))
            stack = stack[:, rows.index[:, None], columns.index] * (rows.sign[:, None] * columns.sign)
            entries[places] = stack.reshape(len(places), -1)
        return self.with_entries(entries)


def dense_at_k(matrix: BlockMatrix, k: np.ndarray) -> np.ndarray:
    """A(k) = sum_R exp(+2 pi i k.R) A(R) as one dense matrix, (M, M) complex128, for small cells and for checks.

    k: (3,) in fractions of the reciprocal vectors. Atom i's rows follow those of atom i-1; with spinors, its up rows
    come before its down rows.
    """
    starts = np.concatenate([[0], np.cumsum(matrix.sizes)])
    result = np.zeros((starts[-1], starts[-1]), dtype=np.complex128)
    phases = np.exp(2j * np.pi * (matrix.pairs[:, :3] @ np.asarray(k, dtype=float)))
    for (rows, columns), members, places in matrix.stacks():
        blocks = phases[members, None, None] * matrix.entries[places].reshape(-1, rows, columns)
        row = starts[matrix.pairs[members, 3], None, None] + np.arange(rows)[:, None]
        column = starts[matrix.pairs[members, 4], None, None] + np.arange(columns)
        np.add.at(result, (row, column), blocks)
    return result


def block_offsets(pairs: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Where each block begins in the flat entries, (E+1,) int64."""
    lengths = sizes[pairs[:, 3]] * sizes[pairs[:, 4]]
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def reversed_pairs(pairs: np.ndarray) -> np.ndarray:
    """(R, i, j) -> (-R, j, i), (E, 5)."""
    return np.concatenate([-pairs[:, :3], pairs[:, [4, 3]]], axis=1)


def union_pairs(*lists: np.ndarray) -> np.ndarray:
    """The pairs of the first list, then those of each next one that are new, (E, 5) int32."""
    union = lists[0]
    for pairs in lists[1:]:
        union = np.concatenate([union, pairs[find_pairs(union, pairs) < 0]])
    return union.astype(np.int32)


def find_pairs(pairs: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where each wanted pair stands in `pairs`, (len(wanted),) int64; -1 where it does not.

    Raises:
        MismatchError: `pairs` lists a pair twice.
    """
    keys, wanted_keys = _pair_keys(pairs, wanted)
    order = np.argsort(keys, kind="stable")
    ranked = keys[order]
    if len(ranked) > 1 and (ranked[1:] == ranked[:-1]).any():
        twice = pairs[order[1:][ranked[1:] == ranked[:-1]][0]].tolist()
        raise MismatchError(f"the atom pair [R1, R2, R3, i, j] = {twice} is listed twice")
    if not len(ranked):
        return np.full(len(wanted), -1, dtype=np.int64)
    place = np.minimum(np.searchsorted(ranked, wanted_keys), len(ranked) - 1)
    return np.where(ranked[place] == wanted_keys, order[place], -1)


def _pair_keys(*lists: np.ndarray) -> list[np.ndarray]:
    """One integer for each pair, equal for equal pairs across the lists."""
    everything = np.concatenate(lists).astype(np.int64)
    low = everything.min(axis=0, initial=0)
    span = everything.max(axis=0, initial=0) - low + 1
    if np.prod(span.astype(float)) > 2.0**62:
        raise MismatchError(f"cell and atom indices span too wide a range to be real: {span.tolist()}")
    keys = np.ravel_multi_index(tuple((everything - low).T), tuple(span))
    return np.split(keys, np.cumsum([len(part) for part in lists])[:-1])
