"""Unfolding of real runs: the weights of perfect supercells, sum rules of changed ones."""

from dataclasses import replace

import numpy as np
import pytest

from deeph_tracegrad.errors import SolverError
from deeph_tracegrad.inference import solvers
from deeph_tracegrad.inference.bands import BandOptions, compute_bands
from deeph_tracegrad.inference.bloch import bloch_operators
from deeph_tracegrad.inference.kpath import choose_path
from deeph_tracegrad.inference.spectra.projections import Grouping, project_bands
from deeph_tracegrad.inference.spectra.states import states_at_k
from deeph_tracegrad.inference.spectra.supercell import map_supercell
from deeph_tracegrad.inference.spectra.unfolding import PrimitiveRows, unfold
from deeph_tracegrad.preprocess.runs import read_material
from deeph_tracegrad.testing import in_lattice_vectors, repeated, with_atoms_in_order, with_atoms_in_other_cells
from materials import without_atom

SHEAR = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1]])


def perfect(primitive, times, seed=0):
    """A supercell with other lattice vectors, its atoms shuffled and moved to other cells."""
    rng = np.random.default_rng(seed)
    large = in_lattice_vectors(repeated(primitive, times), SHEAR)
    large = with_atoms_in_order(large, rng.permutation(len(large.structure)))
    cells = rng.integers(-1, 2, (len(large.structure), 3))
    return with_atoms_in_other_cells(large, cells)


@pytest.mark.parametrize(
    ("case", "times"), [("graphene", (3, 2, 1)), ("bi_soc", (2, 1, 1)), ("fe_bcc_spin", (1, 2, 1))]
)
def test_perfect_supercell_has_the_primitive_bands_with_weight_one(unpacked, case, times):
    primitive = read_material(unpacked(f"openmx/{case}"))
    large = perfect(primitive, times)
    supercell = map_supercell(large.structure, primitive.structure, 0.1)
    assert (supercell.num_cells, supercell.vacancies, supercell.strangers) == (np.prod(times), 0, 0)
    path = choose_path("G 0 0 0, K 1/3 1/3 0, M 1/2 0 0", primitive.structure, 8.0)
    unfolded = unfold(large, supercell, path, BandOptions(fermi_level=primitive.fermi_level))
    bands = compute_bands(primitive, path, BandOptions(fermi_level=primitive.fermi_level))
    assert unfolded.weights.min() > -1e-9
    for energies, weights, expected in zip(
        unfolded.energies.reshape(-1, unfolded.energies.shape[-1]),
        unfolded.weights.reshape(-1, unfolded.energies.shape[-1]),
        bands.energies.reshape(-1, bands.energies.shape[-1]),
        strict=True,
    ):
        assert weights.sum() == pytest.approx(len(expected), abs=1e-8)
        for energy in expected:
            here = weights[abs(energies - energy) < 1e-5].sum()
            assert here == pytest.approx((abs(expected - energy) < 1e-5).sum(), abs=1e-6)
    assert unfolded.shift_of(bands) == pytest.approx(0.0, abs=0.01)


@pytest.fixture(scope="module")
def vacancy(unpacked):
    """Graphene with one atom of 18 missing, and the map to its primitive cell."""
    primitive = read_material(unpacked("openmx/graphene"))
    large = without_atom(perfect(primitive, (3, 3, 1)), 7)
    return primitive, large, map_supercell(large.structure, primitive.structure, 0.1)


def test_weights_of_a_state_add_up_to_one_over_the_points_that_fold_to_one(vacancy):
    _, large, supercell = vacancy
    assert (supercell.vacancies, supercell.strangers) == (1, 0)
    rows = PrimitiveRows.of(large, supercell)
    k = np.array([0.17, -0.08, 0.0])
    folded = supercell.transform @ k
    states = states_at_k(bloch_operators(large), folded)[0]
    inverse = np.linalg.inv(supercell.transform)
    shifts = np.stack(np.meshgrid(*[np.arange(-9, 10)] * 2, [0], indexing="ij"), axis=-1).reshape(-1, 3)
    points = np.unique(np.round((inverse @ (folded + shifts).T).T % 1.0, 9) % 1.0, axis=0)
    assert len(points) == 9
    # the points differ by supercell reciprocal vectors, so c belongs to each of them
    weights = np.array([rows.weights(states, point) for point in points])
    np.testing.assert_allclose(weights.sum(axis=0), 1.0, atol=1e-9)


def levels_with_weight_one(unfolded):
    """How many levels, degenerate states taken together, have a whole weight, over the path."""
    found = 0
    for energies, weights in zip(unfolded.energies[0], unfolded.weights[0], strict=True):
        level = np.cumsum(np.diff(energies, prepend=energies[0]) > 1e-3)
        total = np.bincount(level, weights)
        found += (abs(total - np.rint(total)) < 0.02)[total > 0.5].sum()
    return int(found)


