"""Counting states below energies: by the states of a k-mesh, or by kernel polynomials.

Shape letters: K k-points, n bands, s spin channels, P groups of orbitals, L levels, G intervals between
levels, V random vectors, m moments.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeVar

import numpy as np

from deeph_tracegrad.errors import SolverError
from deeph_tracegrad.inference.bloch import BlochOperators
from deeph_tracegrad.inference.kpoints import mesh_points, over_k_points
from deeph_tracegrad.inference.solvers import DENSE_LIMIT
from deeph_tracegrad.inference.spectra.kernel_polynomials import (
    Bounds,
    FactorisedOverlap,
    chebyshev_moments,
    moments_needed,
    random_vectors,
    states_below,
)
from deeph_tracegrad.inference.spectra.projections import OrbitalGroups
from deeph_tracegrad.inference.spectra.smearing import smeared_states_below
from deeph_tracegrad.inference.spectra.states import states_at_k
from deeph_tracegrad.inference.spectra.tetrahedra import Tetrahedra

Result = TypeVar("Result")


class StateCount(Protocol):
    """States below energies, by group of orbitals; a state that stands for both spins counts once."""

    def below(self, levels: np.ndarray) -> np.ndarray:
        """What each group has of the states below each level (L,) eV, ascending: (s, P, L)."""

    def occupied(self, level: float) -> np.ndarray:
        """What each group has of all states below one level: (s, P)."""

    def density_errors(self, edges: np.ndarray) -> np.ndarray | None:
        """Standard errors of the mean density between edges (G+1,), (s, 1+P, G) 1/eV: of the total, of each group.

        None where nothing is random.
        """


@dataclass(frozen=True, eq=False)
class Sampled:
    """What is counted: H and S on a Γ-centred mesh, and the groups whose shares in states are told apart."""

    operators: BlochOperators
    groups: OrbitalGroups
    divisions: tuple[int, int, int]

    @cached_property
    def points(self) -> tuple[np.ndarray, np.ndarray]:
        """K (K, 3) and weights (K,)."""
        return mesh_points(self.divisions, time_reversal=self.operators.is_real)

    def at_points(self, solve: Callable[[np.ndarray], Result], label: str) -> list[Result]:
        """Results for the points, which the MPI ranks share."""
        return over_k_points(solve, self.points[0], self.operators.num_orbitals, label)


@dataclass(frozen=True, eq=False)
class MeshStates:
    """The states of a mesh and the groups' shares in them.

    energies: (s, K, n) eV. weights: (K,). shares: (s, K, n, P).
    tetrahedra: of the mesh, or None for Gaussians with this broadening (standard deviation, eV).
    """

    energies: np.ndarray
    weights: np.ndarray
    shares: np.ndarray
    tetrahedra: Tetrahedra | None
    broadening: float

    @classmethod
    def of(cls, sampled: Sampled, reciprocal: np.ndarray | None, broadening: float) -> "MeshStates":
        """All states that every point of the mesh has: where S(k) is nearly singular a few of the highest are missing.

        reciprocal: (3, 3) rows b_i, for tetrahedra; None for Gaussians.

        Raises:
            SolverError: the cell is too large for dense matrices, or the eigenproblem has no solution.
        """
        operators, members = sampled.operators, sampled.groups.members
        if operators.num_orbitals > DENSE_LIMIT:
            raise SolverError(
                f"all states of {operators.num_orbitals:,} orbitals are needed, up to {DENSE_LIMIT:,} are solved; "
                "take kernel polynomials: --method kpm"
            )

        def solve(k: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
            return [(states.energies, (members @ states.populations).T) for states in states_at_k(operators, k)]

        solved = sampled.at_points(solve, "states")
        common = min(len(energies) for channels in solved for energies, _ in channels)
        energies, shares = (
            np.array([[channel[part][:common] for channel in channels] for channels in solved]).swapaxes(0, 1)
            for part in (0, 1)
        )
        tetrahedra = None
        if reciprocal is not None:
            tetrahedra = Tetrahedra.of(sampled.divisions, reciprocal, time_reversal=operators.is_real)
        return cls(energies, sampled.points[1], shares, tetrahedra, broadening)

    def below(self, levels: np.ndarray) -> np.ndarray:
        """As in StateCount."""
        channels = zip(self.energies, self.shares, strict=True)
        if self.tetrahedra is not None:
            return np.array([self.tetrahedra.states_below(*channel, levels) for channel in channels])
        return np.array(
            [
                smeared_states_below(energies, self.weights, shares, levels, self.broadening)
                for energies, shares in channels
            ]
        )

    def occupied(self, level: float) -> np.ndarray:
        """As in StateCount; tetrahedra with the correction for curved bands."""
        if self.tetrahedra is None:
            return self.below(np.array([level]))[..., 0]
        occupations = [self.tetrahedra.occupations(energies, level) for energies in self.energies]
        return np.einsum("skn,sknp->sp", occupations, self.shares)

    def density_errors(self, edges: np.ndarray) -> None:
        """As in StateCount: none."""


@dataclass(frozen=True, eq=False)
class KernelPolynomials:
    """Chebyshev moments at the k-points of a mesh.

    weights: (K,). moments: [K][s] of bounds and (m, P, V); m depends on the bounds.
    """

    weights: np.ndarray
    moments: list[list[tuple[Bounds, np.ndarray]]]

    @classmethod
    def of(cls, sampled: Sampled, broadening: float, window: tuple[float, float], vectors: int) -> "KernelPolynomials":
        """Moments from random vectors, the same number at each k.

        broadening: largest standard deviation of what a state in a window of energies is spread by, eV.

        Raises:
            SolverError: S(k) is not positive definite, or the spectrum has no bounds.
        """
        operators = sampled.operators
        k_points, weights = sampled.points
        place = {tuple(k): number for number, k in enumerate(k_points)}

        def solve(k: np.ndarray) -> list[tuple[Bounds, np.ndarray]]:
            overlap = FactorisedOverlap.of(operators.overlap.at_k(k))
            results = []
            for channel in operators.hamiltonian:
                hamiltonian = channel.at_k(k)
                bounds = Bounds.of(hamiltonian, overlap)
                number = moments_needed(bounds, broadening, window)
                start = random_vectors(operators.num_orbitals, vectors, hamiltonian.dtype, seed=place[tuple(k)])
                members = sampled.groups.members
                results.append((bounds, chebyshev_moments(hamiltonian, overlap, bounds, start, number, members)))
            return results

        return cls(weights, sampled.at_points(solve, "kernel polynomials"))

    def below(self, levels: np.ndarray) -> np.ndarray:
        """As in StateCount."""
        of_points = [
            [states_below(moments.mean(axis=2), bounds, levels).T for bounds, moments in channels]
            for channels in self.moments
        ]
        return np.tensordot(self.weights, np.array(of_points), axes=1)

    def occupied(self, level: float) -> np.ndarray:
        """As in StateCount."""
        return self.below(np.array([level]))[..., 0]

    def density_errors(self, edges: np.ndarray) -> np.ndarray:
        """As in StateCount: from the scatter of the random vectors."""
        variance = 0.0
        for weight, channels in zip(self.weights, self.moments, strict=True):
            below = np.stack([states_below(_with_total(moments), bounds, edges) for bounds, moments in channels])
            density = np.diff(below, axis=1) / np.diff(edges)[:, None, None]  # (s, G, 1+P, V)
            variance += weight**2 * density.var(axis=3, ddof=1).swapaxes(1, 2) / density.shape[3]
        return np.sqrt(variance)


def _with_total(moments: np.ndarray) -> np.ndarray:
    return np.concatenate([moments.sum(axis=1, keepdims=True), moments], axis=1)
