"""Eigensolvers for H(k) c = E S(k) c, behind one call: `solver(H, S) -> Spectrum`."""

from deeph_tracegrad.inference.solvers.dense import solve_dense
from deeph_tracegrad.inference.solvers.shift_invert import ShiftInvertSolver
from deeph_tracegrad.inference.solvers.spectrum import Selection, Solver, Spectrum

DENSE_LIMIT = 3000  # orbitals; beyond, a dense k-point takes minutes and its matrices gigabytes
SMALL_CELL = 1000  # orbitals; below, all bands of a k-point take about a second
SPARSE_SHARE = 20  # shift-invert pays for less than one state in this many


def choose_solver(num_orbitals: int, selection: Selection) -> Solver:
    """The solver that is fastest for a cell of this size and these states, by `benchmarks/solve_bands.py`."""
    few = selection.num_bands is not None and selection.num_bands * SPARSE_SHARE <= num_orbitals
    if num_orbitals > DENSE_LIMIT or (num_orbitals > SMALL_CELL and few):
        return ShiftInvertSolver(selection)
    return solve_dense


__all__ = [
    "DENSE_LIMIT",
    "SMALL_CELL",
    "Selection",
    "ShiftInvertSolver",
    "Solver",
    "Spectrum",
    "choose_solver",
    "solve_dense",
]
