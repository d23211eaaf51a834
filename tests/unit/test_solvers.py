import numpy as np
import pytest
from scipy import sparse
from scipy.linalg import eigh, eigvalsh

from deeph_tracegrad.errors import ConfigError, SolverError
from deeph_tracegrad.inference.solvers import (
    DIRECT_SOLVERS,
    Selection,
    ShiftInvertSolver,
    choose_solver,
    count_below,
    pardiso,
    shift_invert,
    solve_dense,
)
from deeph_tracegrad.inference.solvers import direct as direct_solvers
from deeph_tracegrad.inference.solvers.conditioning import FLOOR, smallest_eigenvalue_bound
from deeph_tracegrad.inference.solvers.direct import choose_direct_solver, factorise
from deeph_tracegrad.inference.solvers.factors import RefinedFactors
from deeph_tracegrad.inference.solvers.lanczos import BLOCK, nearest_states
from deeph_tracegrad.inference.solvers.product import product
from deeph_tracegrad.inference.solvers.spectrum import residual_norms
from deeph_tracegrad.inference.solvers.superlu import SuperLuFactors
from deeph_tracegrad.inference.solvers.triangle import upper_triangle
from deeph_tracegrad.parallel import World

SIZE = 240
PLANTED = (0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.45, 0.45 + 1e-9, 0.45 + 2e-6)  # more copies than a block, and near ones


@pytest.fixture(params=[(name, precision) for name in DIRECT_SOLVERS for precision in ("double", "single")])
def direct(request, monkeypatch):
    """The name of a direct solver; its factors are of either precision, whatever the size."""
    name, precision = request.param
    if name == "pardiso" and pardiso.library() is None:
        pytest.skip("MKL is not installed")
    monkeypatch.setattr(direct_solvers, "SINGLE_FROM", 0 if precision == "single" else 10**9)
    return name


@pytest.fixture
def small(direct):
    """What a residual may be, of energies that are wrong by its square."""
    return 1e-9 if direct_solvers.SINGLE_FROM else 1e-4


