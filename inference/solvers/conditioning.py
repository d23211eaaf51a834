"""When orbitals are nearly linearly dependent: what S(k) says, and how its bad directions are taken out.

Along an eigenvector of S with a small eigenvalue s, errors of H count 1/s times: a network's errors of meV become
levels anywhere. Directions with s below FLOOR are projected out, c is sought in the space orthogonal to them, and the
user is told. That is canonical orthogonalisation: Löwdin, Adv. Quantum Chem. 5, 185 (1970).

Shape letters: M rows, Q directions that are taken out, n right-hand sides.
"""

from dataclasses import dataclass

import numpy as np
from scipy import linalg, sparse

from deeph_tracegrad.console import warn
from deeph_tracegrad.errors import SolverError
from deeph_tracegrad.inference.solvers.direct import ShiftedFactors, factorise
from deeph_tracegrad.inference.solvers.lanczos import nearest_states
from deeph_tracegrad.inference.solvers.product import product

FLOOR = 1e-5  # smallest eigenvalue of S(k) that is kept
SUSPECT = 10  # times the floor: below that an estimate calls for the exact answer
STEPS = 40
MOST_DIRECTIONS = 64


class ConstrainedFactors:
    """(H - σS)⁻¹ in the space orthogonal to some directions N, and the states below σ there.

    From the bordered matrix [[A, N], [N†, 0]]: its solution is x = A⁻¹ (b - N λ) with N† x = 0, and by Haynsworth's
    inertia formula (Linear Algebra Appl. 1, 73 (1968)) A has in that space as many negative eigenvalues as in all, less
    those of the (Q, Q) matrix N† A⁻¹ N.
    """

    def __init__(self, factors: ShiftedFactors, directions: np.ndarray) -> None:
        self._factors = factors
        self._directions = directions
        self._images = factors.solve(directions)
        small = directions.conj().T @ self._images
        self._small = (small + small.conj().T) / 2
        self.shift = factors.shift
        self.accuracy = factors.accuracy
        self.states_below = factors.states_below - int((linalg.eigvalsh(self._small) < 0).sum())

    def solve(self, right: np.ndarray) -> np.ndarray:
        """As of the factors; right: (M,) or (M, n)."""
        solution = self._factors.solve(right)
        return solution - self._images @ linalg.solve(self._small, self._directions.conj().T @ solution)


@dataclass(frozen=True, eq=False)
class Deflation:
    """Directions (M, Q), orthonormal, that no state may have a part in."""

    directions: np.ndarray

    @property
    def count(self) -> int:
        """Number of directions."""
        return self.directions.shape[1]

    def constrained(self, factors: ShiftedFactors) -> ConstrainedFactors:
        """The same factors in the space that is left."""
        return ConstrainedFactors(factors, self.directions)

    def projected(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors (M, n) without their part in the directions."""
        return vectors - self.directions @ (self.directions.conj().T @ vectors)


def deflation_of(overlap: sparse.csr_array, direct: str) -> Deflation | None:
    """The directions in which S(k) has eigenvalues below the floor; None where there are none, which is the rule.

    A short Lanczos run bounds the smallest eigenvalue from above; only where that is suspicious S is factorised.

    Raises:
        SolverError: S(k) is not positive definite, or has too many such directions.
    """
    if smallest_eigenvalue_bound(overlap) > SUSPECT * FLOOR:
        return None
    size = overlap.shape[0]
    identity = sparse.csr_array(sparse.eye_array(size, dtype=overlap.dtype, format="csr"))
    factors = factorise(overlap, identity, FLOOR, direct=direct, step=-1e-3 * FLOOR)
    count = factors.states_below
    if not count:
        return None
    if count > MOST_DIRECTIONS:
        raise SolverError(
            f"S(k) has {count} eigenvalues below {FLOOR:.0e}: the basis is nearly linearly dependent; use one with "
            "fewer or shorter orbitals, and check that the overlap belongs to this structure"
        )

    def enough(values: np.ndarray) -> bool:
        return int((values < FLOOR).sum()) >= count

    values, directions = nearest_states(factors.solve, identity, factors.shift, enough, size, overlap.dtype)
    low = values < FLOOR
    refuse_indefinite(float(values[low].min()))
    say_projected(count, float(values[low].min()))
    return Deflation(linalg.qr(directions[:, low], mode="economic")[0])


def smallest_eigenvalue_bound(overlap: sparse.csr_array) -> float:
    """An upper bound of the smallest eigenvalue of a Hermitian matrix, by Lanczos' recurrence.

    In single precision; its rounding is added, which is far below what is suspicious.
    """
    size = overlap.shape[0]
    overlap = overlap.astype(np.complex64 if np.iscomplexobj(overlap.data) else np.float32)
    vector = np.random.default_rng(0).standard_normal(size).astype(overlap.dtype)
    vector /= np.linalg.norm(vector)
    before, beta = np.zeros_like(vector), 0.0
    diagonal, beside = [], []
    for _ in range(min(STEPS, size)):
        image = product(overlap, vector) - beta * before
        alpha = float(np.vdot(vector, image).real)
        image -= alpha * vector
        diagonal.append(alpha)
        beta = float(np.linalg.norm(image))
        beside.append(beta)
        if beta < 1e-8:
            break
        before, vector = vector, image / beta
    values = linalg.eigvalsh_tridiagonal(diagonal, beside[: len(diagonal) - 1])
    return float(values[0] + 4 * np.finfo(np.float32).eps * values[-1])


def refuse_indefinite(smallest: float) -> None:
    """End where S(k) is no overlap.

    Raises:
        SolverError: the eigenvalue is not positive.
    """
    if smallest <= 0:
        raise SolverError(
            f"S(k) is not positive definite: its smallest eigenvalue is {smallest:.2e}. H(k) c = E S(k) c has no "
            "solution then. Check that the overlap belongs to this structure and basis (units, atom order, cut-off); "
            "if it does, the basis is nearly linearly dependent here: use one with fewer or shorter orbitals."
        )


def say_projected(count: int, smallest: float) -> None:
    """Warn that directions were taken out."""
    directions = "a direction" if count == 1 else f"{count} directions"
    warn(
        f"S(k) has the smallest eigenvalue {smallest:.1e}: {directions} below {FLOOR:.0e} projected out of the basis, "
        "which is nearly linearly dependent here"
    )
