"""Meshes of k-points, and the sharing of k-points among MPI ranks.

k is in units of the reciprocal lattice vectors; densities and lengths in k-space are in 1/Å without the factor 2π.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from pymatgen.core.structure import Structure
from threadpoolctl import threadpool_limits

from deeph_tracegrad.console import progress
from deeph_tracegrad.parallel import team, team_of, world

Result = TypeVar("Result")

VACUUM = 8.0  # Å; atoms further apart than this along an axis do not make bands along it
THREADED_ORBITALS = 300  # from this size on threads help LAPACK


def periodic_axes(structure: Structure) -> np.ndarray:
    """(3,) bool: the lattice directions along which atoms repeat without a vacuum of more than 8 Å between them."""
    places = np.sort(structure.frac_coords % 1.0, axis=0)
    gaps = np.diff(np.concatenate([places, places[:1] + 1.0]), axis=0).max(axis=0)
    heights = 1.0 / np.array(structure.lattice.reciprocal_lattice_crystallographic.abc)
    return gaps * heights <= VACUUM


def mesh_divisions(structure: Structure, density: float) -> tuple[int, int, int]:
    """Γ-centred mesh with at least `density` points for each 1/Å; one point along an axis with vacuum.

    Divisions are 1 or multiples of three, so that the corner K of a hexagonal zone is on the mesh.
    """
    wanted = density * np.array(structure.lattice.reciprocal_lattice_crystallographic.abc)
    one_point = ~periodic_axes(structure) | (wanted <= 1)
    n1, n2, n3 = np.where(one_point, 1, 3 * np.ceil(wanted / 3).astype(int)).tolist()
    return n1, n2, n3


def mesh_points(divisions: Sequence[int], *, time_reversal: bool) -> tuple[np.ndarray, np.ndarray]:
    """k-points (K, 3) of a Γ-centred mesh and their weights (K,), which add up to 1.

    time_reversal: keep one of k and -k.
    """
    _, kept, count = np.unique(
        reduced_numbers(divisions, time_reversal=time_reversal), return_index=True, return_counts=True
    )
    return (_steps(divisions) / np.array(divisions))[kept], count / np.prod(divisions)


def reduced_numbers(divisions: Sequence[int], *, time_reversal: bool) -> np.ndarray:
    """For each point of the whole mesh, last axis fastest, the number of its equivalent among `mesh_points`."""
    steps = _steps(divisions)
    number = np.arange(len(steps))
    if not time_reversal:
        return number
    opposite = np.ravel_multi_index(tuple((-steps % divisions).T), tuple(divisions))
    return np.unique(np.minimum(number, opposite), return_inverse=True)[1]


def _steps(divisions: Sequence[int]) -> np.ndarray:
    return np.stack(np.meshgrid(*(np.arange(n) for n in divisions), indexing="ij"), axis=-1).reshape(-1, 3)


def over_k_points(
    solve: Callable[[np.ndarray], Result],
    k_points: np.ndarray,
    num_orbitals: int,
    label: str,
    *,
    teams: int | None = None,
) -> list[Result]:
    """`solve` at each of the k-points (K, 3), which the MPI ranks share; every rank gets all results, in order.

    teams: the ranks divide into so many, whose ranks solve each k-point together; None for every rank on its own.
    Matrices of few orbitals are solved by one thread: on a busy machine threads made iron's 28 orbitals 7 times slower.
    """
    ranks = world()
    teams = teams or ranks.size
    number, mates = team_of(ranks.rank, ranks.size, teams), team(teams)
    with threadpool_limits(1 if num_orbitals < THREADED_ORBITALS else None):
        mine = list(k_points)[number::teams]
        solved = [solve(k) for k in progress(mine, len(mine), label)]
    shares = [share for share in ranks.gather(solved if mates.is_main else None) if share is not None]
    return [shares[number % teams][number // teams] for number in range(len(k_points))]