@pytest.fixture(scope="module", params=[complex, float])
def problem(request):
    """A sparse Hermitian pencil, with degenerate and nearly degenerate levels."""
    rng = np.random.default_rng(0)
    turn = 1j if request.param is complex else 0
    banded = sparse.diags_array(
        [rng.normal(size=SIZE - n) + turn * rng.normal(size=SIZE - n) for n in range(1, 5)], offsets=range(1, 5)
    )
    hamiltonian = banded + banded.conj().T + sparse.diags_array(rng.normal(size=SIZE))
    tail = sparse.diags_array([0.1 * np.exp(0.3 * turn) * np.ones(SIZE - 1)], offsets=[1])
    overlap = sparse.eye_array(SIZE) + tail + tail.conj().T
    planted = sparse.diags_array(np.array(PLANTED))
    return (
        sparse.block_diag([hamiltonian, planted], format="csr"),
        sparse.block_diag([overlap, sparse.eye_array(len(PLANTED))], format="csr"),
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


def test_residual_of_a_single_state(problem, exact):
    hamiltonian, overlap = (matrix.toarray() for matrix in problem)
    energies, states = eigh(hamiltonian, overlap)
    assert residual_norms(*problem, energies[:1], states[:, :1])[0] < 1e-12


@pytest.mark.parametrize("window", [(-0.5, 0.7), (0.29, 0.31), (0.0, 2.0), (-1.3, -1.1)])
def test_shift_invert_finds_all_states_of_a_window_and_their_numbers(problem, exact, window, direct, small):
    spectrum = ShiftInvertSolver(Selection(window=window), direct)(*problem)
    inside = np.flatnonzero((exact >= window[0]) & (exact < window[1]))
    assert spectrum.first == inside[0]
    np.testing.assert_allclose(spectrum.energies, exact[inside], atol=1e-10)
    assert spectrum.residuals.max() < small


@pytest.mark.parametrize("window", [(0.3, 0.45), (0.1, 0.3), (0.45, 0.6)])
def test_levels_at_the_edges_of_a_window_belong_to_it(problem, exact, window, direct):
    spectrum = ShiftInvertSolver(Selection(window=window), direct)(*problem)
    inside = np.flatnonzero((exact >= window[0] - 1e-5) & (exact <= window[1] + 1e-5))
    assert spectrum.first == inside[0]
    np.testing.assert_allclose(spectrum.energies, exact[inside], atol=1e-10)


def test_a_window_with_more_states_than_one_shift_yields_is_cut(problem, exact, direct, monkeypatch):
    monkeypatch.setattr(shift_invert, "MOST_VECTORS", 40)
    shifts = []

    def counted(*arguments, **options):
        shifts.append(arguments[2])
        return factorise(*arguments, **options)

    monkeypatch.setattr(shift_invert, "factorise", counted)
    spectrum = ShiftInvertSolver(Selection(window=(-1.0, 1.0)), direct)(*problem)
    inside = np.flatnonzero((exact >= -1.0) & (exact < 1.0))
    np.testing.assert_allclose(spectrum.energies, exact[inside], atol=1e-10)
    assert spectrum.first == inside[0]
    assert len(set(shifts)) == len(shifts) > 3  # each is factorised once


@pytest.mark.parametrize(
    ("selection", "vectors"),
    [
        (Selection(window=(-0.5, 0.7)), 400),
        (Selection(window=(-1.0, 1.0)), 40),  # cut, so that its states come from many shifts
        (Selection(num_bands=12, centre=0.44), 400),
    ],
)
def test_states_belong_to_their_energies(problem, direct, small, selection, vectors, monkeypatch):
    """Each solves the problem with its own energy; orthonormal in S, so that copies of a level are not the same."""
    monkeypatch.setattr(shift_invert, "MOST_VECTORS", vectors)
    hamiltonian, overlap = problem
    found = ShiftInvertSolver(selection, direct, with_states=True)(hamiltonian, overlap)
    image = overlap @ found.states
    np.testing.assert_allclose(hamiltonian @ found.states, image * found.energies, atol=10 * small)
    np.testing.assert_allclose(found.states.conj().T @ image, np.eye(len(found.energies)), atol=10 * small)
    assert ShiftInvertSolver(selection, direct)(hamiltonian, overlap).states is None


def test_states_that_stay_missing_end_the_search(problem, direct, monkeypatch):
    monkeypatch.setattr(shift_invert, "MOST_VECTORS", 4)
    monkeypatch.setattr(shift_invert, "MOST_CUTS", 2)
    with pytest.raises(SolverError, match=r"states lie between .* but \d+ were found"):
        ShiftInvertSolver(Selection(window=(-1.0, 1.0)), direct)(*problem)


def test_a_window_in_a_gap_is_empty_and_still_knows_its_place(problem, exact, direct):
    widest = np.argmax(np.diff(exact[100:140])) + 100
    middle = exact[widest : widest + 2].mean()
    spectrum = ShiftInvertSolver(Selection(window=(middle - 1e-4, middle + 1e-4)), direct)(*problem)
    assert len(spectrum.energies) == 0
    assert spectrum.first == widest + 1


@pytest.mark.parametrize("centre", [-2.0, 0.1, 0.3])  # 0.3 is an eigenvalue: the shift has to move
def test_shift_invert_finds_the_nearest_states(problem, exact, centre, direct):
    spectrum = ShiftInvertSolver(Selection(num_bands=12, centre=centre), direct)(*problem)
    nearest = np.sort(exact[np.argsort(abs(exact - centre), kind="stable")[:12]])
    np.testing.assert_allclose(spectrum.energies, nearest, atol=1e-9)
    np.testing.assert_allclose(exact[spectrum.first : spectrum.first + 12], nearest, atol=1e-12)


@pytest.mark.parametrize("energy", [-2.0, 0.1, 0.2999, 1.0])
def test_count_of_states_below_an_energy(problem, exact, energy, direct):
    assert count_below(*problem, energy, direct) == (exact < energy).sum()


@pytest.mark.parametrize("dtype", [float, complex])
def test_inertia_with_many_large_pivots(dtype, direct):
    """Of a dense indefinite matrix, which needs pivots of two rows; SuperLU without exchanges may refuse it."""
    rng = np.random.default_rng(1)
    matrix = rng.normal(size=(300, 300)) + (1j * rng.normal(size=(300, 300)) if dtype is complex else 0)
    matrix = sparse.csr_array((matrix + matrix.conj().T).astype(dtype))
    identity = sparse.eye_array(300, dtype=dtype, format="csr")
    for shift in (-10.0, 0.0, 12.0):
        factors = factorise(matrix, identity, shift, direct=direct)
        assert factors.states_below == (eigvalsh(matrix.toarray()) < shift).sum()
        right = rng.normal(size=(300, 5)).astype(dtype)
        rest = (matrix - shift * identity) @ factors.solve(right) - right
        assert np.linalg.norm(rest) < 1e-6 * np.linalg.norm(right)


@pytest.mark.parametrize("vectors", [None, 1, 4, 7])
@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_product_with_vectors(problem, vectors, index):
    matrix = problem[1].copy()
    matrix.indices, matrix.indptr = matrix.indices.astype(index), matrix.indptr.astype(index)
    rng = np.random.default_rng(5)
    for dtype in (np.float64, np.complex128, np.float32):
        right = rng.normal(size=matrix.shape[1] if vectors is None else (matrix.shape[1], vectors)).astype(dtype)
        right = right + (1j * right[::-1] if dtype is np.complex128 else 0)
        for layout in (right, np.asfortranarray(right), np.repeat(right, 2, axis=0)[::2]):
            expected = matrix.toarray() @ right
            np.testing.assert_allclose(product(matrix, layout), expected, rtol=1e-14, atol=1e-14)
            single = matrix.astype(np.complex64 if np.iscomplexobj(matrix.data) else np.float32)
            rounded = layout.astype(np.complex64 if np.iscomplexobj(layout) else np.float32)
            found = product(single, rounded)
            assert found.dtype == np.result_type(single, rounded)
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("whole_diagonal", [True, False])
@pytest.mark.parametrize("in_order", [True, False])
def test_the_upper_triangle_has_the_whole_diagonal_and_its_columns_in_order(whole_diagonal, in_order):
    rng = np.random.default_rng(1)
    stored = rng.random((30, 30)) < 0.2
    np.fill_diagonal(stored, whole_diagonal)
    stored[4] = False  # but for the diagonal, a row without entries
    stored[4, 4] = whole_diagonal
    matrix = sparse.csr_array(np.where(stored, rng.normal(size=(30, 30)) + 1j, 0))
    expected = np.triu(matrix.toarray())
    if not in_order:
        for start, end in zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True):
            matrix.indices[start:end], matrix.data[start:end] = (
                matrix.indices[start:end][::-1].copy(),
                matrix.data[start:end][::-1].copy(),
            )
        matrix.has_sorted_indices = False
    upper = upper_triangle(matrix)
    np.testing.assert_array_equal(upper.toarray(), expected)
    assert upper.nnz == np.triu(stored, 1).sum() + 30
    assert (upper.indices[upper.indptr[:-1]] == np.arange(30)).all()
    assert upper.has_canonical_format


