"""Shift-invert Lanczos on a sparse factorisation: the states around an energy, or in a window, of a large cell.

A factorisation counts the states below its shift, so the number of every state found is known exactly. A window is cut
into slices by shifts; a slice is done when as many states were found in it as the counts at its ends differ by, else a
shift in its middle cuts it again. Grimes, Lewis, Simon, SIAM J. Matrix Anal. Appl. 15, 228 (1994), section 3.

Shape letters: M rows, n states.
"""

from dataclasses import dataclass, replace
from functools import reduce
from itertools import pairwise

import numpy as np
from scipy import sparse
from threadpoolctl import ThreadpoolController

from deeph_tracegrad.errors import SolverError
from deeph_tracegrad.inference.solvers.conditioning import ConstrainedFactors, Deflation, deflation_of
from deeph_tracegrad.inference.solvers.direct import ATTEMPTS, SHIFT_STEP, ShiftedFactors, factorise
from deeph_tracegrad.inference.solvers.lanczos import BLOCK, Enough, nearest_states
from deeph_tracegrad.inference.solvers.spectrum import Selection, Spectrum, rayleigh_ritz
from deeph_tracegrad.parallel import ALONE, World

ON_LEVEL = 1e-7  # eV; a shift so close to a state may count it on either side
OVERREACH = 1.05  # by how much the states found from two shifts overlap
MOST_VECTORS = 400  # that Lanczos keeps for one shift
VECTORS_PER_STATE = 12
MOST_CUTS = 20
LARGEST_BLOCK = 16


@dataclass(frozen=True)
class ShiftInvertSolver:
    """The states of a window, or the nearest to its centre.

    direct: name of the direct solver, see `choose_direct_solver`. with_states: whether the spectrum is to hold the
    states themselves. team: ranks that share the shifts of a window, and must all call the solver with the same
    matrices; each of them needs the memory of a factorisation.
    """

    selection: Selection
    direct: str = "auto"
    with_states: bool = False
    team: World = ALONE

    def __call__(self, hamiltonian: sparse.csr_array, overlap: sparse.csr_array) -> Spectrum:
        """Solve for the Hermitian (M, M) matrices at one k.

        Raises:
            SolverError: no shift gives a sound factorisation, or states stay missing.
        """
        problem = _Problem(hamiltonian, overlap, deflation_of(overlap, self.direct), self.direct, self.with_states)
        if self.selection.window is not None:
            return problem.window(*self.selection.window, self.team)
        if self.selection.num_bands is not None:
            return problem.nearest(self.selection.centre, self.selection.num_bands)
        raise SolverError("shift-invert needs an energy window or a number of bands: all bands take a dense solver")


def count_below(hamiltonian: sparse.csr_array, overlap: sparse.csr_array, energy: float, direct: str = "auto") -> int:
    """Number of states below an energy (eV), from one factorisation.

    Raises:
        SolverError: no shift near the energy gives sound factors.
    """
    return _Problem(hamiltonian, overlap, deflation_of(overlap, direct), direct).count_below(energy)


@dataclass(frozen=True, eq=False)
class _Found:
    """The states around a shift. reach: all states nearer to the shift than this were found, eV."""

    shift: float
    states_below: int
    spectrum: Spectrum
    reach: float


