from dataclasses import replace

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from deeph_tracegrad.blocks import BlockMatrix
from deeph_tracegrad.errors import SolverError
from deeph_tracegrad.inference import counted_fermi, fermi
from deeph_tracegrad.inference.bloch import bloch_operators
from deeph_tracegrad.inference.counted_fermi import BRACKET, EDGE_STATES, CountedStates
from deeph_tracegrad.inference.fermi import (
    BOLTZMANN_EV,
    FermiLevel,
    chemical_potential,
    fermi_dirac,
    fermi_level_of_mesh,
    find_fermi_level,
    gaussian,
    with_band_edges,
)
from deeph_tracegrad.inference.gap import band_edges
from deeph_tracegrad.inference.solvers import Spectrum
from deeph_tracegrad.material import Material
from deeph_tracegrad.orbitals import Basis, ElementBasis, SpinMode
from deeph_tracegrad.parallel import World
from materials import random_material

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
    assert band_edges(energies, -1.5) is None
    assert band_edges(energies, 2.0) == (1.0, np.inf)
    assert band_edges(energies, -3.0) == (-np.inf, -2.0)


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


def test_a_metal_of_the_whole_zone_is_one_although_a_path_shows_a_gap():
    metal = FermiLevel(0.1, "mesh", whole_zone=True)
    assert with_band_edges(metal, GAPPED).is_metal
    assert with_band_edges(metal, GAPPED).level == 0.1


def test_bands_of_one_side_alone_tell_no_gap():
    above = GAPPED[:, :, 1:]
    assert np.isinf(with_band_edges(FermiLevel(0.1, "given by the user"), above).gap)
    known = with_band_edges(FermiLevel(0.1, "mesh", -0.4, 0.7, whole_zone=True), above)
    assert (known.valence_top, known.conduction_bottom) == (-0.4, 0.6)


@pytest.mark.parametrize(
    ("spin", "atoms", "energies", "electrons", "gap"),
    [
        (SpinMode.NONE, 2, [[-5.0, -3.0]], 2, 2.0),  # bonding level filled, antibonding level empty
        (SpinMode.COLLINEAR, 1, [[-5.0], [2.0]], 1, 7.0),  # one channel has no empty state, the other no filled one
    ],
)
def test_molecule_in_a_box(spin, atoms, energies, electrons, gap):
    basis = Basis.of({"H": ElementBasis((0,))})
    structure = Structure(Lattice.cubic(15.0), ["H"] * atoms, np.linspace(0.5, 0.55, atoms)[:, None] * np.ones(3))
    on_site = np.array([[0, 0, 0, atom, atom] for atom in range(atoms)])
    sizes = basis.num_orbitals(["H"] * atoms)
    hamiltonian = tuple(BlockMatrix.of(on_site, np.array(levels), sizes) for levels in energies)
    overlap = BlockMatrix.of(on_site, np.ones(atoms), sizes)
    material = Material(structure, basis, spin, overlap, hamiltonian, electrons=electrons)
    fermi = find_fermi_level(material, bloch_operators(material))
    assert fermi.gap == pytest.approx(gap)
    assert fermi.source == f"middle of the gap; {electrons} electrons, k-mesh 1x1x1"


@pytest.mark.parametrize("spin", SpinMode)
@pytest.mark.parametrize("electrons", [9.0, 10.0, 12.6])
def test_counts_give_the_level_of_all_states(spin, electrons, monkeypatch):
    material = random_material(spin)
    overlap = material.overlap
    onsite = (overlap.pairs[:, :3] == 0).all(axis=1) & (overlap.pairs[:, 3] == overlap.pairs[:, 4])
    entries = 0.01 * overlap.entries
    for place in np.flatnonzero(onsite):
        size = overlap.sizes[overlap.pairs[place, 3]]
        entries[overlap.offsets[place] : overlap.offsets[place + 1]] += np.eye(size).ravel()
    material = replace(material, electrons=electrons, overlap=overlap.with_entries(entries))
    operators = bloch_operators(material)
    monkeypatch.setattr(fermi, "MESH_DENSITY", 8.0)
    monkeypatch.setattr(fermi, "SMALL_CELL", 0)  # no search for edges between the points of the mesh
    exact = find_fermi_level(material, operators)
    monkeypatch.setattr(fermi, "DENSE_LIMIT", 0)
    counted = find_fermi_level(material, operators)
    assert counted.is_metal == exact.is_metal
    assert counted.level == pytest.approx(exact.level, abs=1e-6)


@pytest.mark.parametrize("gap", [0.002, 3.0])
def test_counts_find_a_gap_and_its_edges(gap, monkeypatch):
    levels = np.concatenate([np.linspace(-9.0, -1.0, 25), np.linspace(-1.0 + gap, 7.0, 25)])
    material = chain_of_levels(levels, electrons=50)
    monkeypatch.setattr(fermi, "DENSE_LIMIT", 0)
    found = find_fermi_level(material, bloch_operators(material))
    if gap > BRACKET:
        assert (found.valence_top, found.conduction_bottom) == pytest.approx((-1.0, -1.0 + gap), abs=1e-9)
    assert found.level == pytest.approx(-1.0 + gap / 2, abs=1e-3)


