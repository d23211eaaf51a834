"""Which atom pairs are the edges of a graph: one geometric rule for training and for prediction.

Every two atoms within the reach of their elements share an edge. The reach is the sum of the two cutoff radii, where
orbitals begin to overlap. ABACUS's H goes beyond, through the projectors of a third atom, and some sources do not tell
their radii: there the longest block of the training data counts. A network keeps the reach that it was trained with.

Shape letters: N atoms, E edges.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from pymatgen.core import Structure

from deeph_tracegrad.blocks import union_pairs
from deeph_tracegrad.material import Material
from deeph_tracegrad.orbitals import Basis

Reach = Mapping[str, float]
"""The longest edge in Å for each pair of elements, `C-Mo`, the elements in alphabetical order."""

# Å; far below any difference between shells of neighbours, far above rounding
_TOLERANCE = 1e-6


def edge_pairs(material: Material, reach: Reach | None = None) -> np.ndarray:
    """The edges of a material, (E, 5) int32 rows `[R1, R2, R3, i, j]`: on-site ones, then all within reach.

    Pairs of the overlap are edges too, wherever they are: they tell where orbitals overlap if no radius does.

    reach: of a network's training data; by default that of the material's own matrices. An empty one leaves the pairs
        of the overlap alone, which is DeepH-E3's rule.
    """
    if reach is not None and not reach and material.overlap is not None:
        return material.overlap.pairs
    reach = material_reach(material) if reach is None else merged_reach(reach, radii_reach(material.basis))
    pairs = np.concatenate([onsite_pairs(len(material.structure)), pairs_within(material.structure, reach)])
    return pairs if material.overlap is None else union_pairs(pairs, material.overlap.pairs)


def material_reach(material: Material) -> dict[str, float]:
    """How far the orbitals of a material's elements overlap and its blocks go."""
    matrices = [matrix for matrix in (material.overlap, *material.hamiltonian[:1]) if matrix is not None]
    longest = [longest_edges(material.elements, m.pairs, material.pair_vectors(m.pairs)) for m in matrices]
    return merged_reach(radii_reach(material.basis), *longest)


def radii_reach(basis: Basis) -> dict[str, float]:
    """The sum of the cutoff radii of each two elements, where both are known."""
    radii = {element: basis[element].cutoff_radius for element in sorted(basis)}
    return {
        f"{one}-{other}": first + second
        for one, first in radii.items()
        for other, second in radii.items()
        if one <= other and first is not None and second is not None
    }


def longest_edges(elements: Sequence[str], pairs: np.ndarray, vectors: np.ndarray) -> dict[str, float]:
    """The reach of these edges; vectors: (E, 3) Å."""
    lengths = np.linalg.norm(vectors, axis=1)
    kind, names = _element_pairs(elements, pairs[:, 3], pairs[:, 4])
    return {name: float(lengths[kind == place].max()) for place, name in enumerate(names) if (kind == place).any()}


def merged_reach(*reaches: Reach) -> dict[str, float]:
    """The longest of each element pair."""
    names = sorted({name for reach in reaches for name in reach})
    return {name: max(reach.get(name, 0.0) for reach in reaches) for name in names}


def onsite_pairs(num_atoms: int) -> np.ndarray:
    """Each atom with itself, (N, 5) int32."""
    atoms = np.arange(num_atoms, dtype=np.int32)
    return np.column_stack([np.zeros((num_atoms, 3), dtype=np.int32), atoms, atoms])


def pairs_within(structure: Structure, reach: Reach) -> np.ndarray:
    """Every pair of atoms within the reach of its elements, without the on-site ones, (E, 5) int32."""
    first, second, shift, length = structure.get_neighbor_list(max(reach.values(), default=0.0) + _TOLERANCE)
    kind, names = _element_pairs([site.specie.symbol for site in structure], first, second)
    limits = np.array([reach.get(name, 0.0) for name in names]) + _TOLERANCE
    kept = length <= limits[kind]
    return np.column_stack([shift.astype(np.int32), first, second])[kept].astype(np.int32)


def _element_pairs(elements: Sequence[str], first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """(E,) the number of each edge's element pair, and the names that the numbers stand for."""
    symbols, species = np.unique(np.asarray(elements), return_inverse=True)
    low, high = np.minimum(species[first], species[second]), np.maximum(species[first], species[second])
    names = [f"{one}-{other}" for one in symbols for other in symbols]
    return low * len(symbols) + high, names
