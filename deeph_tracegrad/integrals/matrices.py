"""S(R) and its kin for a whole structure.

Shape letters: E pairs, P pairs of two elements, B flat block entries, D components, a, b orbitals of the two atoms.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from pymatgen.core import Structure

from deeph_tracegrad.blocks import BlockMatrix, block_offsets, find_pairs, reversed_pairs
from deeph_tracegrad.errors import MismatchError
from deeph_tracegrad.integrals import operators
from deeph_tracegrad.integrals.radial import RadialFunctions, check_one_code
from deeph_tracegrad.integrals.tables import PairTable, pair_table
from deeph_tracegrad.material import pair_vectors
from deeph_tracegrad.parallel import ALONE, World

Orbitals = Mapping[str, RadialFunctions]
"""The radial functions of each element."""


# Pairs at a time: enough to be worth the calls, few enough for a processor's cache.
_CHUNK = 4096


def overlap_matrix(structure: Structure, orbitals: Orbitals, pairs: np.ndarray, ranks: World = ALONE) -> BlockMatrix:
    """S(R) on these pairs, exactly Hermitian.

    pairs: (E, 5) int, each with its partner (-R, j, i). ranks: share the work; on all but the main one S stays zero.

    Raises:
        MismatchError: the elements' functions are of different DFT codes, or a pair has no partner.
    """
    (entries,) = _entries(structure, orbitals, pairs, operators.overlap, ranks, symmetric=True)
    return _matrix(structure, orbitals, pairs, entries)


def kinetic_matrix(structure: Structure, orbitals: Orbitals, pairs: np.ndarray) -> BlockMatrix:
    """-ħ²∇²/2m, eV, exactly Hermitian; the rest as for the overlap."""
    (entries,) = _entries(structure, orbitals, pairs, operators.kinetic, ALONE, symmetric=True)
    return _matrix(structure, orbitals, pairs, entries * _any(orbitals).hartree_ev)


def position_matrices(structure: Structure, orbitals: Orbitals, pairs: np.ndarray) -> tuple[BlockMatrix, ...]:
    """The position from the Cartesian origin, x, y and z, Å; the rest as for the overlap."""
    relative = _entries(structure, orbitals, pairs, operators.position, ALONE) * _any(orbitals).bohr_angstrom
    overlap = overlap_matrix(structure, orbitals, pairs)
    origins = np.repeat(structure.cart_coords[pairs[:, 3]], np.diff(overlap.offsets), axis=0).T
    return tuple(overlap.with_entries(entries) for entries in relative + origins * overlap.entries)


def momentum_matrices(structure: Structure, orbitals: Orbitals, pairs: np.ndarray) -> tuple[BlockMatrix, ...]:
    """<i|∇|j>, x, y and z, 1/Å (the momentum is -iħ times it); the rest as for the overlap."""
    return tuple(matrix.with_entries(-matrix.entries) for matrix in overlap_gradients(structure, orbitals, pairs))


def overlap_gradients(structure: Structure, orbitals: Orbitals, pairs: np.ndarray) -> tuple[BlockMatrix, ...]:
    """The change of each block as atom j moves and atom i stays, x, y and z, 1/Å; the rest as for the overlap."""
    gradients = _entries(structure, orbitals, pairs, operators.gradient, ALONE) / _any(orbitals).bohr_angstrom
    return tuple(_matrix(structure, orbitals, pairs, entries) for entries in gradients)


@dataclass(frozen=True, eq=False)
class _Chunk:
    """Some pairs of two elements. members: (P,) int, their places."""

    table: PairTable
    members: np.ndarray


def _entries(
    structure: Structure,
    orbitals: Orbitals,
    pairs: np.ndarray,
    operator: operators.Operator,
    ranks: World,
    *,
    symmetric: bool = False,
) -> np.ndarray:
    """The blocks of every pair, flat, (D, B), in the basis files' units.

    symmetric: only one of each pair and its partner is computed, the other is its transpose.
    """
    check_one_code(orbitals.values())
    sizes = _sizes(structure, orbitals)
    offsets = block_offsets(pairs, sizes)
    vectors = pair_vectors(structure.cart_coords, structure.lattice.matrix, pairs) / _any(orbitals).bohr_angstrom
    partner = find_pairs(pairs, reversed_pairs(pairs)) if symmetric else np.arange(len(pairs))
    if (partner < 0).any():
        raise MismatchError("a list of atom pairs has (R, i, j) without its partner (-R, j, i)")
    computed = np.flatnonzero(partner >= np.arange(len(pairs)))
    chunks = _chunks(structure, orbitals, pairs, operator, computed)
    shape = (chunks[0].table.shape[0] if chunks else 0, offsets[-1])
    entries = np.zeros(shape) if ranks.is_main else np.broadcast_to(0.0, shape)  # which takes no memory

    def blocks(chunk: _Chunk) -> np.ndarray:
        return chunk.table.blocks(vectors[chunk.members])

    def place(chunk: _Chunk, values: np.ndarray) -> None:
        length = np.arange(values[0, 0].size)
        flat = values.reshape(*values.shape[:2], -1).swapaxes(0, 1)
        entries[:, offsets[chunk.members, None] + length] = flat
        if symmetric:
            mirrored = values.transpose(1, 0, 3, 2).reshape(flat.shape)
            entries[:, offsets[partner[chunk.members], None] + length] = mirrored

    if ranks.size == 1:
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            list(pool.map(lambda chunk: place(chunk, blocks(chunk)), chunks))
    else:
        for chunk, values in zip(chunks, ranks.streamed(blocks, chunks), strict=False):
            place(chunk, values)
    return entries


def _chunks(
    structure: Structure, orbitals: Orbitals, pairs: np.ndarray, operator: operators.Operator, computed: np.ndarray
) -> list[_Chunk]:
    """The pairs to be computed, apart by their two elements."""
    symbols = np.array([site.specie.symbol for site in structure])
    first, second = symbols[pairs[computed, 3]], symbols[pairs[computed, 4]]
    chunks = []
    for one, other in product(dict.fromkeys(symbols), repeat=2):
        members = computed[(first == one) & (second == other)]
        if len(members):
            table = pair_table(orbitals[one], orbitals[other], operator)
            chunks += [_Chunk(table, members[begin : begin + _CHUNK]) for begin in range(0, len(members), _CHUNK)]
    return chunks


def _matrix(structure: Structure, orbitals: Orbitals, pairs: np.ndarray, entries: np.ndarray) -> BlockMatrix:
    return BlockMatrix.of(pairs, entries, _sizes(structure, orbitals))


def _sizes(structure: Structure, orbitals: Orbitals) -> np.ndarray:
    """Orbitals of each atom, (N,) int64."""
    counts = {element: functions.basis.num_orbitals for element, functions in orbitals.items()}
    return np.array([counts[site.specie.symbol] for site in structure], dtype=np.int64)


def _any(orbitals: Orbitals) -> RadialFunctions:
    """The functions of one element, which tell the constants of the DFT code that all belong to."""
    return next(iter(orbitals.values()))
