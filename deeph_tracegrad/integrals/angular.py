"""Real spherical harmonics and the integrals over products of them.

Harmonics of degree l stand in the project's order m = -l..l, without Condon-Shortley sign.

Shape letters: P points, L degree, M = 2L+1 components.
"""

from functools import cache

import numpy as np
import torch
from e3nn import o3

_CARTESIAN_TO_E3NN = [1, 2, 0]
_E3NN_DEGREES = 11
_MAX_SUM = 3 * _E3NN_DEGREES


def harmonics(degrees: list[int], directions: np.ndarray) -> list[np.ndarray]:
    """Y_LM of unit vectors, for each degree a (2L+1, P) array; the zero vector has only L = 0.

    directions: (P, 3), Cartesian x, y, z.
    """
    points = torch.from_numpy(np.ascontiguousarray(directions[:, _CARTESIAN_TO_E3NN]))
    values = o3.spherical_harmonics(degrees, points, normalize=False, normalization="integral")
    ends = np.cumsum([2 * degree + 1 for degree in degrees])[:-1]
    return [np.ascontiguousarray(part.T) for part in np.split(values.numpy(), ends, axis=1)]


@cache
def gaunt(first: int, second: int, third: int) -> np.ndarray:
    """∫ Y_{l1 m1} Y_{l2 m2} Y_{L M} over the sphere, (2 l1 + 1, 2 l2 + 1, 2 L + 1)."""
    directions, weights = _sphere()
    one, two, three = (harmonics([degree], directions)[0] for degree in (first, second, third))
    values = np.einsum("ap,bp,cp,p->abc", one, two, three, weights, optimize=True)
    values[np.abs(values) < 1e-14] = 0.0
    return values


@cache
def times_direction(degree: int, result: int) -> np.ndarray:
    """The part of degree `result` in the product of a unit vector's x, y, z with Y_lm, (3, 2 l + 1, 2 L + 1).

    r̂_a Y_lm = Σ_L Σ_M times_direction(l, L)[a, m, M] Y_LM, where L = l ± 1.
    """
    return np.sqrt(4 * np.pi / 3) * gaunt(1, degree, result)[[2, 0, 1]]  # Y_1 comes as y, z, x


@cache
def _sphere() -> tuple[np.ndarray, np.ndarray]:
    """Points (P, 3) and weights (P,) that integrate polynomials up to the degree of any product here exactly."""
    heights, weights = np.polynomial.legendre.leggauss(_MAX_SUM // 2 + 1)
    angles = 2 * np.pi * np.arange(_MAX_SUM + 1) / (_MAX_SUM + 1)
    radius = np.sqrt(1 - heights**2)[:, None]
    points = np.stack([radius * np.cos(angles), radius * np.sin(angles), heights[:, None] + 0 * angles], axis=-1)
    return points.reshape(-1, 3), np.repeat(weights, len(angles)) * 2 * np.pi / len(angles)
