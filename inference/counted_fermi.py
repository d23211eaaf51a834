"""The Fermi level of a cell too large for all its states: by counting those below an energy, and bisection.

One factorisation of H - E S counts the states below E. Where the count is the electrons' at some E, that is in a gap;
else the level is bracketed until the states around it are few enough to be solved for.

Shape letters: K k-points, n states.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from scipy.optimize import brentq

from deeph_tracegrad.errors import SolverError
from deeph_tracegrad.inference.bloch import BlochOperators
from deeph_tracegrad.inference.gap import ZERO_GAP
from deeph_tracegrad.inference.kept_points import KeptPoints
from deeph_tracegrad.inference.kept_results import KeptResults, Origin
from deeph_tracegrad.inference.solvers import Selection, ShiftInvertSolver, Spectrum, count_below
from deeph_tracegrad.material import Material

WHOLE = 1e-6  # electrons, by which a count of filled bands may be off
FIRST_STEP = 1.0  # eV
MOST_STEPS = 8  # doubled each time
BRACKET = 0.1  # eV
MARGIN = 0.5  # eV of states on either side: twenty kT at 300 K
EDGE_STATES = 8
MOST_EDGE_STATES = 128

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

    def counts(self, energy: float) -> np.ndarray:
        """States below an energy (eV) at each k of each spin, (K, s); the MPI ranks share the k-points.

        Raises:
            SolverError: a count fails.
        """

        def count(k: np.ndarray) -> list[int]:
            overlap = self.operators.overlap.at_k(k)
            channels = self.operators.hamiltonian
            return [count_below(channel.at_k(k), overlap, energy, self.direct) for channel in channels]

        points = KeptPoints(self.kept, "count of states", {**self.origin, "energy": repr(energy)})
        return np.array(points.over(count, self.k_points, self.operators.num_orbitals, "Fermi level"))

    def excess(self, counts: np.ndarray) -> float:
        """Electrons that so many states (K, s) hold, less those there are."""
        return float(self.per_state * (self.weights @ counts.sum(axis=1)) - self.electrons)

    def level(self, guess: float, occupation: Occupation) -> tuple[float, tuple[float, float] | None]:
        """The Fermi level, eV, and the edges of the gap around it; None for a metal.

        guess: where the search begins, eV. occupation: of a state, from its energy above the level.

        Raises:
            SolverError: the states cannot hold so many electrons, or a count fails.
        """
        low, high = self._bracket(guess)
        while high - low > BRACKET:
            middle = (low + high) / 2
            counts = self.counts(middle)
            if self._fills_bands(counts):
                return self._wide_gap(middle)
            excess = self.excess(counts)
            if abs(excess) < WHOLE:  # bands overlap, and as much of some is full as is empty of others
                low = high = middle
            else:
                low, high = (low, middle) if excess > 0 else (middle, high)
        return self._among_states(low, high, occupation)

    def _fills_bands(self, counts: np.ndarray) -> bool:
        """Whether these states (K, s) are those of the electrons, and the same bands at all k."""
        return abs(self.excess(counts)) < WHOLE and bool((counts == counts[0]).all())

    def _bracket(self, guess: float) -> tuple[float, float]:
        excess, step = self.excess(self.counts(guess)), FIRST_STEP
        before = guess
        for _ in range(MOST_STEPS):
            energy = before - step if excess > 0 else before + step
            if (self.excess(self.counts(energy)) > 0) != (excess > 0):
                return min(before, energy), max(before, energy)
            before, step = energy, 2 * step
        raise SolverError(
            f"{self.electrons:g} electrons do not fit into the bands between {min(guess, before):.1f} and "
            f"{max(guess, before):.1f} eV; check the electron count and the basis"
        )

    def _spectra(self, selection: Selection) -> list[list[Spectrum]]:
        solver = ShiftInvertSolver(selection, self.direct)
        points = KeptPoints(self.kept, "k-point of the mesh", {**self.origin, "states": repr(selection)})
        return points.spectra(self.operators, solver, self.k_points, "Fermi level")

    def _wide_gap(self, inside: float) -> tuple[float, tuple[float, float]]:
        """Middle and edges of the gap around an energy."""
        number = EDGE_STATES
        while True:
            spectra = self._spectra(Selection(num_bands=number, centre=inside))
            energies = np.concatenate([spectrum.energies for channels in spectra for spectrum in channels])
            # Each k-point lacks only states farther away than those it gave: none can be nearer than the edges found.
            top = energies[energies < inside].max(initial=-np.inf)
            bottom = energies[energies > inside].min(initial=np.inf)
            if np.isfinite(bottom - top) or number >= MOST_EDGE_STATES:
                break
            number *= 4
        level = (top + bottom) / 2 if np.isfinite(bottom - top) else inside
        return float(level), (float(top), float(bottom))

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

        return float(brentq(excess, low - MARGIN / 2, high + MARGIN / 2, xtol=1e-10)), None


def onsite_guess(material: Material) -> float:
    """Where atoms that do not see one another would fill their orbitals up to, eV: a start for the search."""
    levels = []
    for matrix in material.hamiltonian:
        onsite = np.flatnonzero((matrix.pairs[:, :3] == 0).all(axis=1) & (matrix.pairs[:, 3] == matrix.pairs[:, 4]))
        for place in onsite:
            atom = matrix.pairs[place, 3]
            block = matrix.entries[matrix.offsets[place] : matrix.offsets[place + 1]]
            levels.append(np.linalg.eigvalsh(block.reshape(matrix.sizes[atom], -1)))
    ascending = np.sort(np.concatenate(levels))
    per_state = 2 if len(material.hamiltonian) == 1 and material.spin.components == 1 else 1
    filled = int((material.electrons or 0) / per_state)
    return float(ascending[min(filled, len(ascending) - 1)])