@pytest.mark.parametrize(("width", "shifts"), [(1.5, 7), (0.0017, 2), (0.0025, 3), (1e-5, 2)])
def test_a_team_takes_no_more_shifts_than_a_window_has_room_for(width, shifts, problem, exact, monkeypatch):
    """One rank does the work of all."""

    class Team(World):
        def share(self, items):
            return items

        def mapped(self, function, items):
            return [function(item) for item in items]

    taken = []
    monkeypatch.setattr(
        shift_invert,
        "factorise",
        lambda *matrices, **options: taken.append(matrices[2]) or factorise(*matrices, **options),
    )
    low = -0.2004
    solver = ShiftInvertSolver(Selection(window=(low, low + width)), "superlu", team=Team(size=7))
    spectrum = solver(*problem)
    inside = exact[(exact > low) & (exact < low + width)]
    np.testing.assert_allclose(spectrum.energies, inside, rtol=0, atol=1e-9)
    assert len(taken) >= shifts
    assert taken[:shifts] == pytest.approx(np.linspace(low, low + width, shifts).tolist())


def test_factors_too_coarse_to_tell_on_which_side_a_state_lies_are_refused():
    rng = np.random.default_rng(3)
    matrix = rng.normal(size=(60, 60))
    energies, states = np.linalg.eigh(matrix + matrix.T)
    for distance, refused in [(1e-9, True), (1e-2, False)]:
        shifted = sparse.csr_array(states @ np.diag(energies - energies[30] + distance) @ states.T)
        rounded = SuperLuFactors(shifted.astype(np.float32).tocsc())
        if refused:
            with pytest.raises(ArithmeticError, match="too coarse"):
                RefinedFactors(rounded, shifted)
            continue
        factors = RefinedFactors(rounded, shifted)
        right = rng.normal(size=(60, 3))
        rest = shifted @ factors.solve(right) - right
        assert np.linalg.norm(rest) < 1e-6 * np.linalg.norm(right)
        assert factors.negative == 30


