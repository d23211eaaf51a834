import sys
from contextlib import ExitStack
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from scipy import sparse
from scipy.linalg import eigh

from deeph_tracegrad.errors import ConfigError, SolverError
from deeph_tracegrad.inference import bands
from deeph_tracegrad.inference.bands import BandOptions, compute_bands
from deeph_tracegrad.inference.kpath import choose_path
from deeph_tracegrad.inference.solvers import Selection, SlepcSolver, choose_solver, slepc
from deeph_tracegrad.inference.solvers.conditioning import FLOOR
from deeph_tracegrad.preprocess.runs import read_material
from pencils import near_degenerate


def missing() -> str:
    """Why SLEPc cannot be used here; empty where it can."""
    try:
        slepc.engine()
    except ConfigError as error:
        return str(error)
    return ""


installed = pytest.mark.skipif(bool(missing()), reason=missing())


@pytest.fixture(scope="module", params=[float, complex])
def problem(request):
    return near_degenerate(120, request.param)


@pytest.fixture(scope="module")
def exact(problem):
    return eigh(problem[0].toarray(), problem[1].toarray(), eigvals_only=True)


@pytest.fixture
def fresh():
    """No engine that was found before, and none that is found now for later tests."""
    slepc.engine.cache_clear()
    yield
    slepc.engine.cache_clear()


def test_without_slepc_the_user_is_told_how_to_get_it(fresh, monkeypatch):
    monkeypatch.setitem(sys.modules, "petsc4py", None)
    with pytest.raises(ConfigError, match=r"SLEPc cannot be loaded .*docs/clusters\.md"):
        choose_solver(10, Selection(num_bands=1), "slepc")


@pytest.mark.parametrize(
    ("scalar", "mumps", "message"),
    [
        (np.complex128, True, "built for complex128"),
        (np.float32, True, "float32"),
        (np.float64, False, "without MUMPS"),
    ],
)
def test_builds_that_cannot_count_states_are_refused(fresh, monkeypatch, scalar, mumps, message):
    package, module = ModuleType("petsc4py"), ModuleType("slepc4py")
    package.PETSc = SimpleNamespace(ScalarType=scalar, Sys=SimpleNamespace(hasExternalPackage=lambda name: mumps))
    module.SLEPc = SimpleNamespace()
    monkeypatch.setitem(sys.modules, "petsc4py", package)
    monkeypatch.setitem(sys.modules, "slepc4py", module)
    with pytest.raises(ConfigError, match=message):
        choose_solver(10, Selection(num_bands=1), "slepc")


@installed
@pytest.mark.parametrize("window", [(-0.5, 0.7), (0.29, 0.31), (0.0, 2.0), (-1.3, -1.1), (-60.0, 60.0)])
def test_a_window_holds_all_its_states_and_their_numbers(problem, exact, window):
    spectrum = SlepcSolver(Selection(window=window))(*problem)
    inside = np.flatnonzero((exact >= window[0]) & (exact < window[1]))
    assert spectrum.first == inside[0]
    np.testing.assert_allclose(spectrum.energies, exact[inside], atol=1e-10)
    assert spectrum.residuals.max() < 1e-7


@installed
@pytest.mark.parametrize("window", [(0.3, 0.45), (0.1, 0.3), (0.45, 0.6)])
def test_levels_at_the_edges_of_a_window_belong_to_it(problem, exact, window):
    spectrum = SlepcSolver(Selection(window=window))(*problem)
    inside = np.flatnonzero((exact >= window[0] - 1e-5) & (exact <= window[1] + 1e-5))
    assert spectrum.first == inside[0]
    np.testing.assert_allclose(spectrum.energies, exact[inside], atol=1e-10)


@installed
def test_a_window_in_a_gap_is_empty_and_still_knows_its_place(problem, exact):
    widest = np.argmax(np.diff(exact[40:80])) + 40
    middle = exact[widest : widest + 2].mean()
    spectrum = SlepcSolver(Selection(window=(middle - 1e-4, middle + 1e-4)))(*problem)
    assert not len(spectrum.energies)
    assert spectrum.first == widest + 1


@installed
@pytest.mark.parametrize(("centre", "count"), [(0.0, 20), (0.3, 3), (0.3, 5), (-1.2, 1), (0.45, 60)])
def test_the_nearest_states_are_found_even_around_a_level(problem, exact, centre, count):
    spectrum = SlepcSolver(Selection(num_bands=count, centre=centre))(*problem)
    np.testing.assert_allclose(
        np.sort(np.abs(spectrum.energies - centre)), np.sort(np.abs(exact - centre))[:count], atol=1e-10
    )
    np.testing.assert_allclose(spectrum.energies, exact[spectrum.first : spectrum.first + count], atol=1e-10)
    assert spectrum.residuals.max() < 1e-7


