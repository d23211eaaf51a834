"""SLEPc on PETSc and MUMPS: every factorisation of H - σS is shared by all ranks, for cells too large for one machine.

Spectrum slicing finds all states of a window, and knows so from the counts of states below its shifts: Campos, Román,
Numer. Algorithms 60, 279 (2012).

Shape letters: M rows of H(k), C copies of each level: 1 of a real problem, 2 of a complex one.
"""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from deeph_tracegrad.errors import SolverError
from deeph_tracegrad.inference.solvers.conditioning import FLOOR, SUSPECT, smallest_eigenvalue_bound
from deeph_tracegrad.inference.solvers.direct import ATTEMPTS, SHIFT_STEP
from deeph_tracegrad.inference.solvers.petsc import (
    communicator,
    copies_of_levels,
    distributed,
    engine,
    factorise_by_mumps,
    failure,
    kept,
    petsc_errors_told,
)
from deeph_tracegrad.inference.solvers.spectrum import Selection, Spectrum
from deeph_tracegrad.parallel import world

CONVERGED = 1e-10  # relative residual of the shifted and inverted problem
ON_A_LEVEL = re.compile(r"INFOG\(1\)=-10|singular|inertia", re.IGNORECASE)  # what PETSc says when a shift meets a state


@dataclass(frozen=True)
class SlepcSolver:
    """The states of a window, or the nearest to its centre. All ranks call it together, with the same matrices."""

    selection: Selection

    def __call__(self, hamiltonian: sparse.csr_array, overlap: sparse.csr_array) -> Spectrum:
        """Solve for the Hermitian (M, M) matrices at one k.

        Raises:
            SolverError: S(k) is not positive definite or nearly singular, or the factorisation fails.
            ConfigError: no SLEPc that can be used is installed.
        """
        refuse_dependent(overlap)
        with _distributed(hamiltonian, overlap) as problem:
            if self.selection.window is not None:
                return problem.window(*self.selection.window)
            if self.selection.num_bands is not None:
                return problem.nearest(self.selection.centre, self.selection.num_bands)
        raise SolverError("SLEPc needs an energy window or a number of bands: all bands take a dense solver")


def count_below(
    hamiltonian: sparse.csr_array, overlap: sparse.csr_array, energy: float, step: float = SHIFT_STEP
) -> int:
    """Number of states below an energy (eV), from one factorisation that all ranks share.

    step: eV, how far the energy moves where it falls on a state.

    Raises:
        SolverError: no shift near the energy gives sound factors.
        ConfigError: no SLEPc that can be used is installed.
    """
    _, petsc = engine()
    copies = copies_of_levels(hamiltonian, overlap)
    for attempt in range(ATTEMPTS):
        shifted = sparse.csr_array(hamiltonian - (energy + attempt * step) * overlap)
        with ExitStack() as held, petsc_errors_told():
            linear = kept(held, petsc.KSP().create(communicator()))
            linear.setOptionsPrefix("st_")
            linear.setOperators(kept(held, distributed(shifted, copies)))
            factorise_by_mumps(linear)
            linear.setUp()
            negative, zero, _ = linear.getPC().getFactorMatrix().getInertia()
            if not zero:
                return int(negative) // copies
    raise SolverError(f"H - E S could not be factorised near E = {energy:.4f} eV; choose another energy")


def refuse_dependent(overlap: sparse.csr_array) -> None:
    """End where orbitals are nearly linearly dependent, which the other solvers project out.

    Raises:
        SolverError: S(k) has an eigenvalue below the floor.
    """
    bound = world().broadcast(smallest_eigenvalue_bound(overlap))
    if bound > SUSPECT * FLOOR:
        return
    identity = sparse.csr_array(sparse.eye_array(overlap.shape[0], format="csr"))
    if below := count_below(overlap, identity, FLOOR, step=-1e-3 * FLOOR):
        raise SolverError(
            f"S(k) has {below} eigenvalues below {FLOOR:.0e}, the smallest at most {bound:.2e}: the basis is nearly "
            "linearly dependent, or the overlap belongs to another structure. SLEPc takes no such S; the solvers dense "
            "and shift-invert name the smallest eigenvalue and project such directions out"
        )


