"""The Fermi level of a cell too large for all its states: by counting those below an energy, and bisection.

One factorisation of H - E S counts the states below E. Where the count is the electrons' at some E, that is in a gap;
else the level is bracketed, first at Γ, until the states around it are few enough to be solved for.

Shape letters: K k-points, s spin channels, n states or energies.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from scipy.optimize import brentq

from deeph_tracegrad.blocks import on_site
from deeph_tracegrad.errors import SolverError
from deeph_tracegrad.inference.bloch import BlochOperators
from deeph_tracegrad.inference.gap import ZERO_GAP
from deeph_tracegrad.inference.kept_points import KeptPoints
from deeph_tracegrad.inference.kept_results import KeptResults, Origin
from deeph_tracegrad.inference.solvers import Selection, ShiftInvertSolver, Spectrum, count_below
from deeph_tracegrad.material import Material
from deeph_tracegrad.parallel import world

WHOLE = 1e-6  # electrons, by which a count of filled bands may be off
FIRST_STEP, LARGEST_STEP = 1.0, 128.0  # eV; doubled each time
BRACKET = 0.1  # eV
MARGIN = 0.5  # eV of states on either side: twenty kT at 300 K
EDGE_STATES = 8
MOST_STEPS = 8  # to the edge of a gap; the distance doubles each time at least

Occupation = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class CountedStates:
    """H and S on a mesh, and the electrons that they hold.

    k_points: (K, 3); weights: (K,), their sum is 1. per_state: electrons that a state holds. direct: solver's name.
    kept: takes in what is found at each k-point. origin: what decides it.
    """

    operators: BlochOperators
    k_points: np.ndarray
    weights: np.ndarray
    electrons: float
    per_state: int
    direct: str = "auto"
    kept: KeptResults = field(default_factory=KeptResults)
    origin: Origin = field(default_factory=dict)

    @property
    def at_once(self) -> int:
        """Energies at which states are counted at the same time: several where ranks outnumber the k-points."""
        return max(1, world().size // len(self.k_points))

    def counts(self, energies: np.ndarray) -> np.ndarray:
        """States below energies (n,) (eV) at each k of each spin, (n, K, s); the MPI ranks share k-points and energies.

        Raises:
            SolverError: a count fails.
        """

        def count(point: np.ndarray) -> list[int]:
            overlap = self.operators.overlap.at_k(point[:3])
            channels = self.operators.hamiltonian
            return [count_below(channel.at_k(point[:3]), overlap, point[3], self.direct) for channel in channels]

        points = [[*k, energy] for energy in energies.tolist() for k in self.k_points.tolist()]
        known = KeptPoints(self.kept, "count of states", self.origin)
        found = known.over(count, np.array(points), self.operators.num_orbitals, "Fermi level")
        return np.array(found).reshape(len(energies), len(self.k_points), -1)

    def excess(self, counts: np.ndarray) -> float:
        """Electrons that so many states (K, s) hold, less those there are."""
        return float(self.per_state * (self.weights @ counts.sum(axis=1)) - self.electrons)

    def level(self, guess: float, occupation: Occupation) -> tuple[float, tuple[float, float] | None]:
        """The Fermi level, eV, and the edges of the gap around it; None for a metal.

        guess: where the search begins, eV. occupation: of a state, from its energy above the level.

        Raises:
            SolverError: the states cannot hold so many electrons, or a count fails.
        """
        step = FIRST_STEP
        if len(self.k_points) > 1:  # Γ alone tells nearly as much, and its matrices are real
            low, high, _ = replace(self, k_points=self.k_points[:1], weights=np.ones(1)).bracket(guess, step)
            guess, step = (low + high) / 2, BRACKET
        low, high, filled = self.bracket(guess, step)
        return self._among_states(low, high, occupation) if filled is None else self._gap_around(low, filled)

    def bracket(self, guess: float, step: float) -> tuple[float, float, np.ndarray | None]:
        """Energies at most `BRACKET` apart with the level between them; in a gap also the filled bands of each spin."""
        low, high, energies = -np.inf, np.inf, np.array([guess])
        while high - low > BRACKET:
            for energy, counts in zip(energies.tolist(), self.counts(energies), strict=True):
                excess = self.excess(counts)
                if abs(excess) < WHOLE:  # a gap; or bands overlap, and as much of some is full as is empty of others
                    return energy, energy, counts[0] if self._fills_bands(counts) else None
                low, high = (low, min(high, energy)) if excess > 0 else (max(low, energy), high)
            if np.isfinite(high - low):
                energies = np.linspace(low, high, self.at_once + 2)[1:-1]
                continue
            if step > LARGEST_STEP:
                raise SolverError(
                    f"{self.electrons:g} electrons do not fit into the bands between {min(guess, *energies):.1f} and "
                    f"{max(guess, *energies):.1f} eV; check the electron count and the basis"
                )
            steps = step * (2.0 ** np.arange(1, self.at_once + 1) - 1)
            energies = low + steps if np.isfinite(low) else high - steps
            step *= 2.0**self.at_once
        return low, high, None

    def _fills_bands(self, counts: np.ndarray) -> bool:
        """Whether these states (K, s) are those of the electrons, and the same bands at all k."""
        return abs(self.excess(counts)) < WHOLE and bool((counts == counts[0]).all())

    def _spectra(self, selection: Selection) -> list[list[Spectrum]]:
        solver = ShiftInvertSolver(selection, self.direct)
        points = KeptPoints(self.kept, "k-point of the mesh", {**self.origin, "states": repr(selection)})
        return points.spectra(self.operators, solver, self.k_points, "Fermi level")

    def _gap_around(self, inside: float, filled: np.ndarray) -> tuple[float, tuple[float, float]]:
        """Middle and edges of the gap around an energy; an edge that is far away is infinite.

        filled: (s,) bands of each spin below the gap. They tell on which side a state is that the energy fell on.
        """
        nearest = self._nearest_states(inside)
        top, bottom = (self._edge(inside, filled, nearest, side) for side in (-1, 1))
        return ((top + bottom) / 2 if np.isfinite(bottom - top) else inside), (top, bottom)

    def _edge(self, inside: float, filled: np.ndarray, nearest: list[list[Spectrum]], side: int) -> float:
        """The nearest state above (side 1) or below (side -1) a gap that an energy is in.

        nearest: at each k of each spin the states around that energy. Up to the farthest of those that go least far all
        are known; where none of them is on this side, the search goes on from there.
        """
        centre = inside
        for _ in range(MOST_STEPS):
            reach = min(float(np.abs(one.energies - centre).max()) for channels in nearest for one in channels)
            beyond = [
                one.energies[(one.first + np.arange(len(one.energies)) >= bands) == (side > 0)]
                for channels in nearest
                for one, bands in zip(channels, filled, strict=True)
            ]
            edge = side * (side * np.concatenate(beyond)).min(initial=np.inf)
            if side * (edge - centre) <= reach:
                return float(edge)
            centre += side * reach
            nearest = self._nearest_states(centre)
        return side * np.inf

    def _nearest_states(self, centre: float) -> list[list[Spectrum]]:
        return self._spectra(Selection(num_bands=EDGE_STATES, centre=centre))

    def _among_states(
        self, low: float, high: float, occupation: Occupation
    ) -> tuple[float, tuple[float, float] | None]:
        """The level near a bracket, from the states around it."""
        spectra = self._spectra(Selection(window=(low - MARGIN, high + MARGIN)))
        energies = np.sort(np.concatenate([spectrum.energies for channels in spectra for spectrum in channels]))
        for top, bottom in pairwise(energies):
            below = np.array([[one.first + (one.energies <= top).sum() for one in channels] for channels in spectra])
            if bottom - top >= ZERO_GAP and self._fills_bands(below):
                return float(top + bottom) / 2, (float(top), float(bottom))

        def excess(level: float) -> float:
            filling = [
                [spectrum.first + occupation(spectrum.energies - level).sum() for spectrum in channels]
                for channels in spectra
            ]
            return self.excess(np.array(filling))

        low, high = low - MARGIN / 2, high + MARGIN / 2
        if excess(low) < 0 < excess(high):
            return float(brentq(excess, low, high, xtol=1e-10)), None
        return (low + high) / 2, None  # no state is near, and any level between them holds the electrons


def onsite_guess(material: Material, per_state: int) -> float:
    """Where atoms that do not see one another would fill their orbitals up to, eV: a start for the search.

    per_state: electrons that a state holds.
    """
    levels = [
        np.linalg.eigvalsh(matrix.block(int(place)))
        for matrix in material.hamiltonian
        for place in np.flatnonzero(on_site(matrix.pairs))
    ]
    ascending = np.sort(np.concatenate(levels))
    filled = int((material.electrons or 0) / per_state)
    return float(ascending[min(filled, len(ascending) - 1)])
