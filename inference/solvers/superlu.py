"""SuperLU, which comes with SciPy: A = L U without row exchanges, so that U = D L† of a Hermitian matrix.

Only such factors show the inertia; they are not always sound, which `direct.py` checks.
"""

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu, spsolve_triangular


class SuperLuFactors:
    """L U of a Hermitian matrix.

    negative: negative eigenvalues of the matrix. perturbed: 1 where rows had to be exchanged, so that `negative` means
    nothing, else 0.
    """

    accuracy = 1e-9

    def __init__(self, matrix: sparse.csc_array) -> None:
        """Factorise. matrix: (M, M) CSC, float64 or complex128.

        Raises:
            MemoryError: the factors do not fit.
            ArithmeticError: the matrix is exactly singular.
        """
        try:
            self._factors = splu(
                matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
            )
        except RuntimeError as error:
            raise ArithmeticError(str(error)) from None
        self.perturbed = int(not np.array_equal(self._factors.perm_r, self._factors.perm_c))
        self.negative = int((self._factors.U.diagonal().real < 0).sum())

    def solve(self, right: np.ndarray) -> np.ndarray:
        """A⁻¹ b, of the matrix's type; right: (M,) or (M, n)."""
        return self._factors.solve(right)

    def solve_upper(self, right: np.ndarray) -> np.ndarray:
        """F†⁻¹ b with A = F F†, F = L D^(1/2), of a positive definite matrix; right: (M, n)."""
        upper = self._factors.U.tocsr()
        roots = np.sqrt(upper.diagonal().real)
        return spsolve_triangular(upper, roots[:, None] * right, lower=False)[self._factors.perm_c]
