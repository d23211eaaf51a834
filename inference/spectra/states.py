"""Eigenstates with their coefficients.

Shape letters: M rows of H(k), n states.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import linalg, sparse

from deeph_tracegrad.errors import SolverError
from deeph_tracegrad.inference.bloch import BlochOperators
from deeph_tracegrad.inference.solvers import DENSE_LIMIT


@dataclass(frozen=True, eq=False)
class States:
    """All states at one k, of one spin channel.

    energies: (n,) ascending, eV. coefficients: (M, n), c† S c = 1. image: (M, n), S c.
    """

    energies: np.ndarray
    coefficients: np.ndarray
    image: np.ndarray

    @cached_property
    def populations(self) -> np.ndarray:
        """Mulliken's share of each row in each state, Re c* (S c), (M, n); 1 in sum over the rows.

        R. S. Mulliken, J. Chem. Phys. 23, 1833 (1955).
        """
        return (self.coefficients.conj() * self.image).real


def states_at_k(operators: BlochOperators, k: np.ndarray) -> list[States]:
    """The states at k (3,), one set for each spin channel.

    Raises:
        SolverError: the cell has too many orbitals for dense matrices, or S(k) is not positive definite.
    """
    if operators.num_orbitals > DENSE_LIMIT:
        raise SolverError(
            f"the states of {operators.num_orbitals:,} orbitals with their coefficients are needed; "
            f"up to {DENSE_LIMIT:,} are solved"
        )
    overlap = operators.overlap.at_k(k)
    return [_states(channel.at_k(k), overlap) for channel in operators.hamiltonian]


def _states(hamiltonian: sparse.csr_array, overlap: sparse.csr_array) -> States:
    try:
        energies, coefficients = linalg.eigh(
            hamiltonian.toarray(order="F"), overlap.toarray(order="F"), overwrite_a=True, overwrite_b=True
        )
    except np.linalg.LinAlgError:
        raise SolverError(
            "S(k) is not positive definite; check that the overlap belongs to this structure and basis"
        ) from None
    return States(energies, coefficients, overlap @ coefficients)
