"""States below an energy by the kernel polynomial method, for cells too large to diagonalise.

A. Weiße, G. Wellein, A. Alvermann, H. Fehske, Rev. Mod. Phys. 78, 275 (2006), called [W] below.
With an overlap the operator is A = S⁻¹ H, Hermitian in the inner product <a|b> = a† S b. If S = F F† and z is a random
vector with E[z z†] = 1, then for x = F†⁻¹ z the mean of <x| f(A) |x> is the trace of f(A), and that of
Σ_{μ in a group} Re x*_μ (S f(A) x)_μ is Mulliken's share of the group in it.

Shape letters: M rows of H(k), V random vectors, P groups of rows, m moments, L levels.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

from deeph_tracegrad.errors import SolverError
from deeph_tracegrad.inference.solvers.direct import PositiveFactors, factorise_positive

BOUND_TOLERANCE = 1e-4  # relative error of the lowest and highest energy
MARGIN = 0.01  # of the spectrum's width, kept free on either side
SMALLEST_SQUARE = 1e-2  # of sin(arccos x): even at the ends of the spectrum the kernel has some width
ROUNDING = 1e-6  # a Chebyshev polynomial inside the bounds exceeds 1 by less


@dataclass(frozen=True, eq=False)
class FactorisedOverlap:
    """S = F F† by sparse factorisation.

    matrix: S, (M, M).
    """

    matrix: sparse.csr_array
    factors: PositiveFactors

    @classmethod
    def of(cls, overlap: sparse.csr_array, direct: str = "auto") -> "FactorisedOverlap":
        """Factorise S(k).

        Raises:
            SolverError: S is not positive definite.
        """
        return cls(overlap, factorise_positive(overlap, direct))

    def solve(self, vectors: np.ndarray) -> np.ndarray:
        """S⁻¹ v of vectors (M, V)."""
        return self._by_parts(self.factors.solve, vectors)

    def coloured(self, vectors: np.ndarray) -> np.ndarray:
        """F†⁻¹ z of vectors (M, V)."""
        return self._by_parts(self.factors.solve_upper, vectors)

    def _by_parts(self, solve: Callable[[np.ndarray], np.ndarray], vectors: np.ndarray) -> np.ndarray:
        """Where S is real, as it is where k = -k even beside a complex H, both parts one after the other."""
        if np.iscomplexobj(vectors) and not np.iscomplexobj(self.matrix.data):
            return solve(vectors.real.copy()) + 1j * solve(vectors.imag.copy())
        return solve(vectors)


@dataclass(frozen=True)
class Bounds:
    """An interval that holds the spectrum: energies are centre + radius * x, x from -1 to 1; eV."""

    centre: float
    radius: float

    @classmethod
    def of(cls, hamiltonian: sparse.csr_array, overlap: FactorisedOverlap) -> "Bounds":
        """From the lowest and the highest state by Lanczos in the inner product of S.

        Raises:
            SolverError: Lanczos does not converge.
        """
        size, dtype = hamiltonian.shape[0], hamiltonian.dtype
        inverse = LinearOperator((size, size), overlap.solve, dtype=dtype)
        start = np.random.default_rng(0).standard_normal(size).astype(dtype)
        try:
            low, high = (
                eigsh(
                    hamiltonian,
                    k=1,
                    M=overlap.matrix,
                    Minv=inverse,
                    which=end,
                    tol=BOUND_TOLERANCE,
                    v0=start,
                    return_eigenvectors=False,
                )[0]
                for end in ("SA", "LA")
            )
        except ArpackError as error:
            raise SolverError(f"the bounds of the spectrum were not found ({error})") from None
        return cls(float(low + high) / 2, float(high - low) * (0.5 + MARGIN))


def random_vectors(size: int, number: int, dtype: np.dtype, seed: int) -> np.ndarray:
    """Vectors z with E[z z†] = 1 and |z_i| = 1, (M, V): signs for real matrices, phases for complex ones."""
    generator = np.random.default_rng(seed)
    if np.issubdtype(dtype, np.complexfloating):
        return np.exp(2j * np.pi * generator.random((size, number)))
    return generator.choice([-1.0, 1.0], (size, number))


def chebyshev_moments(
    hamiltonian: sparse.csr_array,
    overlap: FactorisedOverlap,
    bounds: Bounds,
    vectors: np.ndarray,
    number: int,
    members: sparse.csr_array,
) -> np.ndarray:
    """The shares of each group in <x| T_m(Ã) |x>, (m, P, V), for x = F†⁻¹ z; Ã is A with its spectrum in -1..1.

    All rows together take one product with H for two moments ([W] section II.B.1), several groups one for each: their
    shares in <T_m x| T_m x> would hold the noise of all states, not only of those near an energy.

    Args:
        hamiltonian: (M, M).
        overlap: S, factorised.
        bounds: of the spectrum.
        vectors: z (M, V); random, or the unit vectors for the exact trace.
        number: of moments, even and at least 4.
        members: (P, M), 1 where a row belongs to a group.

    Raises:
        SolverError: a state lies outside the bounds.
    """
    states = _polynomials(hamiltonian, overlap, bounds, overlap.coloured(vectors))
    moments = np.empty((number, members.shape[0], vectors.shape[1]))
    start, start_image = next(states)
    moments[0] = members @ (start_image.conj() * start).real
    if members.shape[0] > 1:
        for order in range(1, number):
            moments[order] = members @ (start_image.conj() * next(states)[0]).real
            _check_bounded(moments[order], moments[0], bounds)
        return moments
    image = start_image
    for order in range(number // 2):
        before, (state, image) = image, next(states)
        moments[2 * order + 1, 0] = _product(before, state)
        if order:
            moments[2 * order + 1] = 2 * moments[2 * order + 1] - moments[1]
        if 2 * order + 2 < number:
            moments[2 * order + 2] = 2 * _product(image, state) - moments[0]
            _check_bounded(moments[2 * order + 2], moments[0], bounds)
    return moments


def _polynomials(
    hamiltonian: sparse.csr_array, overlap: FactorisedOverlap, bounds: Bounds, start: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """T_m(Ã) x and S T_m(Ã) x of x (M, V), from m = 0 on; the second is carried along, without products with S."""

    def scaled(state: np.ndarray, image: np.ndarray) -> np.ndarray:
        """S Ã t of a state t whose image S t is known."""
        return (hamiltonian @ state - bounds.centre * image) / bounds.radius

    state, image = start, overlap.matrix @ start
    yield state, image
    following = scaled(state, image)
    while True:
        state, image, before = overlap.solve(following), following, image
        yield state, image
        following = 2 * scaled(state, image) - before


def _product(image: np.ndarray, state: np.ndarray) -> np.ndarray:
    """(S a)† b of vectors (M, V), (V,); real for polynomials of one Hermitian operator on one vector."""
    return np.einsum("mv,mv->v", image.conj(), state).real


def _check_bounded(moments: np.ndarray, zeroth: np.ndarray, bounds: Bounds) -> None:
    if (abs(moments.sum(axis=0)) > (1 + ROUNDING) * zeroth.sum(axis=0)).any():
        raise SolverError(
            f"states lie outside {bounds.centre - bounds.radius:.2f} to {bounds.centre + bounds.radius:.2f} eV, "
            "where Lanczos found all: S(k) is too nearly singular"
        )


def moments_needed(bounds: Bounds, broadening: float, window: tuple[float, float]) -> int:
    """How many moments, an even number, spread a state in the window (eV) by at most `broadening` (eV).

    The Jackson kernel is nearly a Gaussian of standard deviation π radius sqrt(1 - x²) / m, [W] section
    II.C.3: narrower near the ends of the spectrum, where the occupied states of most bases are.
    """
    low, high = ((energy - bounds.centre) / bounds.radius for energy in window)
    nearest = np.clip(0.0, low, high)  # to the middle of the spectrum, in the window
    width = np.pi * bounds.radius * np.sqrt(max(1 - nearest**2, SMALLEST_SQUARE))
    return 2 * max(2, int(np.ceil(width / broadening / 2)))


def jackson_factors(number: int) -> np.ndarray:
    """The kernel that keeps a truncated series positive, (m,), [W] section II.C.3."""
    order, last = np.arange(number), number + 1
    angle = np.pi / last
    return ((last - order) * np.cos(order * angle) + np.sin(order * angle) / np.tan(angle)) / last


def states_below(moments: np.ndarray, bounds: Bounds, levels: np.ndarray) -> np.ndarray:
    """The integral of the density of states up to each level, from moments (m, ...): (L, ...).

    The series of [W] section II.C integrated term by term: ∫ T_m(x) / sqrt(1 - x²) dx = -sin(m arccos x) / m.
    """
    angle = np.arccos(np.clip((levels - bounds.centre) / bounds.radius, -1, 1))
    order = np.arange(1, len(moments))
    factors = jackson_factors(len(moments))
    series = -2 * np.sin(angle[:, None] * order) * (factors[1:] / order)
    table = np.concatenate([np.pi - angle[:, None], series], axis=1) / np.pi
    return np.tensordot(table, moments, axes=1)
