"""The figures by which one calculation is judged; `defects` judges them.

Shape letters: N atoms, E pairs.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from pymatgen.core import Composition
from scipy.linalg import eigvalsh

from deeph_tracegrad.blocks import BlockMatrix, dense_at_k, on_site, union_pairs
from deeph_tracegrad.material import Material
from deeph_tracegrad.orbitals import Basis, SpinMode

MAX_DENSE_ORBITALS = 3000
# There S(k) is real, which makes its eigenvalues cheap.
CHECKED_K = ((0.0, 0.0, 0.0), (0.5, 0.0, 0.0), (0.5, 0.5, 0.0), (0.5, 0.5, 0.5))
REACH_TOLERANCE = 0.01  # Å


@dataclass(frozen=True)
class MatrixFigures:
    """Of S or H. longest: pair, Å. missing_on_site: atoms without an on-site block."""

    pairs: int
    longest: float
    missing_on_site: int


@dataclass(frozen=True, eq=False)
class Figures:
    """What was measured on a calculation. eV, Å; None where the source does not tell or a matrix is missing.

    elements: symbol of each atom. cell: (3, 3), rows; fractional: (N, 3), positions in its vectors.
    violations: largest |A - A†| before reading mended it, by matrix; a block without partner counts as a violation.
    shortest: distance between two atoms. lowest_overlap: the smallest eigenvalue of S(k) at CHECKED_K, and at
        lowest_overlap_k; None also for more than MAX_DENSE_ORBITALS orbitals.
    untouched: blocks of S between atoms whose orbitals do not touch; untouched_by: by how much at most.
    beyond_overlap: blocks of H where S has none or zeros; beyond_overlap_largest: the largest |H| there.
    on_site_levels: mean diagonal element of the on-site blocks of H, over spin, by element.
    exchange_splitting: mean over the atoms of the on-site levels' splitting by spin; None without spin.
    """

    elements: tuple[str, ...]
    cell: np.ndarray
    fractional: np.ndarray
    basis: Basis
    spin: SpinMode
    converged: bool | None
    fermi_level: float | None
    electrons: float | None
    overlap: MatrixFigures | None
    hamiltonian: MatrixFigures | None
    violations: Mapping[str, float]
    shortest: float | None
    lowest_overlap: float | None
    lowest_overlap_k: tuple[float, float, float] | None
    untouched: int
    untouched_by: float
    beyond_overlap: int
    beyond_overlap_largest: float
    on_site_levels: Mapping[str, float]
    exchange_splitting: float | None

    @cached_property
    def formula(self) -> str:
        """Elements and their numbers in the cell: Mo4 S8."""
        return Composition(Counter(self.elements)).formula

    @property
    def num_orbitals(self) -> int:
        """Orbitals in the cell, without spin."""
        return int(self.basis.num_orbitals(self.elements).sum())


def measure(material: Material) -> Figures:
    """All figures of one calculation."""
    hamiltonian = largest_channel(material.hamiltonian)
    matrices = [matrix for matrix in (material.overlap, hamiltonian) if matrix is not None]
    lowest, place = _lowest_overlap(material)
    untouched, untouched_by = _untouched(material)
    beyond, beyond_largest = _beyond_overlap(material.overlap, hamiltonian)
    levels, splitting = _on_site_levels(material)
    return Figures(
        elements=tuple(material.elements),
        cell=material.structure.lattice.matrix,
        fractional=material.structure.frac_coords,
        basis=material.basis,
        spin=material.spin,
        converged=material.converged,
        fermi_level=material.fermi_level,
        electrons=material.electrons,
        overlap=None if material.overlap is None else _matrix_figures(material, material.overlap),
        hamiltonian=None if hamiltonian is None else _matrix_figures(material, hamiltonian),
        violations={name: float(value) for name, value in material.provenance.get("hermiticity_violation", {}).items()},
        shortest=_shortest(material, matrices),
        lowest_overlap=lowest,
        lowest_overlap_k=place,
        untouched=untouched,
        untouched_by=untouched_by,
        beyond_overlap=beyond,
        beyond_overlap_largest=beyond_largest,
        on_site_levels=levels,
        exchange_splitting=splitting,
    )


def largest_channel(hamiltonian: Sequence[BlockMatrix]) -> BlockMatrix | None:
    """One matrix with, entry by entry, the larger magnitude of the spin channels; None where there is none."""
    if not hamiltonian:
        return None
    pairs = union_pairs(*(matrix.pairs for matrix in hamiltonian))
    entries = [abs(matrix.on_pairs(pairs).entries) for matrix in hamiltonian]
    return BlockMatrix.of(pairs, np.max(entries, axis=0), hamiltonian[0].sizes)


def _matrix_figures(material: Material, matrix: BlockMatrix) -> MatrixFigures:
    longest = float(_distances(material, matrix).max(initial=0.0))
    return MatrixFigures(len(matrix), longest, len(material.structure) - int(on_site(matrix.pairs).sum()))


def _shortest(material: Material, matrices: Sequence[BlockMatrix]) -> float | None:
    """The shortest pair of two atoms, Å."""
    bonds = [_distances(material, matrix)[~on_site(matrix.pairs)] for matrix in matrices]
    shortest = min((float(lengths.min(initial=np.inf)) for lengths in bonds), default=np.inf)
    return shortest if np.isfinite(shortest) else None


def _lowest_overlap(material: Material) -> tuple[float | None, tuple[float, float, float] | None]:
    """The smallest eigenvalue of S(k) at CHECKED_K, and the k where it is."""
    if material.overlap is None or material.num_orbitals > MAX_DENSE_ORBITALS:
        return None, None
    lowest = [
        float(eigvalsh(dense_at_k(material.overlap, np.array(k)).real, subset_by_index=[0, 0])[0]) for k in CHECKED_K
    ]
    return min(lowest), CHECKED_K[int(np.argmin(lowest))]


def _untouched(material: Material) -> tuple[int, float]:
    """Blocks of S, not zero, between atoms whose orbitals do not touch, and by how many Å at most they do not."""
    radii = [material.basis[element].cutoff_radius for element in material.elements]
    if material.overlap is None or None in radii:
        return 0, 0.0
    pairs, reach = material.overlap.pairs, np.array(radii, dtype=float)
    excess = _distances(material, material.overlap) - reach[pairs[:, 3]] - reach[pairs[:, 4]]
    beyond = (excess > REACH_TOLERANCE) & (_largest(material.overlap) > 0)
    return int(beyond.sum()), float(excess[beyond].max(initial=0.0))


def _beyond_overlap(overlap: BlockMatrix | None, hamiltonian: BlockMatrix | None) -> tuple[int, float]:
    """Blocks of H where S has none or only zeros, and the largest |H| in them, eV."""
    if overlap is None or hamiltonian is None:
        return 0, 0.0
    size = _largest(hamiltonian)
    beyond = (_largest(overlap.on_pairs(hamiltonian.pairs)) == 0) & (size > 0)
    return int(beyond.sum()), float(size[beyond].max(initial=0.0))


def _on_site_levels(material: Material) -> tuple[dict[str, float], float | None]:
    """The on-site levels by element, and their mean splitting by spin.

    tr(H_ii) / n of atom i as a matrix in spin space is level + b·σ; the splitting is 2 |b|, which does not depend on
    the direction of the spin.
    """
    levels: dict[str, list[float]] = defaultdict(list)
    splittings = []
    for atom, spinor in _on_site_traces(material).items():
        levels[material.elements[atom]].append(float(np.trace(spinor).real) / 2)
        splittings.append(float(np.linalg.norm(spinor - np.trace(spinor) / 2 * np.eye(2)) * np.sqrt(2)))
    means = {element: float(np.mean(values)) for element, values in levels.items()}
    return means, None if material.spin is SpinMode.NONE or not splittings else float(np.mean(splittings))


def _on_site_traces(material: Material) -> dict[int, np.ndarray]:
    """tr(H_ii) / n over the orbitals of each atom i, (2, 2) in spin space, eV."""
    traces: dict[int, np.ndarray] = {}
    channels = material.hamiltonian
    for channel, matrix in enumerate(channels):
        for place in np.flatnonzero(on_site(matrix.pairs)):
            block, atom = matrix.block(int(place)), int(matrix.pairs[place, 3])
            spinor = traces.setdefault(atom, np.zeros((2, 2), dtype=complex))
            if material.spin is SpinMode.NONCOLLINEAR:
                half = len(block) // 2
                spinor += np.einsum("aibi->ab", block.reshape(2, half, 2, half)) / half
            elif material.spin is SpinMode.COLLINEAR:
                spinor[channel, channel] = np.trace(block) / len(block)
            else:
                spinor += np.trace(block) / len(block) * np.eye(2)
    return traces


def _distances(material: Material, matrix: BlockMatrix) -> np.ndarray:
    """Length of each pair, (E,) Å."""
    return np.linalg.norm(material.pair_vectors(matrix.pairs), axis=1)


def _largest(matrix: BlockMatrix) -> np.ndarray:
    """The largest |entry| of each block, (E,)."""
    if not len(matrix):
        return np.zeros(0)
    return np.maximum.reduceat(abs(matrix.entries), matrix.offsets[:-1])
