"""A sparse matrix times a few vectors, by a compiled kernel on all threads; by SciPy where there is no compiler.

Shape letters: M rows, n vectors.
"""

import numpy as np
import torch
from scipy import sparse

from deeph_tracegrad.nn.kernels.library import compiled, kernel

WORTH_A_THREAD = 2**19  # stored entries

# of which complex numbers have two
_NUMBERS = {
    np.dtype(np.float32): torch.float32,
    np.dtype(np.complex64): torch.float32,
    np.dtype(np.float64): torch.float64,
    np.dtype(np.complex128): torch.float64,
}


def product(matrix: sparse.csr_array, vectors: np.ndarray) -> np.ndarray:
    """A x; matrix: (M, M) real or complex, of single or double precision. vectors: (M,) or (M, n)."""
    dtype = np.result_type(matrix.dtype, vectors.dtype)
    number = _NUMBERS.get(dtype)
    if number is None or _NUMBERS.get(matrix.dtype) != number or not compiled(torch.empty(0, dtype=number)):
        return matrix @ vectors
    if np.iscomplexobj(vectors) and not np.iscomplexobj(matrix):  # real and imaginary parts are vectors of their own
        pairs = np.ascontiguousarray(vectors, dtype).view(matrix.dtype).reshape(len(vectors), -1)
        return product(matrix, pairs).view(dtype).reshape(matrix.shape[0], *vectors.shape[1:])
    rows = np.ascontiguousarray(vectors, dtype)
    result = np.empty((matrix.shape[0], *vectors.shape[1:]), dtype)
    kernel("sparse_product", number)(
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
