"""LAPACK's generalised Hermitian eigensolver: every state, for cells of up to a few thousand orbitals."""

import numpy as np
from scipy import linalg, sparse

from deeph_tracegrad.errors import SolverError
from deeph_tracegrad.inference.solvers.spectrum import Spectrum, residual_norms


def solve_dense(hamiltonian: sparse.csr_array, overlap: sparse.csr_array) -> Spectrum:
    """All states, by Cholesky factorisation of S and divide and conquer.

    Raises:
        SolverError: S(k) is not positive definite.
    """
    energies, states = _eigh(hamiltonian, overlap, eigvals_only=False)
    return Spectrum(energies, residual_norms(hamiltonian, overlap, energies, states))


def dense_energies(hamiltonian: sparse.csr_array, overlap: sparse.csr_array) -> np.ndarray:
    """All eigenvalues (M,) without eigenvectors, eV.

    Raises:
        SolverError: S(k) is not positive definite.
    """
    return _eigh(hamiltonian, overlap, eigvals_only=True)


def _eigh(hamiltonian: sparse.csr_array, overlap: sparse.csr_array, *, eigvals_only: bool) -> np.ndarray:
    try:
        return linalg.eigh(
            hamiltonian.toarray(order="F"),
            overlap.toarray(order="F"),
            eigvals_only=eigvals_only,
            driver="gv" if eigvals_only else "gvd",
            overwrite_a=True,
            overwrite_b=True,
            check_finite=False,
        )
    except np.linalg.LinAlgError:
        smallest = linalg.eigvalsh(overlap.toarray())[0]
        raise SolverError(
            f"S(k) is not positive definite: its smallest eigenvalue is {smallest:.2e}. H(k) c = E S(k) c has no "
            "solution then. Check that the overlap belongs to this structure and basis (units, atom order, cut-off); "
            "if it does, the basis is nearly linearly dependent here: use one with fewer or shorter orbitals."
        ) from None
