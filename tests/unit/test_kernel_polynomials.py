"""Moments of S⁻¹H with a full trace against the exact spectrum; what random vectors give is within their error."""

import numpy as np
import pytest
from scipy import linalg, sparse

from deeph_tracegrad.errors import SolverError
from deeph_tracegrad.inference.solvers import DIRECT_SOLVERS, pardiso
from deeph_tracegrad.inference.spectra.kernel_polynomials import (
    Bounds,
    FactorisedOverlap,
    chebyshev_moments,
    jackson_factors,
    moments_needed,
    random_vectors,
    states_below,
)

SIZE = 60


def pair(*, real, seed=0):
    """H and S, sparse, Hermitian, S positive definite; and three groups of rows."""
    rng = np.random.default_rng(seed)
    shape = (SIZE, SIZE)

    def hermitian():
        entries = rng.normal(size=shape) * (rng.random(shape) < 0.15)
        if not real:
            entries = entries + 1j * rng.normal(size=shape) * (entries != 0)
        return (entries + entries.conj().T) / 2

    overlap = 0.1 * hermitian() + np.eye(SIZE) * rng.uniform(0.8, 1.2, SIZE)
    group = np.arange(SIZE) % 3
    members = sparse.csr_array((np.ones(SIZE), (group, np.arange(SIZE))), shape=(3, SIZE))
    return sparse.csr_array(3 * hermitian()), sparse.csr_array(overlap), members


def exact(hamiltonian, overlap, members):
    energies, states = linalg.eigh(hamiltonian.toarray(), overlap.toarray())
    return energies, members @ (states.conj() * (overlap @ states)).real


@pytest.fixture(params=DIRECT_SOLVERS)
def direct(request):
    if request.param == "pardiso" and pardiso.library() is None:
        pytest.skip("MKL is not installed")
    return request.param


@pytest.mark.parametrize("real", [True, False])
def test_factors_of_the_overlap(real, direct):
    """F†⁻¹ F⁻¹ is S⁻¹; a real S takes complex vectors."""
    _, overlap, _ = pair(real=real)
    factor = FactorisedOverlap.of(overlap, direct)
    inverse = np.linalg.inv(overlap.toarray())
    units = np.eye(SIZE, dtype=complex)
    np.testing.assert_allclose(factor.solve(units), inverse, atol=1e-12)
    coloured = factor.coloured(units)
    np.testing.assert_allclose(coloured @ coloured.conj().T, inverse, atol=1e-12)
    phases = np.exp(1j * np.arange(SIZE))[:, None]
    np.testing.assert_allclose(factor.coloured(phases), coloured @ phases, atol=1e-12)


@pytest.mark.parametrize("real", [True, False])
def test_full_trace_gives_the_moments_of_the_spectrum(real, direct):
    hamiltonian, overlap, members = pair(real=real)
    factor = FactorisedOverlap.of(overlap, direct)
    bounds = Bounds.of(hamiltonian, factor)
    energies, shares = exact(hamiltonian, overlap, members)
    assert bounds.centre - bounds.radius < energies[0] < energies[-1] < bounds.centre + bounds.radius
    assert 2 * bounds.radius < 1.1 * (energies[-1] - energies[0])
    moments = chebyshev_moments(hamiltonian, factor, bounds, np.eye(SIZE), 120, members).sum(axis=2)
    angle = np.arccos((energies - bounds.centre) / bounds.radius)
    expected = np.cos(np.arange(120)[:, None] * angle) @ shares.T
    np.testing.assert_allclose(moments, expected, rtol=0, atol=1e-10)
    every = sparse.csr_array(np.ones((1, SIZE)))
    together = chebyshev_moments(hamiltonian, factor, bounds, np.eye(SIZE), 120, every).sum(axis=2)
    np.testing.assert_allclose(together[:, 0], expected.sum(axis=1), rtol=0, atol=1e-10)


@pytest.mark.parametrize("real", [True, False])
def test_random_vectors_agree_within_their_error(real):
    hamiltonian, overlap, members = pair(real=real)
    factor = FactorisedOverlap.of(overlap)
    bounds = Bounds.of(hamiltonian, factor)
    vectors = random_vectors(SIZE, 400, hamiltonian.dtype, seed=1)
    full = chebyshev_moments(hamiltonian, factor, bounds, np.eye(SIZE), 40, members).sum(axis=2)
    sampled = chebyshev_moments(hamiltonian, factor, bounds, vectors, 40, members)
    np.testing.assert_allclose(sampled[0].sum(axis=0), SIZE)  # |z_i| = 1: the count of states has no error
    error = sampled.std(axis=2, ddof=1) / np.sqrt(400)
    deviation = (sampled.mean(axis=2) - full)[1:] / error[1:]
    assert 0.7 < np.sqrt((deviation**2).mean()) < 1.3
    assert abs(deviation).max() < 5


@pytest.mark.parametrize("place", [1.05, 2.2, -0.5])
def test_levels_are_counted_with_a_kernel_of_the_stated_width(place):
    """One state: the count rises from 0 to 1 around it like a Gaussian, also far from the middle of the spectrum."""
    bounds = Bounds(1.0, 2.0)
    number = moments_needed(bounds, 0.02, (place - 0.1, place + 0.1))
    moments = np.cos(np.arange(number) * np.arccos((place - 1.0) / bounds.radius))
    levels = place + np.linspace(-0.15, 0.15, 4001)
    below = states_below(moments, bounds, levels)
    assert (np.diff(below) > -1e-9).all()
    density = np.diff(below) / np.diff(levels)
    middle = (levels[1:] + levels[:-1]) / 2
    mean = (density * middle).sum() / density.sum()
    width = np.sqrt((density * (middle - mean) ** 2).sum() / density.sum())
    assert mean == pytest.approx(place, abs=1e-3)
    assert 0.85 * 0.02 < width < 1.05 * 0.02
    np.testing.assert_allclose(states_below(moments, bounds, np.array([-1.5, 3.5])), [0, 1], atol=1e-12)


def test_jackson_factors():
    factors = jackson_factors(50)
    assert factors[0] == pytest.approx(1)
    assert (np.diff(factors) < 0).all()
    assert 0 < factors[-1] < 1e-3


@pytest.mark.parametrize("real", [True, False])
def test_what_is_no_overlap_is_refused(real, direct):
    hamiltonian, overlap, members = pair(real=real)
    with pytest.raises(SolverError, match="not positive definite"):
        FactorisedOverlap.of(overlap - 2 * sparse.eye_array(SIZE, format="csr"), direct)
    singular = sparse.csr_array(np.diag(np.r_[np.zeros(1), np.ones(SIZE - 1)]).astype(overlap.dtype))
    with pytest.raises(SolverError, match="not positive definite"):
        FactorisedOverlap.of(singular, direct)
    factor = FactorisedOverlap.of(overlap, direct)
    with pytest.raises(SolverError, match="outside"):
        chebyshev_moments(hamiltonian, factor, Bounds(0.0, 1.0), np.eye(SIZE), 40, members)
