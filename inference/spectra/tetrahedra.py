"""States below an energy by the linear tetrahedron method.

P. E. Blöchl, O. Jepsen, O. K. Andersen, Phys. Rev. B 49, 16223 (1994), called [B] below.

Shape letters: T tetrahedra, K k-points of a reduced mesh, n bands, P groups of orbitals, L levels, X pairs of a
tetrahedron and a level inside its range of energies.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from deeph_tracegrad.inference.kpoints import reduced_numbers

LARGEST_PART = 1_000_000  # pairs of a tetrahedron and a level that are dealt with at once


@dataclass(frozen=True, eq=False)
class Tetrahedra:
    """A mesh cut into tetrahedra of equal volume.

    corners: (T, 4) numbers of k-points of the mesh, reduced by time reversal or not.
    """

    corners: np.ndarray

    @classmethod
    def of(cls, divisions: tuple[int, int, int], reciprocal: np.ndarray, *, time_reversal: bool) -> "Tetrahedra":
        """Six for each cell of the mesh, around its shortest diagonal ([B] section II).

        Along an axis with one point the bands are flat, and the tetrahedra give what triangles or segments would.

        reciprocal: (3, 3) rows b_i.
        """
        steps = np.stack(np.meshgrid(*(np.arange(n) for n in divisions), indexing="ij"), axis=-1).reshape(-1, 3)
        edges = np.array(reciprocal) / np.array(divisions)[:, None]
        signs = np.array(list(itertools.product((1, -1), repeat=3)))[:4]
        sign = signs[np.linalg.norm(signs @ edges, axis=1).argmin()]
        walks = [np.cumsum([np.zeros(3, int), *np.eye(3, dtype=int)[list(order)]], axis=0) for order in _ORDERS]
        offsets = np.array(walks) * sign  # (6, 4, 3): along the edges from one end of the diagonal to the other
        places = (steps[:, None, None] + offsets) % divisions
        numbers = np.ravel_multi_index(tuple(np.moveaxis(places, -1, 0)), divisions).reshape(-1, 4)
        return cls(reduced_numbers(divisions, time_reversal=time_reversal)[numbers])

    def states_below(self, energies: np.ndarray, shares: np.ndarray, levels: np.ndarray) -> np.ndarray:
        """What each group has of the states below each level, (P, L), in a cell.

        energies: (K, n) eV. shares: (K, n, P) of the groups in the states. levels: (L,) ascending, eV.
        """
        size = len(levels) + 1  # the last place is above all levels
        below = np.zeros((shares.shape[2], size))
        filled = np.zeros_like(below)
        for corner_energies, corners, band in self._bands(energies):
            full = np.searchsorted(levels, corner_energies[:, 3])
            for group in range(len(below)):
                filled[group] += np.bincount(full, shares[corners, band, group].mean(axis=1), minlength=size)
            for one, level in _partly_filled(corner_energies, levels):
                weights = corner_weights(corner_energies[one], levels[level])
                for group in range(len(below)):
                    inside = (weights * shares[corners[one], band, group]).sum(axis=1)
                    below[group] += np.bincount(level, inside, minlength=size)
        return (below + filled.cumsum(axis=1))[:, :-1] / len(self.corners)

    def occupations(self, energies: np.ndarray, level: float) -> np.ndarray:
        """The weight of each state (K, n) in integrals up to a level, with the correction of [B] eq. 22.

        energies: (K, n) eV. The weights add up to the states below the level.
        """
        result = np.zeros_like(energies)
        for corner_energies, corners, band in self._bands(energies):
            weights = corner_weights(corner_energies, np.full(len(corners), level))
            away = corner_energies.sum(axis=1, keepdims=True) - 4 * corner_energies
            weights += tetrahedron_density(corner_energies, level)[:, None] * away / 40
            result[:, band] = np.bincount(corners.ravel(), weights.ravel(), minlength=len(energies))
        return result / len(self.corners)

    def _bands(self, energies: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
        """For each band the energies at the corners (T, 4), ascending, those corners (T, 4), and its number."""
        for band in range(energies.shape[1]):
            unsorted = energies[self.corners, band]
            order = unsorted.argsort(axis=1)
            yield np.take_along_axis(unsorted, order, 1), np.take_along_axis(self.corners, order, 1), band


_ORDERS = list(itertools.permutations(range(3)))


def _partly_filled(energies: np.ndarray, levels: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The tetrahedra and levels with E1 <= level < E4, as two arrays of numbers (X,), part by part."""
    first, last = np.searchsorted(levels, energies[:, 0]), np.searchsorted(levels, energies[:, 3])
    counts = last - first
    parts = np.cumsum(counts) // LARGEST_PART
    for part in np.unique(parts[counts > 0]):
        members = np.flatnonzero((parts == part) & (counts > 0))
        one = np.repeat(members, counts[members])
        start = np.repeat(np.cumsum(counts[members]) - counts[members], counts[members])
        yield one, first[one] + np.arange(len(one)) - start


