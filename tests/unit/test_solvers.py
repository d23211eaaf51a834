import numpy as np
import pytest
from scipy import sparse
from scipy.linalg import eigh

from deeph_tracegrad.errors import SolverError
from deeph_tracegrad.inference.solvers import Selection, ShiftInvertSolver, choose_solver, solve_dense
from deeph_tracegrad.inference.solvers.spectrum import residual_norms

SIZE = 240


@pytest.fixture(scope="module")
def problem():
    """A sparse complex Hermitian pencil, with a fourfold degenerate level at the energy 0.3."""
    rng = np.random.default_rng(0)
    banded = sparse.diags_array(
        [rng.normal(size=SIZE - n) + 1j * rng.normal(size=SIZE - n) for n in range(1, 5)], offsets=range(1, 5)
    )
    hamiltonian = banded + banded.conj().T + sparse.diags_array(rng.normal(size=SIZE))
    tail = sparse.diags_array([0.1 * np.exp(0.3j) * np.ones(SIZE - 1)], offsets=[1])
    overlap = sparse.eye_array(SIZE) + tail + tail.conj().T
    degenerate = sparse.eye_array(4)
    return (
        sparse.block_diag([hamiltonian, 0.3 * degenerate], format="csr"),
        sparse.block_diag([overlap, degenerate], format="csr"),
    )


@pytest.fixture(scope="module")
def exact(problem):
    return eigh(problem[0].toarray(), problem[1].toarray(), eigvals_only=True)


def test_dense_gives_every_state_with_its_residual(problem, exact):
    spectrum = solve_dense(*problem)
    np.testing.assert_allclose(spectrum.energies, exact, atol=1e-12)
    assert spectrum.first == 0
    assert spectrum.residuals.shape == exact.shape
    assert spectrum.residuals.max() < 1e-12


def test_residual_is_that_of_the_generalised_problem(problem):
    hamiltonian, overlap = problem
    energies, states = eigh(hamiltonian.toarray(), overlap.toarray())
    off = residual_norms(hamiltonian, overlap, energies + 0.25, states)
    np.testing.assert_allclose(off, 0.25, atol=1e-10)


@pytest.mark.parametrize("window", [(-0.5, 0.7), (0.29, 0.31), (0.0, 2.0), (-1.3, -1.1)])
def test_shift_invert_finds_all_states_of_a_window_and_their_numbers(problem, exact, window):
    spectrum = ShiftInvertSolver(Selection(window=window))(*problem)
    inside = np.flatnonzero((exact >= window[0]) & (exact < window[1]))
    assert spectrum.first == inside[0]
    np.testing.assert_allclose(spectrum.energies, exact[inside], atol=1e-10)
    assert spectrum.residuals.max() < 1e-9


def test_a_window_in_a_gap_is_empty_and_still_knows_its_place(problem, exact):
    widest = np.argmax(np.diff(exact[100:140])) + 100
    middle = exact[widest : widest + 2].mean()
    spectrum = ShiftInvertSolver(Selection(window=(middle - 1e-4, middle + 1e-4)))(*problem)
    assert len(spectrum.energies) == 0
    assert spectrum.first == widest + 1


@pytest.mark.parametrize("centre", [-2.0, 0.1, 0.3])  # 0.3 is an eigenvalue: the shift has to move
def test_shift_invert_finds_the_nearest_states(problem, exact, centre):
    spectrum = ShiftInvertSolver(Selection(num_bands=12, centre=centre))(*problem)
    nearest = np.sort(exact[np.argsort(abs(exact - centre), kind="stable")[:12]])
    np.testing.assert_allclose(spectrum.energies, nearest, atol=1e-9)
    np.testing.assert_allclose(exact[spectrum.first : spectrum.first + 12], nearest, atol=1e-12)


def test_indefinite_overlap_names_its_smallest_eigenvalue(problem):
    hamiltonian, overlap = problem
    broken = (overlap - 1.5 * sparse.eye_array(SIZE + 4)).tocsr()
    with pytest.raises(SolverError, match=r"smallest eigenvalue is -\d\.\d+e[+-]\d+.*basis"):
        solve_dense(hamiltonian, broken)


def test_shift_invert_refuses_what_it_cannot_do(problem):
    with pytest.raises(SolverError, match="window or a number of bands"):
        ShiftInvertSolver(Selection())(*problem)
    with pytest.raises(SolverError, match="too many"):
        ShiftInvertSolver(Selection(num_bands=SIZE + 4))(*problem)


def test_choice_by_size_and_number_of_states():
    window, few, many = Selection(window=(-1, 1)), Selection(num_bands=20), Selection(num_bands=500)
    assert all(choose_solver(800, selection) is solve_dense for selection in (window, few, many, Selection()))
    assert isinstance(choose_solver(2000, few), ShiftInvertSolver)
    assert choose_solver(2000, many) is solve_dense
    assert isinstance(choose_solver(10_000, window), ShiftInvertSolver)