@pytest.mark.parametrize("guess", [-0.99, 0.7, 1.99])
def test_a_search_that_begins_in_the_gap_finds_its_edges(guess, monkeypatch):
    levels = np.concatenate([np.linspace(-9.0, -1.0, 25), np.linspace(2.0, 7.0, 25)])
    material = replace(chain_of_levels(levels, electrons=50), fermi_level=guess)
    monkeypatch.setattr(fermi, "DENSE_LIMIT", 0)
    found = find_fermi_level(material, bloch_operators(material))
    assert (found.valence_top, found.conduction_bottom) == pytest.approx((-1.0, 2.0), abs=1e-9)


def test_edges_of_a_gap_are_sought_at_every_k():
    """One k has only empty states near the energy, yet the highest filled state is at that k."""

    def spectrum(centre, levels):
        nearest = np.sort(levels[np.argsort(abs(levels - centre))[:EDGE_STATES]])
        return Spectrum(nearest, np.zeros(EDGE_STATES), int((levels < nearest[0]).sum()))

    crowded = np.concatenate([np.linspace(-9.0, -0.6, 20), np.linspace(0.1, 0.5, 12)])
    sparse_levels = np.concatenate([np.linspace(-9.0, -1.0, 20), np.linspace(0.3, 9.0, 12)])

    class Given(CountedStates):
        def _spectra(self, selection):
            return [[spectrum(selection.centre, levels)] for levels in (crowded, sparse_levels)]

    counted = Given(None, np.zeros((2, 3)), np.full(2, 0.5), 40.0, 2)
    level, edges = counted._gap_around(0.0, np.array([20]))
    assert edges == pytest.approx((-0.6, 0.1))
    assert level == pytest.approx(-0.25)
    filled = np.linspace(-9.0, -1.0, 40)

    class Full(CountedStates):
        def _spectra(self, selection):
            return [[spectrum(selection.centre, filled)]]

    assert Full(None, np.zeros((1, 3)), np.ones(1), 80.0, 2)._gap_around(0.0, np.array([40])) == (0.0, (-1.0, np.inf))


@pytest.mark.parametrize("guess", [-40.0, 0.3, 30.0])
@pytest.mark.parametrize("electrons", [50, 51])
def test_several_energies_at_once_give_the_same_level(guess, electrons, monkeypatch):
    levels = np.concatenate([np.linspace(-9.0, -1.0, 25), np.linspace(2.0, 7.0, 25)])
    material = replace(chain_of_levels(levels, electrons=electrons), fermi_level=guess)
    monkeypatch.setattr(fermi, "DENSE_LIMIT", 0)
    rounds, counts = [], CountedStates.counts

    def counted(self, energies):
        rounds.append(len(energies))
        return counts(self, energies)

    monkeypatch.setattr(CountedStates, "counts", counted)
    alone = find_fermi_level(material, bloch_operators(material))
    rounds_alone = rounds.copy()
    rounds.clear()
    monkeypatch.setattr(counted_fermi, "world", lambda: World(size=5))
    together = find_fermi_level(material, bloch_operators(material))
    assert together.level == pytest.approx(alone.level, abs=1e-9)
    assert together.gap == pytest.approx(alone.gap, abs=1e-9)
    assert set(rounds_alone) == {1}
    assert set(rounds) <= {1, 5}
    assert len(rounds) < len(rounds_alone) or len(rounds) == 1  # the guess lay in the gap


def test_counts_refuse_electrons_that_do_not_fit(monkeypatch):
    material = chain_of_levels(np.linspace(-9.0, -1.0, 50), electrons=101)
    monkeypatch.setattr(fermi, "DENSE_LIMIT", 0)
    with pytest.raises(SolverError, match="101 electrons do not fit"):
        find_fermi_level(material, bloch_operators(material))


def chain_of_levels(levels, electrons):
    """Hydrogen atoms far apart, each with a level of its own."""
    atoms = len(levels)
    places = np.linspace(0.0, 0.9, atoms)[:, None] * np.ones(3)
    structure = Structure(Lattice.cubic(20.0 * atoms), ["H"] * atoms, places)
    basis = Basis.of({"H": ElementBasis((0,))})
    onsite = np.array([[0, 0, 0, atom, atom] for atom in range(atoms)])
    sizes = basis.num_orbitals(["H"] * atoms)
    hamiltonian = BlockMatrix.of(onsite, np.array(levels), sizes)
    overlap = BlockMatrix.of(onsite, np.ones(atoms), sizes)
    return Material(structure, basis, SpinMode.NONE, overlap, (hamiltonian,), electrons=electrons)
