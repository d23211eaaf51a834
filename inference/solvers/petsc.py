"""PETSc and MUMPS under `slepc.py`: matrices whose rows the ranks share, and how they are factorised.

MUMPS has no complex Hermitian factorisation, and its general one counts no states. A complex H = A + iB is therefore
given as the real symmetric [[A, -B], [B, A]], with one 2×2 block for each entry; every level is there twice. That takes
as many operations and as much memory as the general complex factors.

Shape letters: M rows of H(k), C copies of each level: 1 of a real problem, 2 of a complex one.
"""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

import numpy as np
from scipy import sparse

from deeph_tracegrad.errors import ConfigError, SolverError
from deeph_tracegrad.parallel import MpiWorld, world

MUMPS_OPTIONS = {
    "icntl_13": 1,  # no ScaLAPACK for the last front, which would not be counted
    "icntl_14": 50,  # percent of memory beyond the estimate, which pivoting needs
    "icntl_24": 1,  # zero pivots are found
}


@cache
def engine() -> tuple[Any, Any]:
    """The modules SLEPc and PETSc.

    Raises:
        ConfigError: they are not installed, or not built for real numbers in double precision with MUMPS.
    """
    world()  # mpi4py starts MPI
    try:
        from petsc4py import PETSc
        from slepc4py import SLEPc
    except (ImportError, ValueError) as error:  # NumPy's answer to a module built for another version
        raise ConfigError(f"SLEPc cannot be loaded ({error}); docs/clusters.md says how it is installed") from None
    if np.dtype(PETSc.ScalarType) != np.float64:
        raise ConfigError(
            f"this PETSc was built for {np.dtype(PETSc.ScalarType)} numbers, and MUMPS counts states only with real "
            "ones; take a build for float64, which solves complex H(k) too (docs/clusters.md)"
        )
    if not PETSc.Sys.hasExternalPackage("mumps"):
        raise ConfigError("this PETSc was built without MUMPS; docs/clusters.md says how it is installed")
    options = PETSc.Options()
    for name, value in MUMPS_OPTIONS.items():
        if not options.hasName(f"st_mat_mumps_{name}"):
            options.setValue(f"st_mat_mumps_{name}", value)
    return SLEPc, PETSc


def copies_of_levels(*matrices: sparse.csr_array) -> int:
    """How often each level is in the real form of such matrices."""
    return 2 if any(np.iscomplexobj(matrix) for matrix in matrices) else 1


def distributed(matrix: sparse.csr_array, copies: int) -> Any:
    """A Hermitian (M, M) matrix as a symmetric one of C M rows, of which each rank holds its share."""
    _, petsc = engine()
    ranks, size = world(), matrix.shape[0]
    start, stop = (size * rank // ranks.size for rank in (ranks.rank, ranks.rank + 1))
    rows = matrix[start:stop]
    if copies == 2:
        blocks = np.empty((rows.nnz, 2, 2))
        blocks[:, 0, 0] = blocks[:, 1, 1] = rows.data.real
        blocks[:, 1, 0] = rows.data.imag
        blocks[:, 0, 1] = -rows.data.imag
        rows = sparse.bsr_array((blocks, rows.indices, rows.indptr), shape=(2 * rows.shape[0], 2 * size)).tocsr()
    if rows.nnz > np.iinfo(petsc.IntType).max:
        raise SolverError(
            f"{rows.nnz:,} numbers of H(k) on a rank are more than this PETSc can address; use more ranks"
        )
    arrays = rows.indptr.astype(petsc.IntType), rows.indices.astype(petsc.IntType), rows.data
    share = rows.shape[0], copies * size
    shared = petsc.Mat().createAIJ((share, share), csr=arrays, comm=communicator())
    shared.setOption(petsc.Mat.Option.SYMMETRIC, True)
    return shared


def communicator() -> Any:
    """The ranks that work on one k-point together: all of them.

    Raises:
        ConfigError: they were not started by MPI.
    """
    _, petsc = engine()
    ranks = world()
    if isinstance(ranks, MpiWorld):
        return ranks.communicator
    if ranks.size > 1:
        raise ConfigError("the solver slepc needs MPI: start the ranks with mpirun or srun")
    return petsc.COMM_SELF


def factorise_by_mumps(linear: Any) -> None:
    """Let a linear solver of PETSc take L D L^T by MUMPS and nothing else."""
    _, petsc = engine()
    linear.setType(petsc.KSP.Type.PREONLY)
    factors = linear.getPC()
    factors.setType(petsc.PC.Type.CHOLESKY)
    factors.setFactorSolverType(petsc.Mat.SolverType.MUMPS)


def kept(held: ExitStack, thing: Any) -> Any:
    """An object of PETSc, destroyed by all ranks at the same place: that takes them all."""
    held.callback(thing.destroy)
    return thing


@contextmanager
def petsc_errors_told() -> Iterator[None]:
    """PETSc's errors as ours."""
    _, petsc = engine()
    try:
        yield
    except petsc.Error as error:
        raise failure(error) from error


def failure(error: Exception) -> SolverError:
    """What PETSc says last, without the way through its functions."""
    reason = re.sub(r"^\[\d+\] ", "", str(error).strip().splitlines()[-1])
    return SolverError(f"SLEPc failed: {reason}; docs/clusters.md says what can be done")
