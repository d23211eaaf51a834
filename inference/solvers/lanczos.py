"""Block Lanczos for the states nearest to a shift σ, in the S inner product.

The operator (H - σS)⁻¹ S is Hermitian in it, with eigenvalues θ = 1 / (E - σ): the nearest states come first. Blocks
find every copy of a degenerate level and let the direct solver work on many vectors at once; full orthogonalisation
keeps spurious copies away. Ericsson, Ruhe, Math. Comp. 35, 1251 (1980), with its improved Ritz vectors; Grimes, Lewis,
Simon, SIAM J. Matrix Anal. Appl. 15, 228 (1994).

Shape letters: M rows, V vectors of the basis, P of a block, n states.
"""

from collections.abc import Callable

import numpy as np
from scipy import linalg, sparse

from deeph_tracegrad.inference.solvers.product import product

BLOCK = 4  # vectors; larger ones make each solve cheaper, but more of them needed
ACCURATE = 1e-9  # that a direct solver of double precision leaves room for
DEPENDENT = 1e-14  # squared norm of what a vector adds to those of its block
ROUNDING = 1e-6  # norm of what is left of a unit vector that is nothing but the rounding of others
NOTHING_NEW = 1e-13  # norm of what the operator adds to the basis, of its largest eigenvalue

Solve = Callable[[np.ndarray], np.ndarray]
Enough = Callable[[np.ndarray], bool]


def nearest_states(
    solve: Solve,
    overlap: sparse.csr_array,
    shift: float,
    enough: Enough,
    most: int,
    dtype: np.dtype,
    accuracy: float = ACCURATE,
    vectors: int = BLOCK,
) -> tuple[np.ndarray, np.ndarray]:
    """Energies (n,) of the converged states, the nearest to the shift first and none left out, and the states (M, n).

    Args:
        solve: (H - σS)⁻¹ applied to (M, P).
        overlap: S.
        shift: σ, eV.
        enough: whether these energies, nearest first, are all that is wanted.
        most: vectors of the basis; with that many the search ends.
        dtype: of the states, real or complex.
        vectors: of a block; copies of a level beyond this number come late.
        accuracy: residual of a converged state, of θ; not less than `solve` leaves. Energies are wrong by its square.

    Raises:
        LinAlgError: S is not positive definite.
    """
    size = overlap.shape[0]
    most = min(most, size)
    basis = np.empty((size, most), dtype, order="F")
    images = np.empty_like(basis)  # S times the basis
    projected = np.zeros((most, most), dtype)  # the operator in the basis
    rng = np.random.default_rng(0)
    block = solve(_random(rng, size, min(vectors, most), dtype))
    block, image, _ = _orthonormal(block, product(overlap, block))
    count, largest = 0, 0.0
    while True:
        new = slice(count, count + block.shape[1])
        basis[:, new], images[:, new] = block, image
        count = new.stop
        known = basis[:, :count], images[:, :count]
        block = solve(image)
        inside = _take_out(block, *known)
        block, image, rest = _orthonormal(block, product(overlap, block), NOTHING_NEW * largest)
        correction = _take_out(block, *known)  # what is left may be as small as the first's rounding
        block, image, again = _orthonormal(block, image - known[1] @ correction, ROUNDING)
        projected[:count, new] = inside + correction @ rest
        rest = again @ rest

        square = projected[:count, :count]
        values, turn = linalg.eigh(np.triu(square) + np.triu(square, 1).conj().T)
        nearest = np.argsort(-np.abs(values))
        values, turn = values[nearest], turn[:, nearest]
        largest = abs(values[0])
        outside = rest @ turn[new]  # how the operator leads out of the basis
        settled = np.linalg.norm(outside, axis=0) <= accuracy * np.abs(values)
        converged = count if settled.all() else int(settled.argmin())
        energies = shift + 1 / values[:converged]
        if enough(energies) or count + block.shape[1] > most:
            states = known[0] @ turn[:, :converged]
            states += block @ (outside[:, :converged] / values[:converged])
            return energies, states
        if not block.shape[1]:  # it leads nowhere new: a level has more copies than a block has vectors
            block = _random(rng, size, min(vectors, most - count), dtype)
            _take_out(block, *known)
            block, image, _ = _orthonormal(block, product(overlap, block))


def _random(rng: np.random.Generator, size: int, vectors: int, dtype: np.dtype) -> np.ndarray:
    return rng.standard_normal((size, vectors)).astype(dtype)


def _take_out(block: np.ndarray, basis: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Make a block (M, P) S-orthogonal to the basis, in place; returns the weights (V, P) that it had there."""
    weights = images.conj().T @ block
    block -= basis @ weights
    return weights


def _orthonormal(block: np.ndarray, image: np.ndarray, floor: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An S-orthonormal basis Q (M, P') of a block's span, S Q, and R (P', P) with block = Q R.

    image: S times the block. floor: norm up to which a vector counts as zero.
    """
    gram = block.conj().T @ image
    squares = gram.diagonal().real
    if (squares < -(floor**2)).any():
        raise np.linalg.LinAlgError("S is not positive definite")
    scale = np.sqrt(np.where(squares > floor**2, squares, np.inf))
    norms, turn = linalg.eigh(gram / scale[:, None] / scale)
    kept = norms > DEPENDENT
    turn = turn[:, kept] / np.sqrt(norms[kept])
    change = turn / scale[:, None]
    rest = (turn * norms[kept]).conj().T * np.where(np.isfinite(scale), scale, 0.0)
    return block @ change, image @ change, rest
