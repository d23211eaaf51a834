"""What is asked of an eigensolver, and what it gives.

Shape letters: M rows of H(k), n states.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import linalg, sparse

from deeph_tracegrad.inference.solvers.product import product


@dataclass(frozen=True)
class Selection:
    """The states wanted at every k; a solver may give more.

    window: lowest and highest energy, eV (absolute). num_bands: this many states, those nearest to `centre` (eV).
    Neither: all of them.
    """

    window: tuple[float, float] | None = None
    num_bands: int | None = None
    centre: float = 0.0


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Some consecutive eigenvalues of H(k) c = E S(k) c.

    energies: (n,) ascending, eV. residuals: (n,) ||H c - E S c|| / ||S c||, eV.
    first: number of states that lie below the first of them.
    states: (M, n) c, with c† S c = 1; None where the solver was not asked for them.
    """

    energies: np.ndarray
    residuals: np.ndarray
    first: int = 0
    states: np.ndarray | None = None

    def part(self, chosen: np.ndarray, first: int) -> "Spectrum":
        """The states of these places or this mask, of which so many others lie below."""
        states = None if self.states is None else self.states[:, chosen]
        return Spectrum(self.energies[chosen], self.residuals[chosen], first, states)

    def followed_by(self, above: "Spectrum") -> "Spectrum":
        """These states and those right above them."""
        energies = np.concatenate([self.energies, above.energies])
        residuals = np.concatenate([self.residuals, above.residuals])
        if self.states is None or above.states is None:
            return Spectrum(energies, residuals, self.first)
        return Spectrum(energies, residuals, self.first, np.concatenate([self.states, above.states], axis=1))


class Solver(Protocol):
    """Any eigensolver."""

    def __call__(self, hamiltonian: sparse.csr_array, overlap: sparse.csr_array) -> Spectrum:
        """Solve for the Hermitian (M, M) matrices at one k."""


class Projection(Protocol):
    """A restriction of the space in which states are sought."""

    def projected(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors (M, n) without their part outside that space."""


def rayleigh_ritz(
    hamiltonian: sparse.csr_array,
    overlap: sparse.csr_array,
    states: np.ndarray,
    first: int,
    space: Projection | None = None,
) -> Spectrum:
    """The best states within the span of some that are nearly right, (M, n); their energies are wrong by the square.

    first: number of states below them. space: where they were sought.
    """
    if not states.shape[1]:
        return Spectrum(np.empty(0), np.empty(0), first, states)
    h_states, s_states = product(hamiltonian, states), product(overlap, states)
    energies, turn = linalg.eigh(states.conj().T @ h_states, states.conj().T @ s_states)
    h_states, s_states = h_states @ turn, s_states @ turn
    return Spectrum(energies, _residual_norms(h_states, s_states, energies, space), first, states @ turn)


def residual_norms(
    hamiltonian: sparse.csr_array,
    overlap: sparse.csr_array,
    energies: np.ndarray,
    states: np.ndarray,
    space: Projection | None = None,
) -> np.ndarray:
    """||H c - E S c|| / ||S c|| of the states (M, n), within the space where they were sought, (n,) eV."""
    return _residual_norms(product(hamiltonian, states), product(overlap, states), energies, space)


def _residual_norms(
    h_states: np.ndarray, s_states: np.ndarray, energies: np.ndarray, space: Projection | None
) -> np.ndarray:
    residual = h_states - s_states * energies
    if space is not None:
        residual = space.projected(residual)
    return np.linalg.norm(residual, axis=0) / np.linalg.norm(s_states, axis=0)
