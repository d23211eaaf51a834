"""The half of a Hermitian matrix that a direct solver reads.

Shape letters: M rows.
"""

import numpy as np
from scipy import sparse


def upper_triangle(matrix: sparse.csr_array) -> sparse.csr_array:
    """The entries on and above the diagonal; the diagonal whole, with zeros where the matrix stores none."""
    row, ends = np.arange(matrix.shape[0], dtype=matrix.indices.dtype), matrix.indptr[1:]
    first = _first_at_or_after(row, matrix) if matrix.has_sorted_indices else ends
    stored = first < ends
    stored[stored] = matrix.indices[first[stored]] == row[stored]
    if not stored.all():
        places = np.concatenate([np.repeat(row, np.diff(matrix.indptr)), row]), np.concatenate([matrix.indices, row])
        values = np.concatenate([matrix.data, np.zeros(len(row), matrix.dtype)])
        return upper_triangle(sparse.coo_array((values, places), shape=matrix.shape).tocsr())
    borders = np.zeros(matrix.nnz + 1, dtype=np.int8)
    borders[first] += 1
    borders[ends] -= 1
    kept = np.cumsum(borders[:-1], dtype=np.int8).view(bool)
    indptr = np.concatenate([[0], np.cumsum(ends - first)]).astype(matrix.indptr.dtype)
    return sparse.csr_array((matrix.data[kept], matrix.indices[kept], indptr), shape=matrix.shape)


def _first_at_or_after(column: np.ndarray, matrix: sparse.csr_array) -> np.ndarray:
    """Place of each row's first entry in its column (M,) or a later one, by bisection of all rows."""
    low, high = matrix.indptr[:-1].copy(), matrix.indptr[1:].copy()
    while (open_rows := np.flatnonzero(low < high)).size:
        middle = (low[open_rows] + high[open_rows]) // 2
        before = matrix.indices[middle] < column[open_rows]
        low[open_rows[before]] = middle[before] + 1
        high[open_rows[~before]] = middle[~before]
    return low
