"""MKL PARDISO, bound by ctypes: A = L D L† of a real symmetric or complex Hermitian matrix, with its inertia.

Bunch-Kaufman pivoting inside the supernodes, METIS's nested dissection between them. For real matrices PARDISO counts
the negative eigenvalues of D itself. For complex ones it does not (MKL 2021 to 2026; without pivoting it claims to, but
its factors of indefinite Hermitian matrices are then wrong). D⁻¹ can be applied alone, though, and its blocks are 1x1
or 2x2: a row of a 1x1 block multiplies every vector by the same number. A 2x2 pivot of Bunch and Kaufman has a negative
determinant, that is one eigenvalue of either sign (Math. Comp. 31, 163 (1977)).

Shape letters: M rows, Z stored entries of the upper triangle, n right-hand sides.
"""

import ctypes
import ctypes.util
import os
import sys
import weakref
from functools import cache
from importlib import metadata
from pathlib import Path

import numpy as np
from scipy import sparse

_ANALYSE_AND_FACTORISE, _SOLVE, _SOLVE_DIAGONAL, _SOLVE_UPPER, _RELEASE = 12, 33, 332, 333, -1
_HERMITIAN, _SYMMETRIC = -4, -2  # indefinite; without the sign positive definite
# Places in iparm, counted from 0; https://www.intel.com/content/www/us/en/docs/onemkl, "pardiso iparm Parameter"
_OWN_VALUES, _ORDERING, _REFINEMENT, _TINY_PIVOT, _SCALING, _MATCHING = 0, 1, 7, 9, 10, 12
_PERTURBED, _PIVOTING, _NEGATIVE, _ONE_BY_ONE, _SINGLE, _FROM_ZERO = 13, 20, 22, 24, 27, 34
_METIS, _BUNCH_KAUFMAN = 2, 1
_OUT_OF_MEMORY = (-2, -9)
_SAME = 1e3  # relative difference of a row's multipliers that rounding alone can make, in units of the precision


@cache
def library() -> ctypes.CDLL | None:
    """MKL's single dynamic library; None where it is not installed."""
    # its threads would spin for 0.2 s after each solve, on the cores that the products in between need
    os.environ.setdefault("KMP_BLOCKTIME", "0")
    for name in _candidates():
        try:
            found = ctypes.CDLL(str(name))
            found.pardiso_64.restype = None
        except (OSError, AttributeError):
            continue
        return found
    return None


def _candidates() -> list[Path | str]:
    """Where PyPI's mkl puts it, then where the system looks."""
    try:
        files = metadata.files("mkl") or []
    except metadata.PackageNotFoundError:
        files = []
    ours = [Path(str(file.locate())) for file in files if "mkl_rt" in file.name and file.suffix != ".lib"]
    shared = [*Path(sys.prefix, "lib").glob("libmkl_rt.*"), ctypes.util.find_library("mkl_rt")]
    return [*ours, *(name for name in shared if name)]


