"""Eigensolvers for H(k) c = E S(k) c, behind one call: `solver(H, S) -> Spectrum`."""

from dataclasses import replace
from functools import partial

from deeph_tracegrad.errors import ConfigError
from deeph_tracegrad.inference.solvers.dense import solve_dense
from deeph_tracegrad.inference.solvers.direct import DIRECT_SOLVERS, choose_direct_solver
from deeph_tracegrad.inference.solvers.shift_invert import ShiftInvertSolver, count_below
from deeph_tracegrad.inference.solvers.slepc import SlepcSolver, engine
from deeph_tracegrad.inference.solvers.spectrum import Selection, Solver, Spectrum
from deeph_tracegrad.parallel import World, world

DENSE_LIMIT = 3000  # orbitals; beyond, a dense k-point takes minutes and its matrices gigabytes
SMALL_CELL = 1000  # orbitals; below, all bands of a k-point take about a second
SPARSE_SHARE = 20  # shift-invert pays for less than one state in this many
SOLVERS = ("dense", "shift-invert", "slepc")


def fastest_solver(num_orbitals: int, selection: Selection) -> str:
    """The name of the solver that is the fastest for these states, by `benchmarks/solve_bands.py`."""
    few = selection.num_bands is not None and selection.num_bands * SPARSE_SHARE <= num_orbitals
    large = num_orbitals > DENSE_LIMIT or (num_orbitals > SMALL_CELL and few)
    return "shift-invert" if large else "dense"


def choose_solver(
    num_orbitals: int, selection: Selection, name: str = "auto", direct: str = "auto", *, with_states: bool = False
) -> Solver:
    """The solver of this name; `auto` is the fastest one.

    direct: name of the direct solver that shift-invert takes. with_states: whether it is to give the states themselves.

    Raises:
        ConfigError: there is no solver of this name, or it is not installed.
    """
    if name not in ("auto", *SOLVERS):
        raise ConfigError(f"there is no solver {name!r}; take auto, {', '.join(SOLVERS[:-1])} or {SOLVERS[-1]}")
    direct = choose_direct_solver(direct) if direct != "auto" else direct
    if name == "auto":
        name = fastest_solver(num_orbitals, selection)
    if name == "slepc":
        engine()
        return SlepcSolver(selection)
    if name == "shift-invert":
        return ShiftInvertSolver(selection, direct, with_states)
    return partial(solve_dense, with_states=True) if with_states else solve_dense


def num_teams(solver: Solver, num_k: int) -> int:
    """Into how many teams the MPI ranks divide for so many k-points; a team must call the solver together."""
    ranks = world().size
    if isinstance(solver, SlepcSolver):
        return 1
    shares = isinstance(solver, ShiftInvertSolver) and solver.selection.window is not None
    return max(1, min(num_k, ranks)) if shares else ranks


def shared_by(solver: Solver, team: World) -> Solver:
    """The solver for the ranks of a team, among which it divides its work if it can."""
    return replace(solver, team=team) if isinstance(solver, ShiftInvertSolver) else solver


__all__ = [
    "DENSE_LIMIT",
    "DIRECT_SOLVERS",
    "SMALL_CELL",
    "SOLVERS",
    "Selection",
    "ShiftInvertSolver",
    "SlepcSolver",
    "Solver",
    "Spectrum",
    "choose_direct_solver",
    "choose_solver",
    "count_below",
    "fastest_solver",
    "num_teams",
    "shared_by",
    "solve_dense",
]
