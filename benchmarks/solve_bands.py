"""What one k-point costs: the Bloch sum, the dense solver and shift-invert, in supercells of graphene.

    OMP_NUM_THREADS=1 python benchmarks/solve_bands.py [SIZE ...]

SIZE: cells along each lattice vector; by default 5 and 8. The structure and matrices are those of the OpenMX fixture,
repeated. Shift-invert finds the 20 states nearest to the Fermi level. The ratio is of dense with eigenvectors, which
residuals need, to shift-invert; `choose_solver` rests on it.
"""

import sys
import time
from collections.abc import Callable

import numpy as np
from _fixtures import read_fixture

from deeph_tracegrad.inference.bloch import bloch_operators
from deeph_tracegrad.inference.solvers import Selection, ShiftInvertSolver, solve_dense
from deeph_tracegrad.inference.solvers.dense import dense_energies
from deeph_tracegrad.testing import repeated

K_POINT = np.array([0.13, 0.27, 0.0])
STATES = 20


def main() -> None:
    sizes = [int(size) for size in sys.argv[1:]] or [5, 8]
    primitive = read_fixture("graphene")
    print(
        f"{'atoms':>6} {'orbitals':>9} {'sum':>8} {'dense, values':>14} {'dense':>8} {'shift-invert':>13} {'ratio':>6}"
    )
    for size in sizes:
        material = repeated(primitive, (size, size, 1))
        operators = bloch_operators(material)
        (hamiltonian,) = operators.hamiltonian
        h, s = hamiltonian.at_k(K_POINT), operators.overlap.at_k(K_POINT)
        sparse = ShiftInvertSolver(Selection(num_bands=STATES, centre=primitive.fermi_level))
        bloch = seconds(lambda operator=hamiltonian: operator.at_k(K_POINT))
        values = seconds(lambda h=h, s=s: dense_energies(h, s))
        dense = seconds(lambda h=h, s=s: solve_dense(h, s))
        inverse = seconds(lambda h=h, s=s, solver=sparse: solver(h, s))
        print(
            f"{len(material.structure):6} {operators.num_orbitals:9} {bloch:7.4f}s {values:13.2f}s {dense:7.2f}s "
            f"{inverse:12.2f}s {dense / inverse:5.1f}x"
        )


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
