"""What is asked of an eigensolver, and what it gives.

Shape letters: M rows of H(k), n states.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import sparse


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


def residual_norms(
    hamiltonian: sparse.csr_array,
    overlap: sparse.csr_array,
    energies: np.ndarray,
    states: np.ndarray,
    space: Projection | None = None,
) -> np.ndarray:
    """||H c - E S c|| / ||S c|| of the states (M, n), within the space where they were sought, (n,) eV."""
    image = overlap @ states
    residual = hamiltonian @ states - image * energies
    if space is not None:
        residual = space.projected(residual)
    return np.linalg.norm(residual, axis=0) / np.linalg.norm(image, axis=0)
