"""The window around the Fermi level that a cell too large for all its bands gets where the user names none."""

import math

import numpy as np

from deeph_tracegrad.inference.bloch import BlochOperators
from deeph_tracegrad.inference.kpoints import over_k_points
from deeph_tracegrad.inference.solvers import SMALL_CELL, Selection, choose_solver, num_teams

WINDOW_STATES = 40  # of ±1 eV in graphene twisted by 3°, of ±0.35 eV at 1°; their Lanczos vectors cost less than L D L†
SMALLEST = 1e-3  # eV
GAMMA = np.zeros((1, 3))  # where matrices are real, so that a factorisation takes a quarter of the time


def half_width(operators: BlochOperators, level: float, solver_name: str, direct: str) -> float:
    """How far, in eV, the 40 states nearest to a level at Γ lie from it, rounded up to two digits.

    Raises:
        SolverError: the eigenproblem at Γ cannot be solved.
    """
    name = "dense" if operators.num_orbitals <= SMALL_CELL else solver_name
    selection = Selection(num_bands=WINDOW_STATES, centre=level)
    solver = choose_solver(operators.num_orbitals, selection, name, direct)

    def solve(k: np.ndarray) -> float:
        overlap = operators.overlap.at_k(k)
        energies = [solver(channel.at_k(k), overlap).energies for channel in operators.hamiltonian]
        return max(float(np.sort(np.abs(one - level))[:WINDOW_STATES][-1]) for one in energies)

    teams = num_teams(solver, len(GAMMA))
    (width,) = over_k_points(solve, GAMMA, operators.num_orbitals, "window", teams=teams)
    width = max(width, SMALLEST)
    digits = 1 - math.floor(math.log10(width))
    return math.ceil(width * 10**digits) / 10**digits
