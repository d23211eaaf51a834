"""Sparse direct solvers behind one call: `factorise(H, S, σ)` gives (H - σS)⁻¹ and the number of states below σ.

By Sylvester's law of inertia H - σS = L D L† has as many negative eigenvalues as D, and as there are states below σ.

Shape letters: M rows, n right-hand sides.
"""

from functools import cache
from itertools import product

import numpy as np
from scipy import sparse

from deeph_tracegrad.console import warn
from deeph_tracegrad.errors import ConfigError, SolverError
from deeph_tracegrad.inference.solvers import pardiso
from deeph_tracegrad.inference.solvers.factors import Factors, PositiveFactors, RefinedFactors
from deeph_tracegrad.inference.solvers.pardiso import PardisoFactors
from deeph_tracegrad.inference.solvers.superlu import SuperLuFactors

DIRECT_SOLVERS = ("pardiso", "superlu")
SHIFT_STEP = 1e-4  # eV, how far a shift moves that falls on a state
SOUND_SOLVE = 1e-6  # relative residual of a solve with sound factors
ATTEMPTS = 4
LARGE = 5000  # orbitals; from here on a slow direct solver costs minutes
SINGLE_FROM = 3000  # orbitals, from which on single precision saves more than its refinement costs


class ShiftedFactors:
    """(H - σS)⁻¹ and what it tells.

    shift: σ, eV. states_below: number of states below it. accuracy: that Lanczos can reach with it.
    """

    def __init__(self, factors: Factors, shift: float) -> None:
        self._factors = factors
        self.shift = shift
        self.states_below = factors.negative
        self.accuracy = factors.accuracy

    def solve(self, right: np.ndarray) -> np.ndarray:
        """(H - σS)⁻¹ b; right: (M,) or (M, n)."""
        return self._factors.solve(right)


def choose_direct_solver(name: str = "auto") -> str:
    """The direct solver of this name; `auto` is the fastest that is installed.

    Raises:
        ConfigError: there is none of this name, or it is not installed.
    """
    if name not in ("auto", *DIRECT_SOLVERS):
        raise ConfigError(f"there is no direct solver {name!r}; take auto, {' or '.join(DIRECT_SOLVERS)}")
    if name == "pardiso" and pardiso.library() is None:
        raise ConfigError("PARDISO is not installed; pip install 'deeph-tracegrad[mkl]', or take superlu")
    if name == "auto":
        return "superlu" if pardiso.library() is None else "pardiso"
    return name


def factorise(
    hamiltonian: sparse.csr_array,
    overlap: sparse.csr_array,
    shift: float,
    *,
    direct: str = "auto",
    step: float = SHIFT_STEP,
) -> ShiftedFactors:
    """L D L† of H - σS, with σ moved by a few steps where it falls on a state.

    step: eV; negative to move downwards.

    Raises:
        SolverError: no shift gives sound factors, or they do not fit into memory.
        ConfigError: the direct solver is not there.
    """
    name = choose_direct_solver(direct)
    size = hamiltonian.shape[0]
    if direct == "auto" and name == "superlu" and size >= LARGE:
        _advise_pardiso()
    probe = np.random.default_rng(0).choice([-1.0, 1.0], size).astype(hamiltonian.dtype)
    for attempt, single in product(range(ATTEMPTS), (True, False) if size >= SINGLE_FROM else (False,)):
        sigma = shift + attempt * step
        try:
            factors = _factors(name, _shifted(hamiltonian, overlap, sigma), single=single)
        except ArithmeticError:  # exactly singular, or too near to a state for single precision
            continue
        except MemoryError:
            raise SolverError(
                f"the factors of H - E S with {size:,} orbitals do not fit into memory; use a machine with more, "
                "or fewer orbitals"
            ) from None
        solution = factors.solve(probe)
        error = np.linalg.norm(hamiltonian @ solution - sigma * (overlap @ solution) - probe) / np.sqrt(size)
        if not factors.perturbed and error < SOUND_SOLVE:
            return ShiftedFactors(factors, sigma)
    raise SolverError(f"H - E S could not be factorised near E = {shift:.4f} eV; choose another window")


def factorise_positive(matrix: sparse.csr_array, direct: str = "auto") -> PositiveFactors:
    """F F† of a Hermitian matrix that is positive definite, such as S(k).

    Raises:
        SolverError: it is not, or the factors do not fit into memory.
        ConfigError: the direct solver is not there.
    """
    name, size = choose_direct_solver(direct), matrix.shape[0]
    if direct == "auto" and name == "superlu" and size >= LARGE:
        _advise_pardiso()
    try:
        if name == "pardiso":
            return PardisoFactors(_upper_triangle(matrix), positive=True)
        factors = SuperLuFactors(matrix.tocsc())
    except MemoryError:
        raise SolverError(f"the factors of S(k) with {size:,} orbitals do not fit into memory") from None
    except ArithmeticError:
        factors = None
    if factors is None or factors.perturbed or factors.negative:
        raise SolverError("S(k) is not positive definite; check that it belongs to this structure and basis")
    return factors


def _factors(name: str, matrix: sparse.csr_array, *, single: bool) -> Factors:
    if single:
        rounded = matrix.astype(np.complex64 if np.iscomplexobj(matrix.data) else np.float32)
        return RefinedFactors(_factors(name, rounded, single=False), matrix)
    return PardisoFactors(_upper_triangle(matrix)) if name == "pardiso" else SuperLuFactors(matrix.tocsc())


def _shifted(hamiltonian: sparse.csr_array, overlap: sparse.csr_array, shift: float) -> sparse.csr_array:
    """H - σS; of two matrices with one pattern only the values are touched."""
    if np.shares_memory(hamiltonian.indices, overlap.indices):
        dtype = np.result_type(hamiltonian, overlap)  # S is real at Γ even where spins make H complex
        data = np.multiply(overlap.data, -shift, dtype=dtype)
        data += hamiltonian.data
        return sparse.csr_array((data, hamiltonian.indices, hamiltonian.indptr), shape=hamiltonian.shape)
    return sparse.csr_array(hamiltonian - shift * overlap)


def _upper_triangle(matrix: sparse.csr_array) -> sparse.csr_array:
    """The entries on and above the diagonal; the diagonal whole, with zeros where the matrix stores none."""
    size = matrix.shape[0]
    row = np.repeat(np.arange(size, dtype=matrix.indices.dtype), np.diff(matrix.indptr))
    if int((matrix.indices == row).sum()) < size or not matrix.has_sorted_indices:
        every = np.arange(size)
        places = np.concatenate([row, every]), np.concatenate([matrix.indices, every])
        values = np.concatenate([matrix.data, np.zeros(size, matrix.dtype)])
        return _upper_triangle(sparse.coo_array((values, places), shape=matrix.shape).tocsr())
    kept = matrix.indices >= row
    counts = np.add.reduceat(kept, matrix.indptr[:-1], dtype=matrix.indptr.dtype)
    indptr = np.concatenate([[0], np.cumsum(counts)])
    return sparse.csr_array((matrix.data[kept], matrix.indices[kept], indptr), shape=matrix.shape)


@cache
def _advise_pardiso() -> None:
    warn(
        "SuperLU factorises, which takes several times as long as MKL PARDISO for large cells; where MKL runs "
        "(x86-64), pip install 'deeph-tracegrad[mkl]'"
    )
