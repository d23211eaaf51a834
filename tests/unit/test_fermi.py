import numpy as np
import pytest

from deeph_tracegrad.errors import SolverError
from deeph_tracegrad.inference.fermi import (
    BOLTZMANN_EV,
    FermiLevel,
    chemical_potential,
    fermi_dirac,
    fermi_level_of_mesh,
    gaussian,
    with_band_edges,
)
from deeph_tracegrad.inference.gap import band_edges

WEIGHTS = np.array([0.25, 0.75])
GAPPED = np.array([[[-1.0, 1.0, 3.0], [-0.4, 0.6, 2.0]]])  # (1, 2, 3): gap from -0.4 to 0.6 eV


def test_two_levels_filled_by_half_have_the_level_in_their_middle():
    energies = np.array([[[-0.1, 0.3]]])
    for occupation in (fermi_dirac(2000.0), gaussian(0.2)):
        assert chemical_potential(energies, np.ones(1), 2, occupation, 2) == pytest.approx(0.1, abs=1e-9)


def test_occupations_add_up_to_the_electrons():
    rng = np.random.default_rng(0)
    energies = rng.normal(size=(2, 2, 30))
    level = chemical_potential(energies, WEIGHTS, 17.3, fermi_dirac(300.0), 1)
    filling = 1 / (1 + np.exp((energies - level) / (BOLTZMANN_EV * 300.0)))
    assert (filling.sum(axis=(0, 2)) @ WEIGHTS) == pytest.approx(17.3, abs=1e-6)


@pytest.mark.parametrize(("electrons", "per_state"), [(2, 2), (1, 1)])
def test_insulator_has_its_level_in_the_middle_of_the_gap(electrons, per_state):
    fermi = fermi_level_of_mesh(GAPPED, WEIGHTS, electrons, fermi_dirac(300.0), per_state)
    assert (fermi.level, fermi.valence_top, fermi.conduction_bottom) == pytest.approx((0.1, -0.4, 0.6))
    assert not fermi.is_metal
    assert fermi.gap == pytest.approx(1.0)


def test_insulator_whose_channels_hold_different_electrons():
    energies = np.concatenate([GAPPED, GAPPED + 1.4])  # up: 2 bands below, down: 1
    fermi = fermi_level_of_mesh(energies, WEIGHTS, 3, fermi_dirac(300.0), 1)
    assert not fermi.is_metal
    assert (fermi.valence_top, fermi.conduction_bottom) == pytest.approx((1.0, 2.0))


@pytest.mark.parametrize("electrons", [1.0, 2.1])
def test_partly_filled_band_is_a_metal(electrons):
    fermi = fermi_level_of_mesh(GAPPED, WEIGHTS, electrons, fermi_dirac(300.0), 2)
    assert fermi.is_metal
    assert fermi.gap == 0


def test_overlapping_bands_are_a_metal():
    energies = np.array([[[-1.0, 0.0], [0.5, 1.0]]])
    assert fermi_level_of_mesh(energies, np.array([0.5, 0.5]), 2, fermi_dirac(300.0), 2).is_metal


@pytest.mark.parametrize("electrons", [7, -1])
def test_too_many_electrons_for_the_bands(electrons):
    with pytest.raises(SolverError, match="do not fit"):
        chemical_potential(GAPPED, WEIGHTS, electrons, fermi_dirac(300.0), 2)


def test_edges_with_states_missing():
    energies = np.array([[[np.nan, -1.0, 1.0], [np.nan, -2.0, np.nan]]])
    assert band_edges(energies, 0.0) == (-1.0, 1.0)
    assert band_edges(energies, -1.5) == (None, None)
    assert band_edges(energies, 2.0) == (1.0, None)


def test_path_narrows_the_gap_of_the_mesh():
    fermi = FermiLevel(0.1, "mesh", -0.4, 0.6)
    narrowed = with_band_edges(fermi, np.array([[[-0.2, 0.8]]]))
    assert (narrowed.valence_top, narrowed.conduction_bottom) == (-0.2, 0.6)
    assert narrowed.level == pytest.approx(0.2)
    assert with_band_edges(fermi, np.array([[[-0.2, 0.8], [0.3, 0.9]]])).is_metal


def test_level_from_elsewhere_stays():
    fermi = with_band_edges(FermiLevel(0.5, "given by the user"), GAPPED)
    assert fermi.level == 0.5
    assert fermi.gap == pytest.approx(1.0)
