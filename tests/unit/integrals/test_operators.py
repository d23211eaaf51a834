"""Integrals against closed forms of Gaussians, finite differences and exact identities."""

from pathlib import Path

import numpy as np
import pytest

from deeph_tracegrad.integrals import operators
from deeph_tracegrad.integrals.angular import gaunt, harmonics, times_direction
from deeph_tracegrad.integrals.radial import Quadrature, RadialFunctions
from deeph_tracegrad.integrals.tables import pair_table

EXPONENT = 0.7  # of r^l exp(-a r²), bohr^-2
VECTORS = np.array([[0.0, 0.0, 0.0], [0.3, -1.1, 0.8], [2.0, 0.4, -1.5], [-0.1, 0.2, 3.9], [0.0, 0.0, 2.0]])


def gaussians(*degrees: int, exponent: float = EXPONENT, tail: float = 1.0) -> RadialFunctions:
    r = np.linspace(0.0, 8.0, 1601)
    values = np.array([r**degree * np.exp(-exponent * r**2) for degree in degrees]) * tail
    constants = {"bohr_angstrom": 1.0, "hartree_ev": 1.0}
    return RadialFunctions(
        Path("gaussian"), "H", "gaussian", degrees, 8.0, r, values, Quadrature.CONVERGED, **constants
    )


def blocks(operator, first, second, vectors=VECTORS):
    return pair_table(first, second, operator).blocks(vectors)


def test_harmonics_are_the_projects_in_order_and_sign():
    x, y, z = 0.36, -0.48, 0.8
    one, two = harmonics([1, 2], np.array([[x, y, z]]))
    assert np.allclose(one[:, 0], np.sqrt(3 / (4 * np.pi)) * np.array([y, z, x]))
    xy, yz, zx = (np.sqrt(15 / (4 * np.pi)) * product for product in (x * y, y * z, z * x))
    rest = np.sqrt(5 / (16 * np.pi)) * (3 * z * z - 1), np.sqrt(15 / (16 * np.pi)) * (x * x - y * y)
    assert np.allclose(two[:, 0], [xy, yz, rest[0], zx, rest[1]])


def test_gaunt_integrals_expand_products():
    directions = np.random.default_rng(0).normal(size=(7, 3))
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    p, d, *expansion = harmonics([1, 2, 1, 3], directions)
    rebuilt = sum(
        np.einsum("abc,cp->abp", gaunt(1, 2, degree), values) for degree, values in zip((1, 3), expansion, strict=True)
    )
    assert np.allclose(np.einsum("ap,bp->abp", p, d), rebuilt, atol=1e-13)
    turned = sum(
        np.einsum("amc,cp->amp", times_direction(2, degree), values)
        for degree, values in zip((1, 3), expansion, strict=True)
    )
    assert np.allclose(np.einsum("pa,mp->amp", directions, d), turned, atol=1e-13)


def test_overlap_and_kinetic_energy_of_gaussians():
    s = gaussians(0)
    distance2 = (VECTORS**2).sum(axis=1)
    # e^{-a|r|²} e^{-a|r-d|²} integrates to (π/2a)^{3/2} e^{-a d²/2}; harmonics are 1/√4π each
    exact = (np.pi / (2 * EXPONENT)) ** 1.5 * np.exp(-EXPONENT * distance2 / 2) / (4 * np.pi)
    assert np.allclose(blocks(operators.overlap, s, s)[:, 0, 0, 0], exact, rtol=1e-10, atol=1e-13)
    kinetic = exact * EXPONENT / 2 * (3 - EXPONENT * distance2)
    assert np.allclose(blocks(operators.kinetic, s, s)[:, 0, 0, 0], kinetic, rtol=1e-9, atol=1e-12)


def test_higher_shells_are_derivatives_of_lower_ones():
    # r Y_1m e^{-a r²} is -∇/2a of Y_00 e^{-a r²}, times √3
    s, p = gaussians(0), gaussians(1)
    through_gradient = blocks(operators.gradient, s, s)[:, [1, 2, 0], 0, 0] * np.sqrt(3) / (2 * EXPONENT)
    assert np.allclose(blocks(operators.overlap, s, p)[:, 0, 0], through_gradient, atol=1e-11)


@pytest.mark.parametrize("shells", [((0, 1, 2), (0, 1, 2)), ((3,), (2, 4)), ((4,), (4,))])
def test_gradient_is_the_slope_of_the_overlap(shells):
    first, second = gaussians(*shells[0], exponent=0.9), gaussians(*shells[1], exponent=1.1)
    gradient = blocks(operators.gradient, first, second)
    step = 1e-3
    for axis in range(3):
        shift = step * np.eye(3)[axis]
        ahead, behind = (blocks(operators.overlap, first, second, VECTORS + sign * shift) for sign in (1, -1))
        assert np.allclose((ahead - behind)[:, 0] / (2 * step), gradient[:, axis], atol=2e-5 * np.abs(gradient).max())


def test_kinetic_energy_is_half_the_laplacian():
    first, second = gaussians(0, 2), gaussians(1, 3)
    step = 1e-2
    laplacian = -6 * blocks(operators.overlap, first, second)
    for shift in step * np.concatenate([np.eye(3), -np.eye(3)]):
        laplacian = laplacian + blocks(operators.overlap, first, second, VECTORS + shift)
    kinetic = blocks(operators.kinetic, first, second)
    assert np.allclose(-laplacian / (2 * step**2), kinetic, atol=1e-3 * np.abs(kinetic).max())


@pytest.mark.parametrize("shells", [((0, 1, 2), (0, 1)), ((3,), (4,))])
def test_position_is_the_same_from_either_atom(shells):
    """<1| r - r1 |2> = <2| r - r2 |1>ᵀ + d <1|2>: each side is made of other radial functions."""
    first, second = gaussians(*shells[0], exponent=0.8), gaussians(*shells[1], exponent=1.3)
    one = blocks(operators.position, first, second)
    other = blocks(operators.position, second, first, -VECTORS).transpose(0, 1, 3, 2)
    overlap = blocks(operators.overlap, first, second)
    assert np.abs(one - (other + VECTORS[:, :, None, None] * overlap)).max() < 1e-10 * np.abs(one).max()


def test_the_blocks_vanish_beyond_the_table():
    p = gaussians(1)
    assert np.abs(blocks(operators.overlap, p, p, np.array([[0.0, 0.0, 15.999]]))).max() < 1e-13
