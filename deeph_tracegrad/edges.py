"""Which atom pairs are the edges of a graph: one rule for training and for prediction.

Edges are the pairs of the overlap. In OpenMX H has the same; in ABACUS H reaches further, through the projectors of a
third atom, so there every pair is an edge whose length is within the longest block of H between its two elements. That
reach is measured on the training data and kept with the network.

Shape letters: N atoms, E edges.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from pymatgen.core import Structure

from deeph_tracegrad.blocks import find_pairs, union_pairs
from deeph_tracegrad.material import Material

Reach = Mapping[str, float]
"""The longest edge in Å for each pair of elements, `C-Mo`, the elements in alphabetical order."""

# Å; far below any difference between shells of neighbours, far above rounding
_TOLERANCE = 1e-6


def edge_pairs(material: Material, reach: Reach | None = None) -> np.ndarray:
    """The edges of a material, (E, 5) int32 rows `[R1, R2, R3, i, j]`.

    reach: of a network's training data; by default that of the material's own H.
    """
    known = [matrix.pairs for matrix in (material.overlap, *material.hamiltonian[:1]) if matrix is not None]
    pairs = union_pairs(*known)
    if reach is None:
        if len(known) < 2 or (find_pairs(known[0], known[1]) >= 0).all():
            return pairs
        reach = longest_edges(material.elements, pairs, material.pair_vectors(pairs))
    return union_pairs(pairs, pairs_within(material.structure, material.elements, reach))


def longest_edges(elements: Sequence[str], pairs: np.ndarray, vectors: np.ndarray) -> dict[str, float]:
    """The reach of these edges; vectors: (E, 3) Å."""
    lengths = np.linalg.norm(vectors, axis=1)
    kind, names = _element_pairs(elements, pairs[:, 3], pairs[:, 4])
    return {name: float(lengths[kind == place].max()) for place, name in enumerate(names) if (kind == place).any()}


def merged_reach(*reaches: Reach) -> dict[str, float]:
    """The longest of each element pair."""
    names = sorted({name for reach in reaches for name in reach})
    return {name: max(reach.get(name, 0.0) for reach in reaches) for name in names}


def pairs_within(structure: Structure, elements: Sequence[str], reach: Reach) -> np.ndarray:
    """Every pair of atoms within the reach of its elements, without the on-site ones, (E, 5) int32."""
    first, second, shift, length = structure.get_neighbor_list(max(reach.values(), default=0.0) + _TOLERANCE)
    kind, names = _element_pairs(elements, first, second)
    limits = np.array([reach.get(name, 0.0) for name in names]) + _TOLERANCE
    kept = length <= limits[kind]
    return np.column_stack([shift.astype(np.int32), first, second])[kept].astype(np.int32)


def _element_pairs(elements: Sequence[str], first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """(E,) the number of each edge's element pair, and the names that the numbers stand for."""
    symbols, species = np.unique(np.asarray(elements), return_inverse=True)
    low, high = np.minimum(species[first], species[second]), np.maximum(species[first], species[second])
    names = [f"{one}-{other}" for one in symbols for other in symbols]
    return low * len(symbols) + high, names
