"""Shift-invert Lanczos (ARPACK) on a sparse factorisation: the states around one energy of a large cell.

For a Hermitian A = H - σ S the factorisation without row exchanges is A = L D L†, and by Sylvester's law of inertia
D has as many negative entries as there are states below σ. Hence the number of every state found is known exactly,
and a window is complete or known not to be.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import ArpackError, LinearOperator, SuperLU, eigsh, splu

from deeph_tracegrad.errors import SolverError
from deeph_tracegrad.inference.solvers.spectrum import Selection, Spectrum, residual_norms

SHIFT_STEP = 1e-4  # eV, how far a shift moves that falls on a state
FACTOR_TOLERANCE = 1e-6  # relative residual of a solve with a sound factorisation
SPARE_STATES = 4
ATTEMPTS = 4


@dataclass(frozen=True)
class ShiftInvertSolver:
    """The states of a window, or the nearest to its centre. One LU factorisation at each shift."""

    selection: Selection

    def __call__(self, hamiltonian: sparse.csr_array, overlap: sparse.csr_array) -> Spectrum:
        """Solve for the Hermitian (M, M) matrices at one k.

        Raises:
            SolverError: no shift gives a sound factorisation, or states stay missing.
        """
        if self.selection.window is not None:
            return self._window(hamiltonian, overlap, *self.selection.window)
        if self.selection.num_bands is not None:
            return self._nearest(hamiltonian, overlap, self.selection.centre, self.selection.num_bands)
        raise SolverError("shift-invert needs an energy window or a number of bands: all bands take a dense solver")

    def _nearest(self, hamiltonian: sparse.csr_array, overlap: sparse.csr_array, centre: float, count: int) -> Spectrum:
        factor = _factorise(hamiltonian, overlap, centre)
        energies, residuals = _states(hamiltonian, overlap, factor, count)
        below = int((energies < factor.shift).sum())
        return Spectrum(energies, residuals, factor.states_below - below)

    def _window(self, hamiltonian: sparse.csr_array, overlap: sparse.csr_array, low: float, high: float) -> Spectrum:
        first, last = (_factorise(hamiltonian, overlap, edge).states_below for edge in (low, high))
        if first == last:
            return Spectrum(np.empty(0), np.empty(0), first)
        factor = _factorise(hamiltonian, overlap, (low + high) / 2)
        # The states nearest to the centre may lie beyond the edge that has fewer states: ask until all are in.
        count = last - first + SPARE_STATES
        for _ in range(ATTEMPTS):
            energies, residuals = _states(hamiltonian, overlap, factor, count)
            inside = (energies >= low) & (energies < high)
            if inside.sum() == last - first:
                return Spectrum(energies[inside], residuals[inside], first)
            count += count // 2 + SPARE_STATES
        raise SolverError(
            f"{last - first} states lie between {low:.4f} and {high:.4f} eV, but only {inside.sum()} were found; "
            "use a narrower window"
        )


@dataclass(frozen=True, eq=False)
class _Factor:
    shift: float
    factorisation: SuperLU
    states_below: int


def _factorise(hamiltonian: sparse.csr_array, overlap: sparse.csr_array, shift: float) -> _Factor:
    """L D L† of H - σ S, with σ moved a little where the factorisation breaks down."""
    probe = np.ones(hamiltonian.shape[0], dtype=complex)
    for attempt in range(ATTEMPTS):
        sigma = shift + attempt * SHIFT_STEP
        matrix = (hamiltonian - sigma * overlap).tocsc()
        try:
            factor = splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
        except RuntimeError:  # exactly singular
            continue
        error = np.linalg.norm(matrix @ factor.solve(probe) - probe) / np.linalg.norm(probe)
        if np.array_equal(factor.perm_r, factor.perm_c) and error < FACTOR_TOLERANCE:
            return _Factor(sigma, factor, int((factor.U.diagonal().real < 0).sum()))
    raise SolverError(f"H - E S could not be factorised near E = {shift:.4f} eV; choose another window")


def _states(
    hamiltonian: sparse.csr_array, overlap: sparse.csr_array, factor: _Factor, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Energies of the `count` states nearest to the shift, ascending, and their residuals."""
    size = hamiltonian.shape[0]
    if count >= size - 1:
        raise SolverError(f"{count} of {size} states are too many for shift-invert; use a narrower window")
    inverse = LinearOperator(hamiltonian.shape, factor.factorisation.solve, dtype=complex)
    start = np.random.default_rng(0).standard_normal(size).astype(complex)
    try:
        energies, states = eigsh(
            hamiltonian, k=count, M=overlap, sigma=factor.shift, OPinv=inverse, v0=start, ncv=min(size, 2 * count + 20)
        )
    except ArpackError as error:
        raise SolverError(f"ARPACK found no states near {factor.shift:.4f} eV ({error}); try another window") from None
    order = np.argsort(energies)
    energies, states = energies[order], states[:, order]
    return energies, residual_norms(hamiltonian, overlap, energies, states)