@dataclass(frozen=True, eq=False)
class _Problem:
    hamiltonian: sparse.csr_array
    overlap: sparse.csr_array
    deflation: Deflation | None
    direct: str
    with_states: bool = False

    def count_below(self, energy: float) -> int:
        return self._factorise(energy, SHIFT_STEP).states_below

    def nearest(self, centre: float, count: int) -> Spectrum:
        self._refuse_too_many(count)
        found = self._around(centre, lambda energies: len(energies) >= count, SHIFT_STEP, VECTORS_PER_STATE * count)
        energies = found.spectrum.energies
        if len(energies) < count:
            raise SolverError(f"Lanczos found only {len(energies)} of the {count} states near {centre:.4f} eV")
        chosen = np.sort(np.argsort(np.abs(energies - centre), kind="stable")[:count])
        return found.spectrum.part(chosen, found.spectrum.first + int(chosen[0]))

    def window(self, low: float, high: float, team: World) -> Spectrum:
        """The states between two shifts at the window's edges; a shift that meets a state moves outwards.

        Each rank of a team takes a shift, and then a slice between two of them; slices are wider than shifts move.
        """
        most = int((high - low) / (2 * ATTEMPTS * SHIFT_STEP))
        shifts = np.linspace(low, high, max(2, min(team.size, most)))
        radius = OVERREACH * (shifts[1] - shifts[0]) / 2

        def around(number: int) -> _Found:
            return self._reaching(shifts[number], radius, SHIFT_STEP if number else -SHIFT_STEP)

        found = team.mapped(around, range(len(shifts)))
        self._refuse_too_many(found[-1].states_below - found[0].states_below)
        slices = team.mapped(lambda ends: self._between(*ends, 0), list(pairwise(found)))
        return reduce(Spectrum.followed_by, slices)

    def _between(self, bottom: _Found, top: _Found, cuts: int) -> Spectrum:
        """All states of a slice that so many cuts led to; what deep cuts single out are levels with many copies."""
        count = top.states_below - bottom.states_below
        spectrum = _joined(bottom, top)
        if len(spectrum.energies) == count:
            return spectrum
        if cuts == MOST_CUTS:
            raise SolverError(
                f"{count} states lie between {bottom.shift:.4f} and {top.shift:.4f} eV, but "
                f"{len(spectrum.energies)} were found; use another window"
            )
        middle = (bottom.shift + top.shift) / 2
        vectors = min(BLOCK + cuts, LARGEST_BLOCK)
        cut = self._reaching(middle, OVERREACH * (top.shift - bottom.shift) / 4, SHIFT_STEP, vectors)
        return self._between(bottom, cut, cuts + 1).followed_by(self._between(cut, top, cuts + 1))

    def _reaching(self, shift: float, radius: float, step: float, vectors: int = BLOCK) -> _Found:
        """All states up to a distance (eV) from a shift, or as many as one shift yields."""
        most = MOST_VECTORS * vectors // BLOCK  # as many steps with larger blocks
        return self._around(
            shift, lambda energies: np.abs(energies - shift).max(initial=0.0) > radius, step, most, vectors
        )

    def _around(self, shift: float, enough: Enough, step: float, most: int, vectors: int = BLOCK) -> _Found:
        for attempt in range(ATTEMPTS):
            factors = self._factorise(shift + attempt * step, step)
            try:
                # OpenBLAS's threads keep spinning after each product, on the cores that the direct solver's need
                with ThreadpoolController().select(internal_api="openblas").limit(limits=1):
                    energies, states = nearest_states(
                        factors.solve,
                        self.overlap,
                        factors.shift,
                        enough,
                        most,
                        self.hamiltonian.dtype,
                        factors.accuracy,
                        vectors,
                    )
            except np.linalg.LinAlgError:
                raise SolverError(
                    "S(k) is not positive definite; check the overlap, its units and atom order"
                ) from None
            distances = np.abs(energies - factors.shift)
            if distances.min(initial=np.inf) > ON_LEVEL:
                break
        reach = np.inf if len(energies) == self._dimension else distances.max(initial=0.0)
        first = factors.states_below - int((energies < factors.shift).sum())
        spectrum = rayleigh_ritz(self.hamiltonian, self.overlap, states, first, self.deflation)
        if not self.with_states:
            spectrum = replace(spectrum, states=None)
        return _Found(factors.shift, factors.states_below, spectrum, reach)

    def _factorise(self, shift: float, step: float) -> ShiftedFactors | ConstrainedFactors:
        factors = factorise(self.hamiltonian, self.overlap, shift, direct=self.direct, step=step)
        return factors if self.deflation is None else self.deflation.constrained(factors)

    @property
    def _dimension(self) -> int:
        return self.hamiltonian.shape[0] - (0 if self.deflation is None else self.deflation.count)

    def _refuse_too_many(self, count: int) -> None:
        if count >= self._dimension - 1:
            raise SolverError(f"{count} of {self._dimension} states are too many for shift-invert; use a dense solver")


def _joined(bottom: _Found, top: _Found) -> Spectrum:
    """The states of a slice that were found from its two ends, each once."""
    low, high = max(bottom.shift, top.shift - top.reach), min(top.shift, bottom.shift + bottom.reach)
    from_below, from_above = bottom.spectrum.energies, top.spectrum.energies
    seam = (low + high) / 2
    if low < high:  # both ends know what lies between: they part where no state is near
        known = from_below[(from_below > low) & (from_below < high)]
        borders = np.concatenate([[low], known, [high]])
        widest = int(np.diff(borders).argmax())
        seam = float(borders[widest : widest + 2].mean())
    # A level on the seam would be found in parts, from both ends, which need not be orthogonal: it is left missing.
    lower = (from_below > bottom.shift) & (from_below < seam - ON_LEVEL)
    upper = (from_above > seam + ON_LEVEL) & (from_above < top.shift)
    below = bottom.spectrum.part(lower, bottom.states_below)
    return below.followed_by(top.spectrum.part(upper, below.first + len(below.energies)))
