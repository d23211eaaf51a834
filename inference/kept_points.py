"""Results at k-points that are kept until a calculation is complete.

Shape letters: K k-points, s spin channels.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from deeph_tracegrad.inference.bloch import BlochOperators
from deeph_tracegrad.inference.kept_results import KeptResults, Origin
from deeph_tracegrad.inference.kpoints import over_k_points
from deeph_tracegrad.inference.solvers import Solver, Spectrum, num_teams, shared_by
from deeph_tracegrad.parallel import team


class KeptPoints:
    """Results of one kind and origin at k-points. known: by k; at first those that were kept."""

    def __init__(self, kept: KeptResults, kind: str, origin: Origin) -> None:
        self._kept, self._kind, self._origin = kept, kind, origin
        self.known: dict[tuple[float, ...], Any] = {tuple(k): content for k, content in kept.find(kind, origin)}

    def over(
        self,
        solve: Callable[[np.ndarray], Any],
        k_points: np.ndarray,
        num_orbitals: int,
        label: str,
        *,
        teams: int | None = None,
    ) -> list[Any]:
        """`over_k_points` of a function that gives JSON; what is known is not solved, nor one of the points twice.

        k_points: (K, 3), or with more columns for what else the results depend on.
        """
        missing = self._missing(k_points)

        def solve_and_keep(k: np.ndarray) -> Any:
            content = solve(k)
            self._kept.add(self._kind, self._origin, [k.tolist(), content])
            return content

        solved = over_k_points(
            solve_and_keep, np.reshape(missing, (-1, k_points.shape[1])), num_orbitals, label, teams=teams
        )
        self.known.update(zip(missing, solved, strict=True))
        return [self.known[k] for k in map(tuple, k_points.tolist())]

    def spectra(
        self, operators: BlochOperators, solver: Solver, k_points: np.ndarray, label: str
    ) -> list[list[Spectrum]]:
        """The spectra at each of the k-points (K, 3), one for each of the s spin channels."""
        teams = num_teams(solver, len(self._missing(k_points)))
        solver = shared_by(solver, team(teams))

        def solve(k: np.ndarray) -> list[list[Any]]:
            overlap = operators.overlap.at_k(k)
            channels = [solver(channel.at_k(k), overlap) for channel in operators.hamiltonian]
            return [[int(one.first), one.energies.tolist(), one.residuals.tolist()] for one in channels]

        solved = self.over(solve, k_points, operators.num_orbitals, label, teams=teams)
        return [
            [Spectrum(np.array(energies), np.array(residuals), first) for first, energies, residuals in channels]
            for channels in solved
        ]

    def _missing(self, k_points: np.ndarray) -> list[tuple[float, ...]]:
        return [k for k in dict.fromkeys(map(tuple, k_points.tolist())) if k not in self.known]
