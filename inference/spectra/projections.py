"""Groups of orbitals, and the shares that they have in bands.

Shape letters: M rows of H(k), P groups, K k-points, n bands, s spin channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from scipy import sparse

from deeph_tracegrad.inference.bands import BandStructure
from deeph_tracegrad.inference.bloch import bloch_operators
from deeph_tracegrad.inference.kpoints import over_k_points
from deeph_tracegrad.inference.solvers import Selection
from deeph_tracegrad.inference.spectra.states import States, in_columns
from deeph_tracegrad.material import Material
from deeph_tracegrad.orbitals import SHELL_LETTERS, ElementBasis

EDGE_STATES = 4  # more than are wanted: copies of the lowest and the highest level, as near to the middle as these
ORBITAL_NAMES = (  # by degree, in the order of the magnetic numbers -l..l
    ("s",),
    ("py", "pz", "px"),
    ("dxy", "dyz", "dz²", "dxz", "dx²−y²"),
    ("fy(3x²−y²)", "fxyz", "fyz²", "fz³", "fxz²", "fz(x²−y²)", "fx(x²−3y²)"),
    tuple(f"g{m:+d}" for m in range(-4, 5)),
)


class Grouping(StrEnum):
    """What orbitals are taken together."""

    ELEMENT = "element"  # Mo
    SHELL = "shell"  # Mo d: all radial functions of one degree
    ORBITAL = "orbital"  # Mo dz²
    ATOM = "atom"  # Mo1: numbered from 1 in the structure's order


@dataclass(frozen=True, eq=False)
class OrbitalGroups:
    """Every row of H(k) belongs to one group.

    labels: (P,). members: (P, M), 1 where the row belongs to the group.
    """

    labels: tuple[str, ...]
    members: sparse.csr_array

    @classmethod
    def of(cls, material: Material, grouping: Grouping) -> "OrbitalGroups":
        """The groups of a material, in the order of its basis or of its atoms; an orbital's spins share one."""
        if grouping is Grouping.ATOM:
            names = [[f"{element}{atom + 1}"] for atom, element in enumerate(material.elements)]
            sizes = material.basis.num_orbitals(material.elements)
            rows = [name * int(size) for name, size in zip(names, sizes, strict=True)]
        else:
            of_element = {element: _names(element, basis, grouping) for element, basis in material.basis.items()}
            rows = [of_element[element] for element in material.elements]
            names = [of_element[element] for element in material.basis if element in material.elements]
        labels = tuple(dict.fromkeys(name for part in names for name in part))
        place = {label: number for number, label in enumerate(labels)}
        groups = [place[name] for part in rows for name in part * material.spin.components]
        shape = (len(labels), len(groups))
        return cls(labels, sparse.csr_array((np.ones(len(groups)), (groups, np.arange(len(groups)))), shape=shape))


@dataclass(frozen=True, eq=False)
class BandProjections:
    """What each group of orbitals has of each band: Mulliken's share, 1 in sum.

    labels: (P,). weights: (s, K, n, P), for the bands of a BandStructure; NaN where a state was not computed.
    """

    labels: tuple[str, ...]
    weights: np.ndarray


def project_bands(material: Material, bands: BandStructure, grouping: Grouping) -> BandProjections:
    """The shares of the groups in bands that were computed of this material; the MPI ranks share the k-points.

    Raises:
        SolverError: the eigenproblem has no solution.
    """
    operators = bloch_operators(material)
    groups = OrbitalGroups.of(material, grouping)
    columns = range(bands.first_band, bands.first_band + bands.energies.shape[2])
    known = dict(zip(map(tuple, bands.path.k), bands.energies.swapaxes(0, 1), strict=True))

    def solve(k: np.ndarray) -> np.ndarray:
        overlap, shares = operators.overlap.at_k(k), []
        for channel, energies in zip(operators.hamiltonian, known[tuple(k)], strict=True):
            states = States.of(channel.at_k(k), overlap, _around(energies[~np.isnan(energies)]))
            shares.append(in_columns((groups.members @ states.populations).T, states.first, columns))
        return np.array(shares)

    weights = np.array(over_k_points(solve, bands.path.k, operators.num_orbitals, "projections")).swapaxes(0, 1)
    return BandProjections(groups.labels, np.where(np.isnan(bands.energies)[..., None], np.nan, weights))


def _around(energies: np.ndarray) -> Selection:
    """States with these energies (n,), known to be consecutive: they are the nearest to their middle."""
    if not len(energies):
        return Selection(num_bands=1)
    return Selection(num_bands=len(energies) + EDGE_STATES, centre=float(energies[0] + energies[-1]) / 2)


def _names(element: str, basis: ElementBasis, grouping: Grouping) -> list[str]:
    """The group of each orbital of an element."""
    if grouping is Grouping.ELEMENT:
        return [element] * basis.num_orbitals
    of_degree: Sequence[Sequence[str]] = (
        ORBITAL_NAMES
        if grouping is Grouping.ORBITAL
        else [[letter] * (2 * degree + 1) for degree, letter in enumerate(SHELL_LETTERS)]
    )
    return [f"{element} {name}" for degree in basis.shells for name in of_degree[degree]]