class PardisoFactors:
    """L D L† of a Hermitian matrix given by its upper triangle.

    negative: negative eigenvalues of the matrix. perturbed: pivots that were too small and were changed; with any, the
    matrix is singular to working precision and `negative` means nothing.
    """

    accuracy = 1e-9

    def __init__(self, upper: sparse.csr_array, *, positive: bool = False) -> None:
        """Factorise in the precision of the matrix.

        upper: (M, M) CSR with its columns in order and the whole diagonal; real or complex, single or double.
        positive: by Cholesky's method, F F†, which fails where the matrix is not positive definite.

        Raises:
            MemoryError: the factors do not fit.
            ArithmeticError: PARDISO failed; the message has its code.
        """
        self._size = upper.shape[0]
        self._kind = (_HERMITIAN if np.iscomplexobj(upper.data) else _SYMMETRIC) * (-1 if positive else 1)
        self._values = upper.data
        self._rows, self._columns = upper.indptr.astype(np.int64), upper.indices.astype(np.int64)
        self._handle, self._parameters = np.zeros(64, dtype=np.int64), np.zeros(64, dtype=np.int64)
        for place, value in [
            (_OWN_VALUES, 1),
            (_ORDERING, _METIS),
            (_REFINEMENT, 0),
            (_TINY_PIVOT, 13),  # 10⁻¹³ of the matrix's norm
            (_SCALING, 0),
            (_MATCHING, 0),
            (_PIVOTING, _BUNCH_KAUFMAN),
            (_SINGLE, int(np.finfo(upper.dtype).dtype == np.float32)),
            (_FROM_ZERO, 1),
        ]:
            self._parameters[place] = value
        self._finalizer = weakref.finalize(self, _release, self._handle, self._parameters, self._kind, self._size)
        self._call(_ANALYSE_AND_FACTORISE)
        self.perturbed = int(self._parameters[_PERTURBED])
        self.negative = self._count_negative() if self._kind == _HERMITIAN else int(self._parameters[_NEGATIVE])

    def solve(self, right: np.ndarray) -> np.ndarray:
        """A⁻¹ b, of the matrix's type; right: (M,) or (M, n)."""
        return self._solve(_SOLVE, right)

    def solve_upper(self, right: np.ndarray) -> np.ndarray:
        """F†⁻¹ b of a matrix factorised as positive; right: (M,) or (M, n)."""
        return self._solve(_SOLVE_UPPER, right)

    def _solve(self, phase: int, right: np.ndarray) -> np.ndarray:
        columns = np.asfortranarray(right, dtype=self._values.dtype)
        solution = np.empty_like(columns)
        self._call(phase, columns, solution)
        return solution

    def _count_negative(self) -> int:
        self._parameters[_ONE_BY_ONE] = 1  # on several threads this phase divides some 2x2 pivots by zero
        phases = np.exp(2j * np.pi * np.random.default_rng(0).random((2, self._size))).astype(self._values.dtype)
        multipliers = []
        for probe in phases:  # one at a time: with several right-hand sides this phase loses the pivoting
            image = np.empty_like(probe)
            self._call(_SOLVE_DIAGONAL, probe, image)
            multipliers.append(image / probe)
        self._parameters[_ONE_BY_ONE] = 0
        first, second = multipliers
        if not np.isfinite(multipliers).all():
            raise ArithmeticError("PARDISO's pivots cannot be counted")
        rounding = _SAME * np.finfo(first.dtype).eps
        alone = np.abs(first - second) <= rounding * np.maximum(np.abs(first), np.abs(second))
        return int((first[alone].real < 0).sum()) + int((~alone).sum()) // 2

    def _call(self, phase: int, right: np.ndarray | None = None, solution: np.ndarray | None = None) -> None:
        matrix = (self._values, self._rows, self._columns)
        columns = 1 if right is None or right.ndim == 1 else right.shape[1]
        code = _pardiso(self._handle, self._parameters, self._kind, self._size, phase, matrix, columns, right, solution)
        if code in _OUT_OF_MEMORY:
            raise MemoryError(f"PARDISO found no memory for the factors of a matrix with {self._size:,} rows")
        if code:
            raise ArithmeticError(f"PARDISO ended phase {phase} with its error {code}")


def _pardiso(
    handle: np.ndarray,
    parameters: np.ndarray,
    kind: int,
    size: int,
    phase: int,
    matrix: tuple[np.ndarray | None, ...] = (None, None, None),
    columns: int = 1,
    right: np.ndarray | None = None,
    solution: np.ndarray | None = None,
) -> int:
    """Call the 64-bit interface; returns its error code."""
    mkl = library()
    if mkl is None:
        raise RuntimeError("MKL is not there; ask `library` first")
    integer, error = ctypes.c_int64, ctypes.c_int64(0)
    one = ctypes.byref(integer(1))

    def address(array: np.ndarray | None) -> ctypes.c_void_p | None:
        return None if array is None else ctypes.c_void_p(array.ctypes.data)

    mkl.pardiso_64(
        address(handle), one, one, ctypes.byref(integer(kind)), ctypes.byref(integer(phase)),
        ctypes.byref(integer(size)), *map(address, matrix), None, ctypes.byref(integer(columns)), address(parameters),
        ctypes.byref(integer(0)), address(right), address(solution), ctypes.byref(error),
    )  # fmt: skip
    return error.value


def _release(handle: np.ndarray, parameters: np.ndarray, kind: int, size: int) -> None:
    _pardiso(handle, parameters, kind, size, _RELEASE)
