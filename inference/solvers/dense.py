"""LAPACK's generalised Hermitian eigensolver, for cells of up to a few thousand orbitals.

Shape letters: M rows, D dimensions that are left of them, n states.
"""

from dataclasses import dataclass

import numpy as np
from scipy import linalg, sparse

from deeph_tracegrad.inference.solvers.conditioning import (
    FLOOR,
    SUSPECT,
    Deflation,
    refuse_indefinite,
    say_projected,
)
from deeph_tracegrad.inference.solvers.spectrum import Spectrum, residual_norms


def solve_dense(hamiltonian: sparse.csr_array, overlap: sparse.csr_array, *, with_states: bool = False) -> Spectrum:
    """All states of the Hermitian (M, M) matrices at one k, by Cholesky factorisation of S and divide and conquer.

    with_states: whether the spectrum is to hold the states themselves.

    Raises:
        SolverError: S(k) is not positive definite.
    """
    problem = _Reduced.of(hamiltonian, overlap)
    energies, vectors = linalg.eigh(problem.matrix, driver="evd", overwrite_a=True, check_finite=False)
    states = problem.in_orbitals(vectors)
    residuals = residual_norms(hamiltonian, overlap, energies, states, problem.deflation)
    return Spectrum(energies, residuals, states=states if with_states else None)


def dense_energies(hamiltonian: sparse.csr_array, overlap: sparse.csr_array) -> np.ndarray:
    """All eigenvalues (D,) without eigenvectors, eV.

    Raises:
        SolverError: S(k) is not positive definite.
    """
    return linalg.eigvalsh(_Reduced.of(hamiltonian, overlap).matrix, overwrite_a=True, check_finite=False)


@dataclass(frozen=True, eq=False)
class _Reduced:
    """The standard eigenproblem. matrix: (D, D), its lower triangle. Either a Cholesky factor or a basis leads back.

    factor: lower, (M, M), S = L L†. basis: (M, D), S-orthonormal, where directions were projected out.
    """

    matrix: np.ndarray
    factor: np.ndarray | None = None
    basis: np.ndarray | None = None
    deflation: Deflation | None = None

    @classmethod
    def of(cls, hamiltonian: sparse.csr_array, overlap: sparse.csr_array) -> "_Reduced":
        dense = overlap.toarray(order="F")
        norm = np.abs(dense).sum(axis=0).max()
        cholesky, condition = linalg.get_lapack_funcs(("potrf", "pocon"), (dense,))
        factor, failed = cholesky(dense, lower=True, overwrite_a=True)
        smallest = 0.0 if failed else norm * condition(factor, norm, uplo="L")[0]
        if smallest < SUSPECT * FLOOR:  # an estimate, in another norm
            values, directions = linalg.eigh(overlap.toarray(order="F"), driver="evd", overwrite_a=True)
            refuse_indefinite(values[0])
            kept = values >= FLOOR
            if not kept.all():
                say_projected(int((~kept).sum()), values[0])
                basis = directions[:, kept] / np.sqrt(values[kept])
                matrix = basis.conj().T @ (hamiltonian @ basis)
                return cls(matrix, basis=basis, deflation=Deflation(directions[:, ~kept]))
        matrix = hamiltonian.toarray(order="F")
        (reduce,) = linalg.get_lapack_funcs(("hegst" if np.iscomplexobj(matrix) else "sygst",), (matrix,))
        matrix, _ = reduce(matrix, factor, lower=True, overwrite_a=True)
        return cls(matrix, factor)

    def in_orbitals(self, vectors: np.ndarray) -> np.ndarray:
        """States (M, n), S-orthonormal, from eigenvectors (D, n) of the matrix."""
        if self.basis is not None:
            return self.basis @ vectors
        return linalg.solve_triangular(self.factor, vectors, lower=True, trans="C", overwrite_b=True)
