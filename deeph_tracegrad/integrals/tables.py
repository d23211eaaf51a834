"""Two-centre integrals of two elements, tabulated in the distance and evaluated on many pairs at once.

Between grid points a table is a quintic with the exact value, slope and curvature at both ends.

Shape letters: P pairs, T functions of the distance (columns), G grid points, K points in k, D components of the
operator, n1, n2 radial functions of a degree, m1, m2 harmonics, a, b orbitals of the two atoms.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from scipy.special import spherical_jn

from deeph_tracegrad.integrals.angular import harmonics
from deeph_tracegrad.integrals.kept import kept
from deeph_tracegrad.integrals.operators import Operator, Term
from deeph_tracegrad.integrals.radial import RadialFunctions
from deeph_tracegrad.integrals.transform import momentum_grid, transformed

# bohr; the interpolation error of an overlap stays below 1e-12
GRID_STEP = 0.02


@dataclass(frozen=True, eq=False)
class ShellPair:
    """All shells of one degree against all of another: where their orbitals and their columns of the table stand.

    The columns begin at `start` and are ordered (term, n1, n2).
    """

    degrees: tuple[int, int]
    rows: slice
    columns: slice
    counts: tuple[int, int]
    terms: Sequence[Term]
    start: int

    @property
    def width(self) -> int:
        """Number of columns."""
        return len(self.terms) * self.counts[0] * self.counts[1]


@dataclass(frozen=True, eq=False)
class PairTable:
    """An operator between the orbitals of two elements, as a function of the vector from the first to the second.

    values: (G, 3, T), the functions, their slopes times the step and their curvatures times its square.
    """

    shells: Sequence[ShellPair]
    values: np.ndarray
    shape: tuple[int, int, int]

    def blocks(self, vectors: np.ndarray) -> np.ndarray:
        """The blocks of pairs at these vectors, (P, D, a, b). vectors: (P, 3) bohr."""
        distances = np.linalg.norm(vectors, axis=1)
        degrees = sorted({term.degree for shells in self.shells for term in shells.terms})
        directions = vectors / np.where(distances > 0, distances, 1.0)[:, None]
        direction = dict(zip(degrees, harmonics(degrees, directions), strict=True))
        radial = self._interpolated(distances)
        blocks = np.zeros((*self.shape, len(vectors)))
        for pair in self.shells:
            n1, n2 = pair.counts
            part = blocks[:, pair.rows, pair.columns]
            part = part.reshape(len(part), n1, -1, n2, part.shape[2] // n2, len(vectors))  # still a view
            functions = radial[pair.start : pair.start + pair.width].reshape(len(pair.terms), n1, 1, n2, 1, -1)
            for term, function in zip(pair.terms, functions, strict=True):
                angular = term.angular @ direction[term.degree]  # (D, m1, m2, P)
                part += function * angular[:, None, :, None]
        return np.ascontiguousarray(np.moveaxis(blocks, -1, 0))

    def _interpolated(self, distances: np.ndarray) -> np.ndarray:
        """The functions at these distances, (T, P); zero beyond the table."""
        place = distances / GRID_STEP
        left = np.minimum(place.astype(np.int64), len(self.values) - 2)
        t = np.minimum(place - left, 1.0)
        result = np.zeros((len(distances), self.values.shape[2]))
        for end, coefficients in enumerate(_quintic(t)):
            rows = self.values[left + end]
            for order, coefficient in enumerate(coefficients):
                result += coefficient[:, None] * rows[:, order]
        return np.ascontiguousarray(result.T)


def pair_table(first: RadialFunctions, second: RadialFunctions, operator: Operator) -> PairTable:
    """Tabulate an operator between two elements whose functions have one quadrature; tables are kept on disk."""
    shells = _shell_pairs(first, second, operator)
    size = round((first.cutoff + second.cutoff) / GRID_STEP) + 2
    values = kept(
        _fingerprint(first, second, operator),
        lambda: _tabulated(first, second, shells, np.arange(size) * GRID_STEP),
    )
    components = len(shells[0].terms[0].angular)
    return PairTable(shells, values, (components, _num_orbitals(first.degrees), _num_orbitals(second.degrees)))


def _fingerprint(first: RadialFunctions, second: RadialFunctions, operator: Operator) -> str:
    """Of all that a table depends on, this code included."""
    digest = hashlib.sha256(operator.__name__.encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    for functions in (first, second):
        digest.update(repr((functions.degrees, functions.cutoff, functions.quadrature)).encode())
        digest.update(functions.r.tobytes())
        digest.update(functions.values.tobytes())
    return digest.hexdigest()[:32]


def _shell_pairs(first: RadialFunctions, second: RadialFunctions, operator: Operator) -> list[ShellPair]:
    shells: list[ShellPair] = []
    start = 0
    for degree, rows, n1 in _degree_blocks(first.degrees):
        for other, columns, n2 in _degree_blocks(second.degrees):
            shells.append(ShellPair((degree, other), rows, columns, (n1, n2), operator(degree, other), start))
            start += shells[-1].width
    return shells


def _degree_blocks(degrees: Sequence[int]) -> list[tuple[int, slice, int]]:
    """Of each degree: the orbitals of its shells, which stand together, and how many shells they are."""
    blocks, begin = [], 0
    for degree in sorted(set(degrees)):
        count = degrees.count(degree)
        end = begin + count * (2 * degree + 1)
        blocks.append((degree, slice(begin, end), count))
        begin = end
    return blocks


def _num_orbitals(degrees: Sequence[int]) -> int:
    return sum(2 * degree + 1 for degree in degrees)


def _tabulated(
    first: RadialFunctions, second: RadialFunctions, shells: Sequence[ShellPair], distances: np.ndarray
) -> np.ndarray:
    """∫ k^(2+p) F1 F2 j_L(kd) dk and its first two derivatives by d, times powers of the step, (G, 3, T)."""
    grid = momentum_grid(first.quadrature)
    transform = cache(transformed)
    integrands = np.empty((len(grid.k), sum(pair.width for pair in shells)))
    wave_degrees = np.empty(integrands.shape[1], dtype=np.int64)
    for pair in shells:
        right = transform(second, pair.degrees[1], pair.degrees[1], False)
        size = pair.counts[0] * pair.counts[1]
        for place, term in enumerate(pair.terms):
            left = transform(first, pair.degrees[0], term.first_degree, term.times_r)
            columns = slice(pair.start + place * size, pair.start + (place + 1) * size)
            products = (left[:, None] * right).reshape(size, -1)
            integrands[:, columns] = (products * grid.weights * grid.k ** (2 + term.k_power)).T
            wave_degrees[columns] = term.degree
    phase = np.outer(distances, grid.k)
    waves = [spherical_jn(degree, phase) for degree in range(wave_degrees.max() + 3)]
    values = np.empty((len(distances), 3, len(wave_degrees)))
    for degree in np.unique(wave_degrees):
        columns = wave_degrees == degree
        for order in range(3):
            powers = (grid.k[:, None] * GRID_STEP) ** order
            values[:, order, columns] = _derivative(waves, degree, order) @ (powers * integrands[:, columns])
    return values


def _derivative(waves: Sequence[np.ndarray], degree: int, order: int) -> np.ndarray:
    """A derivative of j_l, from (2l+1) j_l' = l j_{l-1} - (l+1) j_{l+1}."""
    if order == 0:
        return waves[degree]
    higher = (degree + 1) * _derivative(waves, degree + 1, order - 1)
    lower = degree * _derivative(waves, degree - 1, order - 1) if degree else 0.0
    return (lower - higher) / (2 * degree + 1)


def _quintic(t: np.ndarray) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    """The weights of value, slope and curvature at the left and at the right end of an interval; t: in 0..1."""
    s = 1 - t
    left = (s**3 * (1 + 3 * t + 6 * t**2), s**3 * t * (1 + 3 * t), s**3 * t**2 / 2)
    right = (t**3 * (1 + 3 * s + 6 * s**2), -(t**3) * s * (1 + 3 * s), t**3 * s**2 / 2)
    return left, right
