"""Bands, Fermi levels and paths against numbers that the DFT codes printed, and against exact identities."""

from pathlib import Path

import numpy as np
import pytest

from deeph_tracegrad.inference.band_difference import band_difference
from deeph_tracegrad.inference.bands import BandOptions, compute_bands
from deeph_tracegrad.inference.bloch import bloch_operators
from deeph_tracegrad.inference.fermi import (
    chemical_potential,
    fermi_dirac,
    fermi_level_of_mesh,
    find_fermi_level,
    gaussian,
)
from deeph_tracegrad.inference.gap import mesh_energies
from deeph_tracegrad.inference.kpath import choose_path, path_through
from deeph_tracegrad.inference.kpoints import mesh_points
from deeph_tracegrad.inference.solvers import Selection, ShiftInvertSolver, solve_dense
from deeph_tracegrad.orbitals import SpinMode
from deeph_tracegrad.preprocess.abacus.bands_file import read_abacus_bands
from deeph_tracegrad.preprocess.openmx.bands_file import read_openmx_band
from deeph_tracegrad.preprocess.runs import read_material
from deeph_tracegrad.testing import in_lattice_vectors, repeated

OPENMX = {"graphene": (9, 9, 1), "mos2": (7, 7, 1), "fe_bcc_spin": (7, 7, 7), "bi_soc": (7, 7, 1)}
RUNS = Path(__file__).parents[2] / "demo" / "runs"
ABACUS = ("si2", "mos2", "bi_soc", "fe_nspin2")


def level_on_mesh(material, divisions, occupation):
    operators = bloch_operators(material)
    k_points, weights = mesh_points(divisions, time_reversal=operators.is_real)
    energies = mesh_energies(operators, k_points)
    per_state = 2 if material.spin is SpinMode.NONE else 1
    arguments = (energies, weights, material.electrons, occupation, per_state)
    return chemical_potential(*arguments), fermi_level_of_mesh(*arguments)


@pytest.mark.parametrize("case", OPENMX)
def test_every_band_that_openmx_printed(unpacked, case):
    folder = unpacked(f"openmx/{case}")
    material, printed = read_material(folder), read_openmx_band(folder / "openmx.Band")
    path, source = path_through(printed.k, material.structure)
    assert path.counts.tolist() == [segment.points for segment in printed.segments]
    bands = compute_bands(material, path, BandOptions(fermi_level=printed.fermi_level))
    np.testing.assert_allclose(bands.energies, printed.energies[:, source], rtol=0, atol=1e-7)
    assert bands.residuals.max() < 1e-9


@pytest.mark.parametrize("case", ABACUS)
def test_every_band_that_abacus_printed(unpacked, case):
    folder = unpacked(f"abacus/{case}")
    material, printed = read_material(folder), read_abacus_bands(folder)
    path, source = path_through(printed.k, material.structure)
    bands = compute_bands(material, path, BandOptions(fermi_level=material.fermi_level))
    theirs = printed.energies[:, source]
    np.testing.assert_allclose(bands.energies[:, :, : theirs.shape[2]], theirs, rtol=0, atol=5e-5)


@pytest.mark.parametrize(("case", "tolerance"), [("graphene", 1e-6), ("fe_bcc_spin", 5e-6), ("bi_soc", 1e-6)])
def test_chemical_potential_of_openmx(unpacked, case, tolerance):
    """Its own mesh and 300 K; measured differences 3e-8, 1e-6 and 1e-7 eV. Not for the wide gap of MoS2, in which
    OpenMX may stop anywhere.
    """
    material = read_material(unpacked(f"openmx/{case}"))
    found, _ = level_on_mesh(material, OPENMX[case], fermi_dirac(300.0))
    assert found == pytest.approx(material.fermi_level, abs=tolerance)