@dataclass(frozen=True, eq=False)
class _Problem:
    """H and S of M rows as PETSc matrices of C M rows. copies: C."""

    hamiltonian: Any
    overlap: Any
    size: int
    copies: int

    def nearest(self, centre: float, count: int) -> Spectrum:
        """The window that holds so many, in which nothing is missed, and of it the nearest."""
        self._refuse_too_many(count)
        radius = self._radius(centre, count) + SHIFT_STEP
        found = self.window(centre - radius, centre + radius)
        if len(found.energies) < count:
            raise SolverError(f"SLEPc found only {len(found.energies)} of the {count} states near {centre:.4f} eV")
        chosen = np.sort(np.argsort(np.abs(found.energies - centre), kind="stable")[:count])
        return Spectrum(found.energies[chosen], found.residuals[chosen], found.first + int(chosen[0]))

    def window(self, low: float, high: float) -> Spectrum:
        """All states; an edge that meets a state moves outwards."""
        _, petsc = engine()
        for attempt in range(ATTEMPTS):
            margin = attempt * SHIFT_STEP
            try:
                return self._slices(low - margin, high + margin)
            except petsc.Error as error:
                if not ON_A_LEVEL.search(str(error)):
                    raise failure(error) from error
        raise SolverError(f"H - E S could not be factorised at {low:.4f} and {high:.4f} eV; choose another window")

    def _slices(self, low: float, high: float) -> Spectrum:
        slepc, _ = engine()
        with ExitStack() as held:
            solver = self._solver(held)
            solver.setWhichEigenpairs(slepc.EPS.Which.ALL)
            solver.setInterval(low, high)
            solver.setKrylovSchurDetectZeros(True)
            factorise_by_mumps(solver.getKrylovSchurKSP())
            solver.solve()
            _, below = solver.getKrylovSchurInertias()
            energies, residuals = self._states(solver, held)
        if len(energies) != (below[-1] - below[0]) // self.copies:
            raise SolverError(
                f"{(below[-1] - below[0]) // self.copies} states lie between {low:.4f} and {high:.4f} eV, but "
                f"{len(energies)} were found; use another window"
            )
        return Spectrum(energies, residuals, int(below[0]) // self.copies)

    def _radius(self, centre: float, count: int) -> float:
        """How far from the centre so many states reach, eV; too far where copies of a level were missed."""
        slepc, _ = engine()
        with ExitStack() as held, petsc_errors_told():
            solver = self._solver(held)
            solver.setWhichEigenpairs(slepc.EPS.Which.TARGET_MAGNITUDE)
            solver.setTarget(centre)
            solver.setDimensions(self.copies * count)
            shift = solver.getST()
            shift.setType(slepc.ST.Type.SINVERT)
            factorise_by_mumps(shift.getKSP())
            solver.solve()
            found = [solver.getEigenvalue(number).real for number in range(solver.getConverged())]
        if len(found) < self.copies * count:
            raise SolverError(
                f"SLEPc found only {len(found) // self.copies} of the {count} states near {centre:.4f} eV"
            )
        return float(np.sort(np.abs(np.array(found) - centre))[self.copies * count - 1])

    def _solver(self, held: ExitStack) -> Any:
        slepc, _ = engine()
        solver = kept(held, slepc.EPS().create(communicator()))
        solver.setOperators(self.hamiltonian, self.overlap)
        solver.setProblemType(slepc.EPS.ProblemType.GHEP)
        solver.setType(slepc.EPS.Type.KRYLOVSCHUR)
        solver.setTolerances(CONVERGED)
        return solver

    def _states(self, solver: Any, held: ExitStack) -> tuple[np.ndarray, np.ndarray]:
        """Energies, ascending, and residuals ||H c - E S c|| / ||S c||, each level once."""
        state, image = (kept(held, vector) for vector in self.hamiltonian.createVecs())
        residual = kept(held, image.duplicate())
        energies, residuals = np.empty((2, solver.getConverged()))
        for number in range(len(energies)):
            energies[number] = solver.getEigenpair(number, state).real
            self.hamiltonian.mult(state, residual)
            self.overlap.mult(state, image)
            residual.axpy(-energies[number], image)
            residuals[number] = residual.norm() / image.norm()
        order = np.argsort(energies)[: len(energies) // self.copies * self.copies].reshape(-1, self.copies)
        return energies[order].mean(axis=1), residuals[order].max(axis=1)

    def _refuse_too_many(self, count: int) -> None:
        if count >= self.size - 1:
            raise SolverError(f"{count} of {self.size} states are too many for SLEPc; use a dense solver")


@contextmanager
def _distributed(hamiltonian: sparse.csr_array, overlap: sparse.csr_array) -> Iterator[_Problem]:
    copies = copies_of_levels(hamiltonian, overlap)
    with ExitStack() as held:
        energy, norm = (kept(held, distributed(matrix, copies)) for matrix in (hamiltonian, overlap))
        yield _Problem(energy, norm, hamiltonian.shape[0], copies)