def test_lanczos_finds_more_copies_of_a_level_than_a_block_has_vectors():
    levels = np.repeat([1.0, 2.0, 3.0], [3 * BLOCK, BLOCK + 1, 2])
    identity = sparse.eye_array(len(levels), format="csr")
    energies, states = nearest_states(
        lambda right: right / levels[:, None],
        identity,
        0.0,
        lambda found: len(found) == len(levels),
        1000,
        levels.dtype,
    )
    np.testing.assert_allclose(energies, levels, atol=1e-12)
    np.testing.assert_allclose(states.T @ states, np.eye(len(levels)), atol=1e-10)


def nearly_dependent(problem, smallest):
    """The pencil with an orbital more, of which only a part this small, squared, is not in the others'."""
    size = problem[0].shape[0]
    mixing = sparse.lil_array((size, size + 1), dtype=problem[0].dtype)
    mixing[np.arange(size), np.arange(size)] = 1
    mixing[[3, 7], [size, size]] = np.sqrt(0.5)
    hamiltonian, overlap = (mixing.conj().T @ matrix @ mixing for matrix in problem)
    extra = sparse.coo_array(([smallest], ([size], [size])), shape=overlap.shape)
    return (hamiltonian + 40.0 * extra).tocsr(), (overlap + extra).tocsr()


@pytest.mark.parametrize("window", [(-0.5, 0.7), (1.5, 2.5)])
def test_nearly_dependent_orbitals_are_projected_out_and_named(problem, window, direct, small, capsys):
    hamiltonian, overlap = nearly_dependent(problem, 1e-8)
    values, directions = np.linalg.eigh(overlap.toarray())
    kept = directions[:, values > FLOOR] / np.sqrt(values[values > FLOOR])
    expected = eigvalsh(kept.conj().T @ hamiltonian.toarray() @ kept)
    dense = solve_dense(hamiltonian, overlap)
    assert "smallest eigenvalue" in capsys.readouterr().err
    np.testing.assert_allclose(dense.energies, expected, atol=1e-9)
    assert dense.residuals.max() < 1e-9
    found = ShiftInvertSolver(Selection(window=window), direct)(hamiltonian, overlap)
    assert "projected out" in capsys.readouterr().err
    inside = np.flatnonzero((expected >= window[0]) & (expected < window[1]))
    assert found.first == inside[0]
    np.testing.assert_allclose(found.energies, expected[inside], atol=1e-9)
    assert found.residuals.max() < 10 * small


def test_bound_of_the_smallest_eigenvalue(problem):
    smallest = eigvalsh(problem[1].toarray())[0]
    assert smallest - 1e-12 <= smallest_eigenvalue_bound(problem[1]) < 1.05 * smallest


def test_indefinite_overlap_names_its_smallest_eigenvalue(problem, direct):
    hamiltonian, overlap = problem
    broken = (overlap - 0.81 * sparse.eye_array(overlap.shape[0])).tocsr()
    for solver in (solve_dense, ShiftInvertSolver(Selection(num_bands=3), direct)):
        with pytest.raises(SolverError, match=r"smallest eigenvalue is -\d\.\d+e[+-]\d+.*basis"):
            solver(hamiltonian, broken)


def test_shift_invert_refuses_what_it_cannot_do(problem):
    with pytest.raises(SolverError, match="window or a number of bands"):
        ShiftInvertSolver(Selection())(*problem)
    with pytest.raises(SolverError, match="too many"):
        ShiftInvertSolver(Selection(num_bands=SIZE + len(PLANTED)))(*problem)


def test_choice_by_size_and_number_of_states():
    window, few, many = Selection(window=(-1, 1)), Selection(num_bands=20), Selection(num_bands=500)
    assert all(choose_solver(800, selection) is solve_dense for selection in (window, few, many, Selection()))
    assert isinstance(choose_solver(2000, few), ShiftInvertSolver)
    assert choose_solver(2000, many) is solve_dense
    assert isinstance(choose_solver(10_000, window), ShiftInvertSolver)


def test_solvers_by_name(monkeypatch):
    assert choose_solver(10_000, Selection(), "dense") is solve_dense
    assert choose_solver(10, Selection(num_bands=1), "shift-invert", "superlu").direct == "superlu"
    with pytest.raises(ConfigError, match="no solver 'fast'"):
        choose_solver(10, Selection(), "fast")
    with pytest.raises(ConfigError, match="no direct solver 'lu'"):
        choose_solver(10, Selection(), direct="lu")
    monkeypatch.setattr(pardiso, "library", lambda: None)
    assert choose_direct_solver() == "superlu"
    with pytest.raises(ConfigError, match=r"deeph-tracegrad\[mkl\]"):
        choose_direct_solver("pardiso")