def test_chemical_potential_of_abacus(unpacked):
    """Gaussian smearing of 0.01 Ry on its own mesh, for the metal."""
    material = read_material(unpacked("abacus/fe_nspin2"))
    found, _ = level_on_mesh(material, (7, 7, 7), gaussian(0.01 * 13.605698))
    assert found == pytest.approx(material.fermi_level, abs=5e-5)


def test_insulator_is_told_from_a_metal(unpacked):
    material = read_material(unpacked("openmx/mos2"))
    _, fermi = level_on_mesh(material, OPENMX["mos2"], fermi_dirac(300.0))
    assert fermi.gap == pytest.approx(1.94, abs=0.01)  # on a mesh without K
    assert fermi.valence_top < material.fermi_level < fermi.conduction_bottom


def test_fermi_level_found_without_help(unpacked):
    graphene = read_material(unpacked("openmx/graphene"))
    fermi = find_fermi_level(graphene, bloch_operators(graphene))
    assert fermi.level == pytest.approx(graphene.fermi_level, abs=1e-3)
    assert fermi.is_metal
    assert fermi.source == "8 electrons, k-mesh 21x21x1, 300 K"


@pytest.mark.parametrize("run", range(8))
def test_no_strained_graphene_has_a_gap(run):
    """The inversion centre between its two atoms keeps the cone closed, wherever in the zone it is."""
    material = read_material(RUNS / f"a_{run:02}")
    assert find_fermi_level(material, bloch_operators(material)).is_metal


def test_dirac_point_between_the_points_of_a_mesh(unpacked):
    """Strained graphene keeps its inversion centre, so it has no gap; but its cone is off K, and a mesh shows one."""
    material = read_material(unpacked("openmx/demo_a_00"))
    _, coarse = level_on_mesh(material, (21, 21, 1), fermi_dirac(300.0))
    assert coarse.gap > 0.5
    found = find_fermi_level(material, bloch_operators(material))
    assert found.gap < 1e-3
    dense, _ = level_on_mesh(material, (240, 240, 1), fermi_dirac(300.0))
    assert found.level == pytest.approx(dense, abs=2e-3)


def test_mos2_of_abacus_has_its_gap_from_gamma_to_k(unpacked):
    material = read_material(unpacked("abacus/mos2"))
    bands = compute_bands(material, choose_path("auto", material.structure, 60.0), BandOptions())
    assert bands.path.ticks == ["Γ", "K", "M", "Γ"]
    assert bands.fermi.gap == pytest.approx(1.618, abs=1e-3)  # known from the run itself
    assert bands.path.name(bands.k_of(bands.fermi.valence_top)) == "Γ"
    assert bands.path.name(bands.k_of(bands.fermi.conduction_bottom)) == "K"
    assert bands.fermi.level == pytest.approx((bands.fermi.valence_top + bands.fermi.conduction_bottom) / 2)


def test_path_of_silicon_in_an_unusual_cell_gives_the_same_bands(unpacked):
    """The path is carried over to the vectors at hand, so the energies along it are those of the usual cell."""
    silicon = read_material(unpacked("abacus/si2"))
    other = in_lattice_vectors(silicon, np.array([[1, 1, 0], [0, 1, 2], [1, 1, 1]]))
    bands, told = (
        compute_bands(material, choose_path("auto", material.structure, 25.0), BandOptions(fermi_level=6.9))
        for material in (silicon, other)
    )
    assert bands.path.ticks == ["Γ", "X", "W", "K", "Γ", "L", "U", "W", "L", "K|U", "X"]
    assert not np.allclose(bands.path.k, told.path.k)
    np.testing.assert_allclose(told.path.distance, bands.path.distance, atol=1e-9)
    np.testing.assert_allclose(told.energies, bands.energies, rtol=0, atol=1e-6)  # a file of 8 digits


