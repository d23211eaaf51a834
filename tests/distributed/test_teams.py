"""k-points, and the shifts of one, shared by the ranks of teams."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.linalg import eigh

from launching import MPIRUN, TORCHRUN, finish, mpirun, start, torchrun
from pencils import near_degenerate

TESTS = Path(__file__).parents[1]
SIZE, WINDOW = 150, (-0.6, 0.9)

IMPORTS = """
import json, sys
import numpy as np
from deeph_tracegrad.inference.kpoints import over_k_points
from deeph_tracegrad.inference.solvers import Selection, ShiftInvertSolver, num_teams, shared_by, shift_invert
from deeph_tracegrad.parallel import team, world
from pencils import near_degenerate
"""

POINTS = (
    IMPORTS
    + """
teams, points = map(int, sys.argv[1:])
def solve(k):
    return [float(k[0]), sum(team(teams).gather(1)), team(teams).rank]
found = over_k_points(solve, np.arange(3.0 * points).reshape(points, 3), 10, "test", teams=teams)
for rank, told in enumerate(world().gather(found)):
    if world().is_main and rank in (0, world().size - 1):
        print(json.dumps(told))
"""
)

WINDOWS = (
    IMPORTS
    + f"""
solver = ShiftInvertSolver(Selection(window={WINDOW}), "superlu")
teams = num_teams(solver, 1)
alone = num_teams(ShiftInvertSolver(Selection(num_bands=3)), 1)
solver = shared_by(solver, team(teams))
shifts = []
factorise = shift_invert.factorise
def counted(hamiltonian, overlap, shift, **options):
    shifts.append(shift)
    return factorise(hamiltonian, overlap, shift, **options)
shift_invert.factorise = counted
told = []
for kind in (float, complex):
    pencil = near_degenerate({SIZE}, kind)
    (spectrum,) = over_k_points(lambda k: solver(*pencil), np.zeros((1, 3)), {SIZE}, "test", teams=teams)
    told.append([spectrum.first, spectrum.energies.tolist(), float(spectrum.residuals.max())])
shifts = world().gather(shifts)
if world().is_main:
    print(json.dumps([teams, alone, told, shifts]))
"""
)

pytestmark = [pytest.mark.mpi, pytest.mark.skipif(not MPIRUN.exists(), reason="needs mpirun beside the interpreter")]


def told_by(launcher, program, *arguments):
    path = os.pathsep.join([str(TESTS), *sys.path])
    done = finish(start(launcher, *arguments, program=(sys.executable, "-c", program), PYTHONPATH=path))
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]


@pytest.mark.parametrize(
    ("ranks", "teams", "sizes"), [(3, 1, [3]), (3, 2, [2, 1]), (4, 3, [2, 1, 1]), (3, 3, [1, 1, 1])]
)
def test_every_rank_gets_the_results_of_all_teams(ranks, teams, sizes):
    points = 5
    expected = [[3.0 * k, sizes[k % teams], 0] for k in range(points)]
    assert told_by(mpirun(ranks), POINTS, teams, points) == [expected, expected]


@pytest.mark.skipif(not TORCHRUN.exists(), reason="needs torchrun beside the interpreter")
def test_teams_under_torchrun():
    assert told_by(torchrun(3), POINTS, 2, 2) == 2 * [[[0.0, 2, 0], [3.0, 1, 0]]]


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_share_the_shifts_of_a_window(ranks):
    """All its states, near-degenerate ones too, with their numbers; no shift is factorised by two ranks."""
    ((teams, alone, told, shifts),) = told_by(mpirun(ranks), WINDOWS)
    assert (teams, alone) == (1, ranks)
    for (first, energies, residual), kind in zip(told, (float, complex), strict=True):
        hamiltonian, overlap = (matrix.toarray() for matrix in near_degenerate(SIZE, kind))
        exact = eigh(hamiltonian, overlap, eigvals_only=True)
        assert first == (exact < WINDOW[0]).sum()
        np.testing.assert_allclose(energies, exact[(exact > WINDOW[0]) & (exact < WINDOW[1])], rtol=0, atol=1e-10)
        assert residual < 1e-7
    everywhere = [(shift, rank) for rank, mine in enumerate(shifts) for shift in set(mine)]
    assert len(everywhere) == len({shift for shift, _ in everywhere})
    assert all(mine for mine in shifts)
