"""Radial functions in momentum space: F_l(k) = √(2/π) ∫ r² R_l(r) j_l(kr) dr.

Shape letters: F radial functions, n points of a table, K points in k, P points asked for.
"""

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.special import spherical_jn

from deeph_tracegrad.integrals.radial import Quadrature, RadialFunctions

# OpenMX's: 1DFFT.NumGridR and NumGridK, the root of 1DFFT.EnergyCutoff (Ry), where its integral over k begins, and how
# far beyond the cutoff radius that over r goes. All lengths in bohr.
_OPENMX_INTERVALS = 900
_OPENMX_LARGEST_K = 60.0
_OPENMX_SMALLEST_K = 1e-6
_OPENMX_MARGIN = 0.5

# ABACUS sums over every second point of an .orb file, as its overlaps show: all others lead away from them.
_ABACUS_STRIDE = 2

# No smooth function that fits into 60 bohr needs a smaller step.
_K_STEP = 0.1
_LARGEST_K = 150.0
_R_STEP = 0.002


@dataclass(frozen=True, eq=False)
class MomentumGrid:
    """Points and weights of the integral over k, (K,) each."""

    k: np.ndarray
    weights: np.ndarray


def momentum_grid(quadrature: Quadrature) -> MomentumGrid:
    """The grid that all functions of a quadrature share."""
    if quadrature is Quadrature.OPENMX:
        k = np.linspace(_OPENMX_SMALLEST_K, _OPENMX_LARGEST_K, _OPENMX_INTERVALS + 1)
    else:
        k = np.arange(0.0, _LARGEST_K + _K_STEP / 2, _K_STEP)
    return MomentumGrid(k, _trapezoid(k))


def transformed(radial: RadialFunctions, degree: int, target: int, times_r: bool) -> np.ndarray:
    """F(k) of the functions with this degree, on the grid of their quadrature, (functions of that degree, K).

    target: the degree of the transform. times_r: of r R_l(r) instead of R_l(r).
    """
    values = radial.values[[other == degree for other in radial.degrees]]
    if radial.quadrature is Quadrature.OPENMX:
        r = np.linspace(radial.r[0], radial.cutoff + _OPENMX_MARGIN, _OPENMX_INTERVALS + 1)
        values, weights = local_cubic(radial.r, values, r), _trapezoid(r)
        values[:, r > radial.r[-1]] = 0.0
        k = np.arange(_OPENMX_INTERVALS) * _OPENMX_LARGEST_K / _OPENMX_INTERVALS
    elif radial.quadrature is Quadrature.ABACUS:
        r, values = radial.r[::_ABACUS_STRIDE], values[:, ::_ABACUS_STRIDE]
        weights, k = _trapezoid(r), momentum_grid(Quadrature.ABACUS).k
    else:
        r = np.linspace(0.0, radial.cutoff, 2 * round(radial.cutoff / _R_STEP / 2) + 1)
        values, weights = CubicSpline(radial.r, values, axis=1)(np.maximum(r, radial.r[0])), _simpson(r)
        k = momentum_grid(Quadrature.CONVERGED).k
    integrand = values * weights * r ** (3 if times_r else 2)
    result = np.sqrt(2 / np.pi) * integrand @ spherical_jn(target, np.outer(r, k))
    if radial.quadrature is Quadrature.OPENMX:  # which interpolates from this grid to that of the next integral
        return local_cubic(k, result, momentum_grid(Quadrature.OPENMX).k)
    return result


def local_cubic(x: np.ndarray, values: np.ndarray, points: np.ndarray) -> np.ndarray:
    """OpenMX's interpolation: Hermite cubics whose slopes are those of parabolas through three neighbours.

    The first and the last interval are extrapolated from their neighbours. x: (n,) ascending; values: (..., n);
    points: (P,). Returns (..., P).
    """
    right = np.clip(np.searchsorted(x, points, side="right"), 2, len(x) - 2)
    before, here, after = (x[right + shift] - x[right + shift - 1] for shift in (-1, 0, 1))
    f0, f1, f2, f3 = (values[..., right + shift] for shift in (-2, -1, 0, 1))
    left_slope = ((f2 - f1) * before / here + (f1 - f0) * here / before) / (before + here)
    right_slope = ((f3 - f2) * here / after + (f2 - f1) * after / here) / (here + after)
    t = (points - x[right - 1]) / here
    s = t - 1
    from_left = s * s * (3 * f1 + here * left_slope + (2 * f1 + here * left_slope) * s)
    return from_left + t * t * (3 * f2 - here * right_slope - (2 * f2 - here * right_slope) * t)


def _trapezoid(x: np.ndarray) -> np.ndarray:
    weights = np.full(len(x), x[1] - x[0])
    weights[[0, -1]] /= 2
    return weights


def _simpson(x: np.ndarray) -> np.ndarray:
    """For an odd number of points."""
    weights = np.full(len(x), 2.0)
    weights[1::2] = 4.0
    weights[[0, -1]] = 1.0
    return weights * (x[1] - x[0]) / 3
