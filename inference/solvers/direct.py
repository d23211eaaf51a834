"""Sparse direct solvers behind one call: `factorise(H, S, σ)` gives (H - σS)⁻¹ and the number of states below σ.

By Sylvester's law of inertia H - σS = L D L† has as many negative eigenvalues as D, and as there are states below σ.

Shape letters: M rows, n right-hand sides.
"""

from functools import cache
from itertools import product

import numpy as np
import torch
from scipy import sparse

from deeph_tracegrad.console import warn
from deeph_tracegrad.errors import ConfigError, SolverError
from deeph_tracegrad.inference.solvers import pardiso
from deeph_tracegrad.inference.solvers.factors import Factors, PositiveFactors, RefinedFactors
from deeph_tracegrad.inference.solvers.pardiso import PardisoFactors
from deeph_tracegrad.inference.solvers.superlu import SuperLuFactors
from deeph_tracegrad.inference.solvers.triangle import upper_triangle

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
        if not factors.perturbed:
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
            return PardisoFactors(upper_triangle(matrix), positive=True)
        factors = SuperLuFactors(matrix.tocsc())
    except MemoryError:
        raise SolverError(f"the factors of S(k) with {size:,} orbitals do not fit into memory") from None
    except ArithmeticError:
        factors = None
    if factors is None or factors.perturbed or factors.negative:
        raise SolverError("S(k) is not positive definite; check that it belongs to this structure and basis")
    return factors


def _factors(name: str, matrix: sparse.csr_array, *, single: bool) -> Factors:
    """Factors that solve soundly.

    Raises:
        ArithmeticError: there are none.
        MemoryError: they do not fit.
    """
    if single:
        dtype = np.complex64 if np.iscomplexobj(matrix.data) else np.float32
        return RefinedFactors(_factors_of_type(name, matrix, dtype), matrix)
    factors = _factors_of_type(name, matrix, matrix.dtype)
    probe = np.random.default_rng(0).choice([-1.0, 1.0], matrix.shape[0]).astype(matrix.dtype)
    if not np.linalg.norm(matrix @ factors.solve(probe) - probe) < SOUND_SOLVE * np.linalg.norm(probe):
        raise ArithmeticError("the factors are those of another matrix")
    return factors


def _factors_of_type(name: str, matrix: sparse.csr_array, dtype: np.dtype | type) -> Factors:
    if name == "pardiso":
        return PardisoFactors(upper_triangle(matrix).astype(dtype, copy=False))
    return SuperLuFactors(matrix.astype(dtype, copy=False).tocsc())


def _shifted(hamiltonian: sparse.csr_array, overlap: sparse.csr_array, shift: float) -> sparse.csr_array:
    """H - σS; of two matrices with one pattern only the values are touched, by all threads."""
    if np.shares_memory(hamiltonian.indices, overlap.indices):
        values = torch.add(torch.from_numpy(hamiltonian.data), torch.from_numpy(overlap.data), alpha=-shift).numpy()
        return sparse.csr_array((values, hamiltonian.indices, hamiltonian.indptr), shape=hamiltonian.shape)
    return sparse.csr_array(hamiltonian - shift * overlap)


@cache
def _advise_pardiso() -> None:
    warn(
        "SuperLU factorises, which takes several times as long as MKL PARDISO for large cells; where MKL runs "
        "(x86-64), pip install 'deeph-tracegrad[mkl]'"
    )
