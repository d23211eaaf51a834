"""Hermitian pencils H c = E S c with levels that are hard to tell apart."""

import numpy as np
from scipy import sparse

PLANTED = (0.3, 0.3, 0.3, 0.45, 0.45 + 1e-9, 0.45 + 2e-6)


def near_degenerate(size: int, kind: type) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Sparse H and S, real or complex, of `size` coupled levels and the planted ones."""
    rng = np.random.default_rng(0)
    turn = 1j if kind is complex else 0
    banded = sparse.diags_array(
        [rng.normal(size=size - n) + turn * rng.normal(size=size - n) for n in range(1, 5)], offsets=range(1, 5)
    )
    hamiltonian = banded + banded.conj().T + sparse.diags_array(rng.normal(size=size))
    tail = sparse.diags_array([0.1 * np.exp(0.3 * turn) * np.ones(size - 1)], offsets=[1])
    overlap = sparse.eye_array(size) + tail + tail.conj().T
    return (
        sparse.csr_array(sparse.block_diag([hamiltonian, sparse.diags_array(np.array(PLANTED))])),
        sparse.csr_array(sparse.block_diag([overlap, sparse.eye_array(len(PLANTED))])),
    )
