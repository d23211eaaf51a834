"""20 states near the Fermi level at one k of twisted bilayer graphene by SLEPc, on the ranks of mpirun together.

    OMP_NUM_THREADS=1 mpirun -n N python benchmarks/solve_on_ranks.py [--twist M N] [--gamma]

By default 508 atoms. Of each rank: processor time, and the peak of its memory before and after the solver.
"""

import argparse
import resource
import time

import numpy as np
from _bilayer import twisted_graphene
from solve_large import GAMMA, GENERAL, LEVEL, STATES

from deeph_tracegrad.console import say
from deeph_tracegrad.inference.bloch import bloch_operators
from deeph_tracegrad.inference.solvers import Selection, choose_solver
from deeph_tracegrad.parallel import world


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--twist", type=int, nargs=2, default=(6, 7), metavar=("M", "N"))
    parser.add_argument("--gamma", action="store_true", help="at Γ, where H is real")
    arguments = parser.parse_args()

    operators = bloch_operators(twisted_graphene(*arguments.twist))
    k = np.array(GAMMA if arguments.gamma else GENERAL)
    hamiltonian, overlap = operators.hamiltonian[0].at_k(k), operators.overlap.at_k(k)
    solver = choose_solver(operators.num_orbitals, Selection(num_bands=STATES, centre=LEVEL), "slepc")
    before, wall, processor = peak(), time.perf_counter(), time.process_time()
    spectrum = solver(hamiltonian, overlap)
    wall = time.perf_counter() - wall
    ranks = world().gather((time.process_time() - processor, before, peak()))
    say(f"{operators.num_orbitals} orbitals, states from {spectrum.first + 1} on, {wall:.1f} s")
    say(f"residual {spectrum.residuals.max():.1e} eV at most")
    for number, (seconds, first, last) in enumerate(ranks):
        say(f"rank {number}: {seconds:.1f} s of processor time, {first:.2f} GB before, {last:.2f} GB at most")


def peak() -> float:
    """GB that this process held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    main()