def corner_weights(energies: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """The corners' weights in an integral over the part of a tetrahedron below a level, [B] appendix B.

    energies: (X, 4) ascending. levels: (X,). Returns (X, 4); in the sum 1 for a tetrahedron that is full.
    """
    weights = np.where(levels[:, None] >= energies[:, 3:], 0.25, 0.0) * np.ones(4)
    regions = (_lowest, _middle, _highest)
    for number, region in enumerate(regions):
        inside = (energies[:, number] <= levels) & (levels < energies[:, number + 1])
        weights[inside] = region(energies[inside].T, levels[inside]).T / 4
    return weights


def _lowest(energies: np.ndarray, level: np.ndarray) -> np.ndarray:
    e1, e2, e3, e4 = energies
    above = level - e1
    common = above**3 / ((e2 - e1) * (e3 - e1) * (e4 - e1))
    others = np.stack([above / (e2 - e1), above / (e3 - e1), above / (e4 - e1)])
    return common * np.concatenate([4 - others.sum(axis=0, keepdims=True), others])


def _middle(energies: np.ndarray, level: np.ndarray) -> np.ndarray:
    e1, e2, e3, e4 = energies
    above1, above2, below3, below4 = level - e1, level - e2, e3 - level, e4 - level
    e31, e41, e32, e42 = e3 - e1, e4 - e1, e3 - e2, e4 - e2
    c1 = above1**2 / (e41 * e31)
    c2 = above1 * above2 * below3 / (e41 * e32 * e31)
    c3 = above2**2 * below4 / (e42 * e32 * e41)
    return np.stack(
        [
            c1 + (c1 + c2) * below3 / e31 + (c1 + c2 + c3) * below4 / e41,
            c1 + c2 + c3 + (c2 + c3) * below3 / e32 + c3 * below4 / e42,
            (c1 + c2) * above1 / e31 + (c2 + c3) * above2 / e32,
            (c1 + c2 + c3) * above1 / e41 + c3 * above2 / e42,
        ]
    )


def _highest(energies: np.ndarray, level: np.ndarray) -> np.ndarray:
    e1, e2, e3, e4 = energies
    below = e4 - level
    common = below**3 / ((e4 - e1) * (e4 - e2) * (e4 - e3))
    others = np.stack([below / (e4 - e1), below / (e4 - e2), below / (e4 - e3)])
    return 1 - common * np.concatenate([others, 4 - others.sum(axis=0, keepdims=True)])


def tetrahedron_density(energies: np.ndarray, level: float) -> np.ndarray:
    """States for each eV of tetrahedra at a level, [B] appendix C; energies: (T, 4) ascending. (T,)."""
    density = np.zeros(len(energies))
    for number, region in enumerate((_lowest_density, _middle_density, _highest_density)):
        inside = (energies[:, number] <= level) & (level < energies[:, number + 1])
        density[inside] = region(energies[inside].T, level)
    return density


def _lowest_density(energies: np.ndarray, level: float) -> np.ndarray:
    e1, e2, e3, e4 = energies
    return 3 * (level - e1) ** 2 / ((e2 - e1) * (e3 - e1) * (e4 - e1))


def _middle_density(energies: np.ndarray, level: float) -> np.ndarray:
    e1, e2, e3, e4 = energies
    above = level - e2
    curved = (e3 - e1 + e4 - e2) * above**2 / ((e3 - e2) * (e4 - e2))
    return 3 * (e2 - e1 + 2 * above - curved) / ((e3 - e1) * (e4 - e1))


def _highest_density(energies: np.ndarray, level: float) -> np.ndarray:
    e1, e2, e3, e4 = energies
    return 3 * (e4 - level) ** 2 / ((e4 - e1) * (e4 - e2) * (e4 - e3))
