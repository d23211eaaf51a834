"""Factors A = L D L† of a Hermitian matrix, and how those of single precision solve in double.

Single precision halves the time and the memory of a factorisation. With à = A + E the matrix that was factorised, a
step x += Ã⁻¹ (b - A x) multiplies the residual by E Ã⁻¹: Moler, J. ACM 14, 316 (1967). While that is smaller than 1, no
matrix between A and à is singular, so both have the same inertia.

Shape letters: M rows, n right-hand sides.
"""

from typing import Protocol

import numpy as np
from scipy import sparse

from deeph_tracegrad.inference.solvers.product import product

SOLVED = 1e-5  # residual, of the right-hand side: that which Lanczos stops at
CONTRACTION = 0.1  # of the residual, by a step, at least
MOST_STEPS = 20
PROBES = 2  # random vectors that the contraction is measured with
PROBE_STEPS = 4  # of the power iteration that turns them to where it is worst


class Factors(Protocol):
    """A factorised Hermitian matrix.

    negative: its negative eigenvalues. perturbed: pivots that were too small and were changed; with any, the matrix is
    singular to working precision and `negative` means nothing. accuracy: residual of an eigenvector, of its eigenvalue,
    that an iteration with `solve` reaches.
    """

    negative: int
    perturbed: int
    accuracy: float

    def solve(self, right: np.ndarray) -> np.ndarray:
        """A⁻¹ b; right: (M,) or (M, n)."""


class PositiveFactors(Protocol):
    """A positive definite matrix A = F F†; see `PardisoFactors`."""

    def solve(self, right: np.ndarray) -> np.ndarray:
        """A⁻¹ b; right: (M, n), of the matrix's type."""

    def solve_upper(self, right: np.ndarray) -> np.ndarray:
        """F†⁻¹ b; right: (M, n), of the matrix's type."""


class RefinedFactors:
    """Factors of a matrix from those of its rounded copy; see `Factors`."""

    accuracy = 1e-5

    def __init__(self, rounded: Factors, matrix: sparse.csr_array) -> None:
        """matrix: (M, M) of double precision.

        Raises:
            ArithmeticError: the rounded factors are too coarse, as near an eigenvalue that rounding may move past zero.
        """
        self._rounded = rounded
        self._matrix = matrix
        self._single = np.complex64 if np.iscomplexobj(matrix.data) else np.float32
        self.negative = rounded.negative
        self.perturbed = rounded.perturbed
        self._check_contraction()

    def solve(self, right: np.ndarray) -> np.ndarray:
        """A⁻¹ b of double precision; right: (M,) or (M, n)."""
        norm = np.maximum(np.linalg.norm(right, axis=0), np.finfo(float).tiny)
        solution = self._rough(right)
        before = 1.0
        for _ in range(MOST_STEPS):
            rest = right - product(self._matrix, solution)
            error = float(np.max(np.linalg.norm(rest, axis=0) / norm))
            solution += self._rough(rest)
            if error * error / before < SOLVED:  # a step gains about as much as the one before it
                break
            before = error
        return solution

    def _rough(self, right: np.ndarray) -> np.ndarray:
        return self._rounded.solve(right.astype(self._single)).astype(self._matrix.dtype)

    def _check_contraction(self) -> None:
        rest = np.random.default_rng(0).standard_normal((self._matrix.shape[0], PROBES)).astype(self._matrix.dtype)
        for _ in range(PROBE_STEPS):
            rest /= np.linalg.norm(rest, axis=0)
            rest = rest - product(self._matrix, self._rough(rest))
            if not (np.linalg.norm(rest, axis=0) < CONTRACTION).all():
                raise ArithmeticError("factors of single precision are too coarse for this matrix")
