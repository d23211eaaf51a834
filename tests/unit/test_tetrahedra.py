"""Tetrahedra against integrals that are known: a linear band, free electrons, flat bands."""

import numpy as np
import pytest

from deeph_tracegrad.inference.kpoints import mesh_points, reduced_numbers
from deeph_tracegrad.inference.spectra.tetrahedra import Tetrahedra, corner_weights, tetrahedron_density

HEXAGONAL = np.array([[1.0, 0.5, 0.0], [0.0, 1.0, 0.1], [0.2, 0.0, 0.7]])


def cosines(k):
    return -np.cos(2 * np.pi * k).sum(axis=1)


def test_weights_integrate_linear_functions_over_the_part_below():
    """Of a tetrahedron cut by a plane, by sampling: they are the integrals of the barycentric coordinates."""
    energies = np.array([-1.0, -0.2, 0.5, 0.9])
    rng = np.random.default_rng(0)
    points = rng.dirichlet(np.ones(4), size=400_000)
    for level in (-0.7, -0.1, 0.2, 0.6, 0.88):
        below = points @ energies < level
        expected = (points * below[:, None]).mean(axis=0)
        np.testing.assert_allclose(corner_weights(energies[None], np.array([level]))[0], expected, atol=2e-3)
        step = 1e-6
        sums = [corner_weights(energies[None], np.array([level + shift])).sum() for shift in (-step, step)]
        density = tetrahedron_density(energies[None], level)[0]
        assert (sums[1] - sums[0]) / (2 * step) == pytest.approx(density, rel=1e-6)


@pytest.mark.parametrize(
    "energies", [(0, 0, 0, 0), (0, 0, 0, 1), (0, 1, 1, 1), (0, 0, 1, 1), (0, 0, 1, 2), (0, 1, 1, 2)]
)
def test_equal_corners_give_no_division_by_zero(energies):
    corners = np.array([energies], dtype=float)
    for level in (-0.5, 0.0, 0.3, 1.0, 1.5, 2.0, 2.5):
        weights = corner_weights(corners, np.array([level]))
        assert (weights >= 0).all()
        assert weights.sum() == pytest.approx(1.0 if level >= corners.max() else weights.sum())
        assert np.isfinite(tetrahedron_density(corners, level)).all()


@pytest.mark.parametrize("divisions", [(4, 5, 6), (6, 6, 1), (8, 1, 1)])
@pytest.mark.parametrize("time_reversal", [False, True])
def test_count_of_cosine_bands(divisions, time_reversal):
    """Monotonous, from none to all, half full at the middle by symmetry; the groups share it."""
    k, _ = mesh_points(divisions, time_reversal=time_reversal)
    energies = np.stack([cosines(k), cosines(k) + 10.0], axis=1)
    shares = np.stack([np.full(energies.shape, 0.25), np.full(energies.shape, 0.75)], axis=2)
    levels = np.linspace(-4, 14, 181)
    tetrahedra = Tetrahedra.of(divisions, HEXAGONAL, time_reversal=time_reversal)
    below = tetrahedra.states_below(energies, shares, levels)
    np.testing.assert_allclose(below[1], 3 * below[0], atol=1e-12)
    total = below.sum(axis=0)
    assert (np.diff(total) >= -1e-12).all()
    assert total[0] == 0
    np.testing.assert_allclose(total[[100, -1]], [1.0, 2.0])
    for place in (30, 45, 130):
        occupations = tetrahedra.occupations(energies, levels[place])
        assert occupations.sum() == pytest.approx(total[place])


def test_time_reversal_changes_nothing():
    divisions = (5, 4, 3)
    levels = np.linspace(-3, 3, 50)
    counts = []
    for time_reversal in (False, True):
        k, _ = mesh_points(divisions, time_reversal=time_reversal)
        energies = cosines(k)[:, None]
        tetrahedra = Tetrahedra.of(divisions, np.eye(3), time_reversal=time_reversal)
        counts.append(tetrahedra.states_below(energies, np.ones((*energies.shape, 1)), levels))
    np.testing.assert_allclose(counts[0], counts[1], atol=1e-12)
    assert reduced_numbers(divisions, time_reversal=True).max() + 1 == len(
        mesh_points(divisions, time_reversal=True)[0]
    )


def test_layer_has_the_density_of_states_of_the_square_lattice():
    """Of -cos x - cos y it is K(1 - (E/2)²) / π², K the complete elliptic integral of the parameter."""
    from scipy.special import ellipk

    divisions = (96, 96, 1)
    k, _ = mesh_points(divisions, time_reversal=True)
    energies = -np.cos(2 * np.pi * k[:, :2]).sum(axis=1)[:, None]
    edges = np.array([-1.9, -1.5, -1.0, -0.5, 0.3, 1.0])
    levels = np.sort(np.concatenate([edges - 0.02, edges + 0.02]))
    tetrahedra = Tetrahedra.of(divisions, np.eye(3), time_reversal=True)
    below = tetrahedra.states_below(energies, np.ones((*energies.shape, 1)), levels)[0]
    np.testing.assert_allclose((below[1::2] - below[::2]) / 0.04, ellipk(1 - (edges / 2) ** 2) / np.pi**2, rtol=3e-3)


def test_correction_makes_the_band_energy_converge_faster():
    """Of a metal, whose curved bands linear interpolation puts too low or too high."""

    def band_energy(n, corrected):
        k, _ = mesh_points((n, n, n), time_reversal=True)
        energies = cosines(k)[:, None]
        tetrahedra = Tetrahedra.of((n, n, n), np.eye(3), time_reversal=True)
        if corrected:
            return float((tetrahedra.occupations(energies, -0.4) * energies).sum())
        shares = energies[..., None]
        return float(tetrahedra.states_below(energies, shares, np.array([-0.4]))[0, 0])

    exact = band_energy(40, corrected=True)
    plain, corrected = (abs(band_energy(10, which) - exact) for which in (False, True))
    assert corrected < plain / 4
