"""One k-point on several ranks together, through the mpirun of the MPI that SLEPc was built with."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.linalg import eigh

from pencils import near_degenerate

TESTS = Path(__file__).parents[1]
BESIDE = Path(sys.executable).parent / "mpirun"
MPIRUN = str(BESIDE) if BESIDE.exists() else shutil.which("mpirun")
SIZE = 60

IMPORTS = """
import json
import numpy as np
from pencils import near_degenerate
from deeph_tracegrad.errors import TracegradError
from deeph_tracegrad.inference.kpoints import over_k_points
from deeph_tracegrad.inference.solvers import Selection, SlepcSolver, slepc
from deeph_tracegrad.parallel import world
"""

TOGETHER = """
seen = []
found = over_k_points(lambda k: seen.append(k[0]) or 2 * k[0], np.arange(15.0).reshape(5, 3), 10, "test", teams=1)
told = world().gather([float(value) for value in [*seen, *found]])
"""

ENGINE = """
try:
    slepc.engine()
    told = [world().size]
except TracegradError as error:
    told = str(error)
"""

SOLVE = f"""
told = []
for kind in (float, complex):
    pencil = near_degenerate({SIZE}, kind)
    window = SlepcSolver(Selection(window=(0.2, 0.6)))
    nearest = SlepcSolver(Selection(num_bands=7, centre=0.4))
    for spectrum in over_k_points(lambda number: (window, nearest)[int(number[0])](*pencil), np.array([[0], [1]]),
                                  {SIZE}, "test", teams=1):
        told.append([spectrum.first, spectrum.energies.tolist(), spectrum.residuals.max()])
    told.append(slepc.count_below(*pencil, 0.5))
"""

SAY = """
if world().rank == 0:
    print(json.dumps(told))
"""

pytestmark = [pytest.mark.mpi, pytest.mark.skipif(MPIRUN is None, reason="needs mpirun")]


def on_ranks(ranks, work):
    """What rank 0 tells after some work, or a test that fails or is skipped."""
    done = subprocess.run(
        [MPIRUN, "-n", str(ranks), sys.executable, "-c", IMPORTS + work + SAY],
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path]),
            "OMPI_ALLOW_RUN_AS_ROOT": "1",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
            "OMPI_MCA_rmaps_base_oversubscribe": "1",
            "OMPI_MCA_hwloc_base_binding_policy": "none",  # a rank bound to a busy core waits for minutes
            "OMPI_MCA_mpi_yield_when_idle": "1",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def engine():
    """Skips where SLEPc is missing, or where its ranks do not find each other."""
    told = on_ranks(2, ENGINE)
    if isinstance(told, str):
        pytest.skip(told)
    assert told == [2]


def test_ranks_that_work_together_each_solve_every_k():
    k = [0.0, 3.0, 6.0, 9.0, 12.0]
    assert on_ranks(2, TOGETHER) == [[*k, *(2 * value for value in k)]] * 2


@pytest.mark.parametrize("ranks", [2, 3])
def test_any_number_of_ranks_finds_the_states_of_one(engine, ranks):
    told = iter(on_ranks(ranks, SOLVE))
    for kind in (float, complex):
        hamiltonian, overlap = near_degenerate(SIZE, kind)
        exact = eigh(hamiltonian.toarray(), overlap.toarray(), eigvals_only=True)
        inside = np.flatnonzero((exact > 0.2) & (exact < 0.6))
        nearest = np.sort(np.argsort(np.abs(exact - 0.4))[:7])
        for wanted in (inside, nearest):
            first, energies, residual = next(told)
            assert first == wanted[0]
            np.testing.assert_allclose(energies, exact[wanted], atol=1e-10)
            assert residual < 1e-7
        assert next(told) == (exact < 0.5).sum()
