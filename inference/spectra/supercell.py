"""Where the atoms of a supercell stand in a primitive cell's lattice.

Shape letters: N atoms of the supercell, Q sites of the primitive cell, d periodic directions.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from pymatgen.core.structure import Structure

from deeph_tracegrad.errors import MismatchError
from deeph_tracegrad.inference.kpoints import periodic_axes

STRAIN = 0.005  # relative, up to which a turned lattice fits
DIRECT_STRAIN = 0.03  # relative, up to which an unturned lattice fits
UNAMBIGUOUS = 0.25  # of the shortest primitive vector, up to which it is clear how many of them a vector is
TRIAL_ATOMS = 24  # of the supercell that are laid on each site to find the origin


@dataclass(frozen=True, eq=False)
class SupercellMap:
    """The site and the primitive cell of each atom.

    transform: (3, 3) int, supercell vectors as combinations of the primitive ones, a' = T a; a direction with vacuum in
    both is its own.
    site: (N,) int, -1 for an atom that stands on no site. cell: (N, 3) int, the primitive cell of that site.
    displacement: (N,) Å from the site; NaN where there is none.
    num_sites: Q.
    """

    transform: np.ndarray
    site: np.ndarray
    cell: np.ndarray
    displacement: np.ndarray
    num_sites: int

    @property
    def num_cells(self) -> int:
        """Primitive cells in the supercell."""
        return round(abs(float(np.linalg.det(self.transform))))

    @property
    def vacancies(self) -> int:
        """Sites without an atom."""
        return self.num_cells * self.num_sites - int((self.site >= 0).sum())

    @property
    def strangers(self) -> int:
        """Atoms without a site."""
        return int((self.site < 0).sum())


def map_supercell(structure: Structure, primitive: Structure, tolerance: float) -> SupercellMap:
    """Lay a primitive lattice over a supercell, turned if need be, so that most atoms stand on sites of their element.

    Atoms may be displaced, missing, replaced or added. An atom counts as on a site up to `tolerance` (Å).

    Raises:
        MismatchError: the lattices or the atoms do not fit.
    """
    best = None
    for lattice in _laid_lattices(structure, primitive):
        found = _matched(structure, primitive, lattice, tolerance)
        if best is None or found.strangers < best.strangers:
            best = found
        if 2 * best.strangers < len(structure):  # else another way to turn the lattice may fit better
            return best
    if best is None:
        lengths = [", ".join(f"{length:.3f}" for length in cell.lattice.abc) for cell in (primitive, structure)]
        raise MismatchError(
            f"the lattice of the structure ({lengths[1]} Å) is no supercell of the primitive one ({lengths[0]} Å), "
            "turned or strained a little; check which cell --primitive names"
        )
    if best.strangers == len(structure):
        raise MismatchError(f"no atom of the structure is within {tolerance:g} Å of a site of the primitive cell")
    return best


@dataclass(frozen=True, eq=False)
class _LaidLattice:
    """The primitive lattice as it lies in the supercell, L' = T L.

    sites: (Q, 3) Å, those of a slab or molecule together. periods: (3, 3) Å, rows after which atoms repeat: L, and the
    supercell's own vector along a direction with vacuum.
    """

    transform: np.ndarray
    sites: np.ndarray
    periods: np.ndarray


def _laid_lattices(structure: Structure, primitive: Structure) -> Iterator[_LaidLattice]:
    """The vectors as they are, strained to fit; then turned ones."""
    axes, own_axes = periodic_axes(structure), periodic_axes(primitive)
    if axes.sum() != own_axes.sum():  # a slab of a crystal: its vacuum is a number of cells too
        axes = own_axes = np.ones(3, dtype=bool)
    large, small = structure.lattice.matrix, primitive.lattice.matrix
    fractions = np.where(own_axes, primitive.frac_coords, _together(primitive.frac_coords))
    for part in _transforms(large[axes], small[own_axes]):
        transform, vectors, periods = np.zeros((3, 3), dtype=int), np.empty((3, 3)), np.empty((3, 3))
        transform[np.ix_(axes, own_axes)] = part
        vectors[own_axes] = np.linalg.solve(part, large[axes])
        for axis, own in zip(np.flatnonzero(~axes), np.flatnonzero(~own_axes), strict=True):
            transform[axis, own] = 1
            vectors[own] = large[axis] * np.linalg.norm(small[own]) / np.linalg.norm(large[axis])
            periods[own] = large[axis]
        periods[own_axes] = vectors[own_axes]
        yield _LaidLattice(transform, fractions @ vectors, periods)


def _together(fractions: np.ndarray) -> np.ndarray:
    """Fractional coordinates (Q, 3), each taken so that the widest gap along its axis is not between them."""
    fractions = fractions % 1.0
    ascending = np.sort(fractions, axis=0)
    gaps = np.diff(np.concatenate([ascending, ascending[:1] + 1.0]), axis=0)
    last = np.take_along_axis(ascending, gaps.argmax(axis=0)[None], axis=0)
    return np.where(fractions > last, fractions - 1.0, fractions)


def _transforms(large: np.ndarray, small: np.ndarray) -> Iterator[np.ndarray]:
    """Integer matrices (d, d) that make the vectors `small` (d, 3) to `large`, as they are or turned."""
    direct = np.rint(large @ np.linalg.pinv(small)).astype(int)
    shortest = np.linalg.norm(small, axis=1).min(initial=np.inf)
    tolerance = np.minimum(UNAMBIGUOUS * shortest, DIRECT_STRAIN * np.linalg.norm(large, axis=1))
    if (np.linalg.norm(direct @ small - large, axis=1) < tolerance).all():
        yield direct
    if not len(small):  # a molecule, which is its own
        return
    metric, wanted = small @ small.T, large @ large.T
    scale = np.sqrt(np.outer(np.diag(wanted), np.diag(wanted)))
    reach = np.ceil((1 + STRAIN) * np.sqrt(np.diag(wanted).max(initial=0.0) * np.diag(np.linalg.inv(metric))))
    vectors = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij"), axis=-1).reshape(
        -1, len(reach)
    )
    squares = np.einsum("vi,ij,vj->v", vectors, metric, vectors)
    found = [np.empty((0, len(large)))]
    for row, square in enumerate(np.diag(wanted)):
        candidates = vectors[abs(squares / square - 1) < 2 * STRAIN]
        found = [
            np.concatenate([part, candidate[None]])
            for part in found
            for candidate in candidates[
                (abs(candidates @ metric @ part.T - wanted[row, :row]) < STRAIN * scale[row, :row]).all(axis=1)
            ]
        ]
    turned = [part.astype(int) for part in found if np.linalg.det(part) > 0.5]
    yield from sorted(turned, key=lambda part: -float((np.linalg.solve(part, large) * small).sum()))


def _matched(structure: Structure, primitive: Structure, lattice: _LaidLattice, tolerance: float) -> SupercellMap:
    """The nearest site of each atom, with the origin for which most atoms stand on one of their element."""
    atoms, sites = structure.cart_coords, lattice.sites
    same = np.array([[atom.specie == site.specie for site in primitive] for atom in structure])
    inverse = np.linalg.inv(lattice.periods)

    def nearest(origin: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        away = atoms[:, None] - sites - origin
        cells = np.rint(away @ inverse).astype(int)
        away = away - cells @ lattice.periods
        site = np.linalg.norm(away, axis=2).argmin(axis=1)
        one = np.arange(len(atoms))
        return site, cells[one, site], away[one, site]

    def fitting(origin: np.ndarray) -> np.ndarray:
        site, _, away = nearest(origin)
        return (np.linalg.norm(away, axis=1) < tolerance) & same[np.arange(len(atoms)), site]

    trials = np.unique(np.linspace(0, len(atoms) - 1, TRIAL_ATOMS).astype(int))
    origins = [np.zeros(3), *(atoms[atom] - site for atom in trials for site in sites)]
    origin = max(origins, key=lambda origin: int(fitting(origin).sum()))
    origin = origin + nearest(origin)[2][fitting(origin)].mean(axis=0) if fitting(origin).any() else origin
    site, cells, away = nearest(origin)
    distance = np.linalg.norm(away, axis=1)
    lone = distance >= tolerance
    lone[_not_first(site, cells, lattice.transform, distance)] = True
    return SupercellMap(
        lattice.transform, np.where(lone, -1, site), cells, np.where(lone, np.nan, distance), len(sites)
    )


def _not_first(site: np.ndarray, cells: np.ndarray, transform: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """The atoms whose site has another atom that is closer."""
    determinant = round(float(np.linalg.det(transform)))
    adjugate = np.rint(np.linalg.inv(transform) * determinant).astype(int)
    places = np.column_stack([site, cells @ adjugate % abs(determinant)])  # equal for images in different supercells
    order = np.argsort(distance)
    _, first = np.unique(places[order], axis=0, return_index=True)
    return np.delete(order, first)