def test_vacancy_breaks_bands(vacancy):
    """Of a perfect supercell every level is whole; with one atom in 18 missing, few are, but no weight is lost."""
    primitive, large, supercell = vacancy
    path = choose_path("G 0 0 0, K 1/3 1/3 0", primitive.structure, 16.0)
    whole = perfect(primitive, (3, 3, 1))
    options = BandOptions(fermi_level=primitive.fermi_level)
    intact = unfold(whole, map_supercell(whole.structure, primitive.structure, 0.1), path, options)
    broken = unfold(large, supercell, path, BandOptions(fermi_level=primitive.fermi_level))
    assert levels_with_weight_one(intact) > 20 * len(path.k)
    assert levels_with_weight_one(broken) < 0.1 * levels_with_weight_one(intact)
    rows = 26 - 13 / 9  # of the primitive cell that are there, on average
    np.testing.assert_allclose(broken.weights[0].sum(axis=1), rows, rtol=0.03)
    at_fermi_level = abs(broken.energies[0] - primitive.fermi_level) < 1.0
    assert broken.weights[0][at_fermi_level].max() < 0.95  # the cone


def test_atoms_without_a_site_take_their_share_with_them(unpacked):
    """Of MoS2 seen on the lattice of its Mo alone, weights add up to the Mo's share."""
    primitive = read_material(unpacked("openmx/mos2"))
    large = repeated(primitive, (2, 1, 1))
    sulphur = [place for place, element in enumerate(primitive.elements) if element == "S"]
    lattice = primitive.structure.copy()
    lattice.remove_sites(sulphur)
    supercell = map_supercell(large.structure, lattice, 0.1)
    assert supercell.strangers == 4
    rows = PrimitiveRows.of(large, supercell)
    k = np.array([0.1, 0.3, 0.0])
    states = states_at_k(bloch_operators(large), supercell.transform @ k)[0]
    weights = rows.weights(states, k) + rows.weights(states, k + np.array([0.5, 0, 0]))
    molybdenum = rows.row >= 0
    np.testing.assert_allclose(weights, states.populations[molybdenum].sum(axis=0), atol=1e-9)


@pytest.mark.parametrize("wanted", [{"num_bands": 14}, {"window": (-4.0, 3.0)}])
@pytest.mark.parametrize("case", ["vacancy", "fe_bcc_spin", "bi_soc"])
def test_states_of_shift_invert_have_the_weights_and_shares_of_all_states(case, wanted, unpacked, vacancy, monkeypatch):
    """A large cell's few states, against dense ones; degenerate levels as a whole, since their states are a choice."""
    if case == "vacancy":
        primitive, large, supercell = vacancy
    else:
        primitive = read_material(unpacked(f"openmx/{case}"))
        large = perfect(primitive, (2, 1, 1))
        supercell = map_supercell(large.structure, primitive.structure, 0.1)
    path = choose_path("G 0 0 0, K 0.31 0.4 0.07", primitive.structure, 4.0)
    options = BandOptions(fermi_level=primitive.fermi_level, **wanted)

    def computed():
        bands = compute_bands(large, path, options)
        shares = project_bands(large, bands, Grouping.SHELL).weights
        return unfold(large, supercell, path, options), bands, shares

    dense, dense_bands, dense_shares = computed()
    monkeypatch.setattr(solvers, "DENSE_LIMIT", 10)
    found, bands, shares = computed()
    for energies, weights, others, other_weights in (
        (found.energies, found.weights[..., None], dense.energies, dense.weights[..., None]),
        (bands.energies, shares, dense_bands.energies, dense_shares),
    ):
        compared = 0
        for place in np.ndindex(energies.shape[:2]):
            known = energies[place][~np.isnan(energies[place])]
            inner = known[(known > known[0] + 1e-4) & (known < known[-1] - 1e-4)]  # edges may cut a level
            for energy in inner:
                ours, theirs = abs(energies[place] - energy) < 1e-4, abs(others[place] - energy) < 1e-4
                assert ours.sum() == theirs.sum()
                np.testing.assert_allclose(
                    weights[place][ours].sum(axis=0), other_weights[place][theirs].sum(axis=0), atol=1e-8
                )
                compared += 1
        assert compared >= 8


def test_spectral_function_holds_the_weights_and_finds_a_shift(vacancy):
    primitive, large, supercell = vacancy
    path = choose_path("G 0 0 0, K 1/3 1/3 0", primitive.structure, 20.0)
    unfolded = unfold(large, supercell, path, BandOptions(fermi_level=primitive.fermi_level))
    energies = np.linspace(-60, 250, 31_001)
    function = unfolded.spectral_function(energies, 0.05)
    np.testing.assert_allclose(function.sum(axis=1) * 0.01, unfolded.weights[0].sum(axis=1), rtol=1e-6)
    missing = replace(unfolded, energies=np.where(unfolded.energies > 0, np.nan, unfolded.energies))
    lower = np.where(unfolded.energies[0] > 0, 0, unfolded.weights[0]).sum(axis=1)
    np.testing.assert_allclose(missing.spectral_function(energies, 0.05).sum(axis=1) * 0.01, lower, rtol=1e-6)
    assert -6.0 <= missing.complete_range[0] < missing.complete_range[1] < -primitive.fermi_level
    bands = compute_bands(primitive, path, BandOptions(fermi_level=primitive.fermi_level))
    own = unfolded.shift_of(bands)
    assert missing.shift_of(bands) == pytest.approx(own, abs=0.2)
    bands.energies[...] -= 1.37
    assert unfolded.shift_of(bands) == pytest.approx(own + 1.37, abs=0.011)


def test_empty_window(vacancy):
    primitive, large, supercell = vacancy
    path = choose_path("G 0 0 0, K 1/3 1/3 0", primitive.structure, 1.0)
    with pytest.raises(SolverError, match="no band lies in the window"):
        unfold(large, supercell, path, BandOptions(window=(900.0, 901.0), fermi_level=primitive.fermi_level))
