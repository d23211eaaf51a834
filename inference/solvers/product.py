"""A sparse matrix times a few vectors, by a compiled kernel on all threads; by SciPy where there is no compiler.

Shape letters: M rows, n vectors.
"""

import numpy as np
import torch
from scipy import sparse

from deeph_tracegrad.nn.kernels.library import compiled, kernel

WORTH_A_THREAD = 2**19  # stored entries


def product(matrix: sparse.csr_array, vectors: np.ndarray) -> np.ndarray:
    """A x, of double precision; matrix: (M, M) real or complex. vectors: (M,) or (M, n)."""
    known = (np.float64, np.complex128)
    dtype = np.result_type(matrix.dtype, vectors.dtype)
    if dtype not in known or matrix.dtype not in known or not compiled(torch.empty(0, dtype=torch.float64)):
        return matrix @ vectors
    if np.iscomplexobj(vectors) and not np.iscomplexobj(matrix):  # real and imaginary parts are vectors of their own
        pairs = np.ascontiguousarray(vectors).view(np.float64).reshape(len(vectors), -1)
        return product(matrix, pairs).view(np.complex128).reshape(matrix.shape[0], *vectors.shape[1:])
    rows = np.ascontiguousarray(vectors, dtype)
    result = np.empty((matrix.shape[0], *vectors.shape[1:]), dtype)
    kernel("sparse_product", torch.float64)(
        int(np.iscomplexobj(matrix)),
        int(matrix.indices.dtype == np.int64),
        *(np.ascontiguousarray(array) for array in (matrix.data, matrix.indices, matrix.indptr)),
        matrix.shape[0],
        rows,
        rows.size // max(len(rows), 1),
        result,
        min(torch.get_num_threads(), 1 + matrix.nnz // WORTH_A_THREAD),
    )
    return result