@installed
@pytest.mark.parametrize("energy", [-100.0, 0.0, 0.31, 100.0])
def test_states_are_counted(problem, exact, energy):
    assert slepc.count_below(*problem, energy) == (exact < energy).sum()


@installed
def test_a_real_overlap_beside_a_complex_hamiltonian():
    hamiltonian, overlap = near_degenerate(60, complex)[0], near_degenerate(60, float)[1]
    exact = eigh(hamiltonian.toarray(), overlap.toarray(), eigvals_only=True)
    spectrum = SlepcSolver(Selection(window=(-1.0, 1.0)))(hamiltonian, overlap)
    np.testing.assert_allclose(spectrum.energies, exact[(exact > -1) & (exact < 1)], atol=1e-10)


class ShiftedStates:
    """Exact eigenvectors in the real form of the problem, with energies that are off by 0.25 eV."""

    def __init__(self, energies, states, copies):
        self.energies = np.repeat(energies + 0.25, copies)
        self.states = np.repeat(states.T, copies, axis=0)

    def getConverged(self):  # noqa: N802
        return len(self.energies)

    def getEigenpair(self, number, state):  # noqa: N802
        state.setArray(self.states[number].view(float))
        return complex(self.energies[number])


@installed
def test_residual_is_that_of_the_generalised_problem(problem):
    energies, states = eigh(problem[0].toarray(), problem[1].toarray())
    with slepc._distributed(*problem) as distributed, ExitStack() as held:
        found, residuals = distributed._states(ShiftedStates(energies, states, distributed.copies), held)
    np.testing.assert_allclose(found, energies + 0.25, atol=1e-12)
    np.testing.assert_allclose(residuals, 0.25, atol=1e-10)


@installed
@pytest.mark.parametrize("smallest", [0.1 * FLOOR, -0.5])
def test_dependent_orbitals_are_refused(problem, smallest):
    hamiltonian, overlap = problem
    size = overlap.shape[0]
    diagonal = np.ones(size)
    diagonal[:2] = smallest
    low = sparse.csr_array(sparse.diags_array(diagonal))
    with pytest.raises(SolverError, match=r"S\(k\) has 2 eigenvalues below 1e-05.*shift-invert"):
        SlepcSolver(Selection(window=(0.0, 1.0)))(hamiltonian, low)


@installed
def test_an_overlap_just_above_the_floor_is_solved(problem):
    hamiltonian, overlap = problem
    diagonal = np.ones(overlap.shape[0])
    diagonal[0] = 3 * FLOOR
    overlap = sparse.csr_array(sparse.diags_array(diagonal))
    exact = eigh(hamiltonian.toarray(), overlap.toarray(), eigvals_only=True)
    spectrum = SlepcSolver(Selection(window=(0.0, 1.0)))(hamiltonian, overlap)
    np.testing.assert_allclose(spectrum.energies, exact[(exact > 0) & (exact < 1)], atol=1e-9)


@installed
def test_all_bands_take_a_dense_solver(problem):
    with pytest.raises(SolverError, match="dense solver"):
        SlepcSolver(Selection())(*problem)
    with pytest.raises(SolverError, match="too many"):
        SlepcSolver(Selection(num_bands=problem[0].shape[0]))(*problem)


@installed
def test_bands_with_spin_orbit_coupling_are_those_of_the_dense_solver(unpacked, monkeypatch):
    material = read_material(unpacked("openmx/bi_soc"))
    path, options = choose_path("auto", material.structure, 5.0), BandOptions(window=(-3.0, 3.0))
    dense = compute_bands(material, path, options)
    monkeypatch.setattr(bands, "choose_solver", lambda _, selection: SlepcSolver(selection))
    found = compute_bands(material, path, options)
    assert found.first_band == dense.first_band
    inside = np.abs(dense.energies - dense.fermi.level) < 3.0
    np.testing.assert_allclose(found.energies[inside], dense.energies[inside], atol=1e-10)


@installed
def test_an_error_of_petsc_is_told_as_ours(problem, monkeypatch):
    _, petsc = slepc.engine()
    monkeypatch.setattr(petsc.Mat.SolverType, "MUMPS", "none")
    with pytest.raises(SolverError, match=r"SLEPc failed: .*none.*docs/clusters\.md"):
        SlepcSolver(Selection(window=(0.0, 1.0)))(*problem)
