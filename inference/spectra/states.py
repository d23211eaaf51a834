"""Eigenstates with their coefficients.

Shape letters: M rows of H(k), n states.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from deeph_tracegrad.inference.bloch import BlochOperators
from deeph_tracegrad.inference.solvers import Selection, choose_solver

ALL_STATES = Selection()


@dataclass(frozen=True, eq=False)
class States:
    """Consecutive states at one k, of one spin channel.

    energies: (n,) ascending, eV. coefficients: (M, n), c† S c = 1. image: (M, n), S c.
    first: number of states that lie below the first of them.
    """

    energies: np.ndarray
    coefficients: np.ndarray
    image: np.ndarray
    first: int = 0

    @classmethod
    def of(cls, hamiltonian: sparse.csr_array, overlap: sparse.csr_array, selection: Selection) -> "States":
        """At least the selected states of the Hermitian (M, M) matrices at one k.

        Raises:
            SolverError: S(k) is not positive definite, or shift-invert fails.
        """
        spectrum = choose_solver(overlap.shape[0], selection, with_states=True)(hamiltonian, overlap)
        if spectrum.states is None:
            raise RuntimeError("a solver that was asked for states gave none")
        return cls(spectrum.energies, spectrum.states, overlap @ spectrum.states, spectrum.first)

    @cached_property
    def populations(self) -> np.ndarray:
        """Mulliken's share of each row in each state, Re c* (S c), (M, n); 1 in sum over the rows.

        R. S. Mulliken, J. Chem. Phys. 23, 1833 (1955).
        """
        return (self.coefficients.conj() * self.image).real


def states_at_k(operators: BlochOperators, k: np.ndarray, selection: Selection = ALL_STATES) -> list[States]:
    """At least the selected states at k (3,), one set for each spin channel.

    Raises:
        SolverError: as States.of.
    """
    overlap = operators.overlap.at_k(k)
    return [States.of(channel.at_k(k), overlap, selection) for channel in operators.hamiltonian]


def in_columns(values: np.ndarray, first: int, columns: range) -> np.ndarray:
    """Values (n, ...) of states from number `first` on, in columns for states of these numbers; NaN where none is."""
    result = np.full((len(columns), *values.shape[1:]), np.nan)
    place = first - columns.start + np.arange(len(values))
    inside = (place >= 0) & (place < len(columns))
    result[place[inside]] = values[inside]
    return result