def test_energies_of_a_supercell_are_those_of_the_cell_folded(unpacked):
    cell = read_material(unpacked("openmx/mos2"))
    times = (3, 2, 1)
    k = np.array([0.21, -0.34, 0.0])
    folded = (k + np.stack(np.meshgrid(*map(np.arange, times), indexing="ij"), axis=-1).reshape(-1, 3)) / times
    expected = np.sort(mesh_energies(bloch_operators(cell), folded).ravel())
    np.testing.assert_allclose(
        mesh_energies(bloch_operators(repeated(cell, times)), k[None])[0, 0], expected, rtol=0, atol=1e-9
    )


@pytest.mark.parametrize(("case", "times"), [("openmx/graphene", (5, 5, 1)), ("openmx/bi_soc", (3, 3, 1))])
def test_shift_invert_equals_dense_in_a_supercell(unpacked, case, times):
    """At Γ, where the supercell's states are degenerate up to twelve times."""
    material = repeated(read_material(unpacked(case)), times)
    operators = bloch_operators(material)
    hamiltonian, overlap = operators.hamiltonian[0].at_k(np.zeros(3)), operators.overlap.at_k(np.zeros(3))
    exact = solve_dense(hamiltonian, overlap)
    window = (material.fermi_level - 2.0, material.fermi_level + 2.5)
    found = ShiftInvertSolver(Selection(window=window))(hamiltonian, overlap)
    inside = (exact.energies >= window[0]) & (exact.energies < window[1])
    assert found.first == np.flatnonzero(inside)[0]
    np.testing.assert_allclose(found.energies, exact.energies[inside], rtol=0, atol=1e-8)
    assert found.residuals.max() < 1e-7


def test_fermi_level_does_not_depend_on_the_cell(unpacked):
    """A metal with spin, with the mesh folded as the cell is."""
    iron = read_material(unpacked("openmx/fe_bcc_spin"))
    one, _ = level_on_mesh(iron, (6, 4, 4), fermi_dirac(300.0))
    two, _ = level_on_mesh(repeated(iron, (2, 1, 1)), (3, 4, 4), fermi_dirac(300.0))
    assert two == pytest.approx(one, abs=1e-9)


def test_difference_of_bands_that_a_constant_and_a_stretch_apart(unpacked):
    material = read_material(unpacked("openmx/graphene"))
    path = choose_path("G 0 0 0, K 1/3 1/3 0", material.structure, 40.0)
    bands = compute_bands(material, path, BandOptions(fermi_level=material.fermi_level))
    shifted = compute_bands(material, path, BandOptions(fermi_level=material.fermi_level))
    shifted.energies[:] += 0.01
    found = band_difference(shifted, bands, (-2.0, 2.0))
    counted = abs(bands.energies - bands.fermi.level) <= 2.0
    assert found.states == counted.sum()
    assert (found.mean, found.largest, found.shift) == pytest.approx((0.01, 0.01, 0.01))
    assert found.largest_shifted == pytest.approx(0, abs=1e-12)
    assert band_difference(shifted, bands, (500.0, 600.0)) is None
    fewer = compute_bands(material, path, BandOptions(num_bands=6, fermi_level=material.fermi_level))
    assert band_difference(fewer, bands, (-2.0, 2.0)).largest < 1e-12
    assert fewer.energies.shape[2] == 6


@pytest.mark.parametrize("options", [{"window": (-1.5, 2.0)}, {"num_bands": 8}])
def test_selected_bands_are_some_of_all(unpacked, options):
    material = read_material(unpacked("openmx/fe_bcc_spin"))
    path = choose_path("G 0 0 0, X 1/2 0 0", material.structure, 30.0)
    everything = compute_bands(material, path, BandOptions(fermi_level=material.fermi_level))
    some = compute_bands(material, path, BandOptions(fermi_level=material.fermi_level, **options))
    columns = slice(some.first_band, some.first_band + some.energies.shape[2])
    np.testing.assert_array_equal(some.energies, everything.energies[:, :, columns])
    low, high = options.get("window", (0, 0))
    relative = everything.energies - material.fermi_level
    left_out = np.delete(relative, np.arange(relative.shape[2])[columns], axis=2)
    assert not ((left_out > low) & (left_out < high)).any()
