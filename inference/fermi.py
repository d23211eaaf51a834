"""The Fermi level from the electron count.

Shape letters: K k-points, n bands, s spin channels.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.constants import physical_constants
from scipy.optimize import brentq
from scipy.special import erfc, expit

from deeph_tracegrad.errors import SolverError
from deeph_tracegrad.inference.bloch import BlochOperators
from deeph_tracegrad.inference.counted_fermi import CountedStates, onsite_guess
from deeph_tracegrad.inference.gap import ZERO_GAP, band_edges, mesh_energies, search_band_edges
from deeph_tracegrad.inference.kept_results import KeptResults, Origin
from deeph_tracegrad.inference.kpoints import mesh_divisions, mesh_points
from deeph_tracegrad.inference.solvers import DENSE_LIMIT, SMALL_CELL
from deeph_tracegrad.material import Material
from deeph_tracegrad.orbitals import SpinMode

BOLTZMANN_EV = physical_constants["Boltzmann constant in eV/K"][0]
MESH_DENSITY = 40.0  # k-points for each 1/Å (without 2π); iron is within 5 meV of the limit

Occupation = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class FermiLevel:
    """The Fermi level and the band edges at it.

    level: eV; the middle of the gap of an insulator. source: how it was found, for the user.
    valence_top, conduction_bottom: eV; None in a metal, infinite where no states were computed on that side.
    whole_zone: whether the states of the whole zone were looked at, or only those along a path.
    """

    level: float
    source: str
    valence_top: float | None = None
    conduction_bottom: float | None = None
    whole_zone: bool = False

    @property
    def gap(self) -> float:
        """Band gap in eV; 0 in a metal, infinite where one of its edges was not computed."""
        if self.valence_top is None or self.conduction_bottom is None:
            return 0.0
        return max(self.conduction_bottom - self.valence_top, 0.0)

    @property
    def is_metal(self) -> bool:
        """Whether there is no gap at the Fermi level."""
        return self.gap < ZERO_GAP


def fermi_dirac(temperature: float) -> Occupation:
    """Occupation of a state at E - E_F (eV), for a temperature in K."""
    return lambda energy: expit(-energy / (BOLTZMANN_EV * temperature))


def gaussian(width: float) -> Occupation:
    """Occupation of a state at E - E_F (eV) that is smeared by exp(-(E/width)²), width in eV."""
    return lambda energy: erfc(energy / width) / 2


def chemical_potential(
    energies: np.ndarray, weights: np.ndarray, electrons: float, occupation: Occupation, electrons_per_state: int
) -> float:
    """The level at which the states hold the electrons, eV.

    Args:
        energies: (s, K, n) eV.
        weights: (K,) of the k-points; their sum is 1.
        electrons: in the cell.
        occupation: of a state, from its energy above the level.
        electrons_per_state: 2 where a state stands for both spins.

    Raises:
        SolverError: the states cannot hold so many electrons.
    """

    def excess(level: float) -> float:
        filling = occupation(energies - level).sum(axis=(0, 2)) @ weights
        return float(electrons_per_state * filling - electrons)

    low, high = energies.min() - 10.0, energies.max() + 10.0
    if excess(low) > 0 or excess(high) < 0:
        raise SolverError(
            f"{electrons:g} electrons do not fit into {energies.shape[0] * energies.shape[2]} bands of "
            f"{electrons_per_state} electrons; check the electron count and the basis"
        )
    return float(brentq(excess, low, high, xtol=1e-10))


def fermi_level_of_mesh(
    energies: np.ndarray, weights: np.ndarray, electrons: float, occupation: Occupation, electrons_per_state: int
) -> FermiLevel:
    """Middle of the gap where the electrons fill whole bands, else the chemical potential; arguments as there."""
    order = np.argsort(energies, axis=None)
    filled = np.cumsum(np.broadcast_to(weights[:, None], energies.shape).ravel()[order]) * electrons_per_state
    highest = int(np.searchsorted(filled, electrons - 1e-6))
    if highest + 1 < len(order) and abs(filled[highest] - electrons) < 1e-6:
        level = float(energies.ravel()[order[highest : highest + 2]].mean())
        edges = band_edges(energies, level)
        if edges is not None and edges[1] - edges[0] >= ZERO_GAP:
            return FermiLevel(level, "", *edges)
    return FermiLevel(chemical_potential(energies, weights, electrons, occupation, electrons_per_state), "")


def find_fermi_level(
    material: Material,
    operators: BlochOperators,
    temperature: float = 300.0,
    *,
    direct: str = "auto",
    kept: KeptResults | None = None,
    origin: Origin | None = None,
) -> FermiLevel:
    """The Fermi level from the electron count; the source's own where that is unknown.

    Up to some thousand orbitals it follows from all states of a mesh, beyond from counts of states on it.

    direct: name of the direct solver that counts. kept: takes in the counts; origin: what decides them.

    Raises:
        SolverError: neither an electron count nor a Fermi level is known.
    """
    if material.electrons is not None:
        divisions = mesh_divisions(material.structure, MESH_DENSITY)
        k_points, weights = mesh_points(divisions, time_reversal=operators.is_real)
        per_state = 2 if material.spin is SpinMode.NONE else 1
        mesh = f"{material.electrons:g} electrons, k-mesh {'x'.join(map(str, divisions))}"
        if operators.num_orbitals > DENSE_LIMIT:
            counted = CountedStates(
                *(operators, k_points, weights, material.electrons, per_state, direct),
                *(kept or KeptResults(), origin or {}),
            )
            guess = onsite_guess(material, per_state) if material.fermi_level is None else material.fermi_level
            level, edges = counted.level(guess, fermi_dirac(temperature))
            how = f"{mesh}, by counts of states, {temperature:g} K" if edges is None else f"middle of the gap; {mesh}"
            top, bottom = edges or (None, None)
            return FermiLevel(level, how, top, bottom, whole_zone=len(k_points) > 1)
        energies = mesh_energies(operators, k_points)
        states = (energies, weights, material.electrons, fermi_dirac(temperature), per_state)
        found = fermi_level_of_mesh(*states)
        if not found.is_metal and operators.num_orbitals <= SMALL_CELL:
            top, bottom = search_band_edges(operators, k_points, energies, found.level, divisions)
            if bottom > top - ZERO_GAP:  # apart, or touching in a point
                found = FermiLevel((top + bottom) / 2, "", top, bottom)
            else:
                found = FermiLevel(chemical_potential(*states), "")
        how = f"{mesh}, {temperature:g} K" if found.is_metal else f"middle of the gap; {mesh}"
        return replace(found, source=how, whole_zone=True)
    if material.fermi_level is not None:
        return FermiLevel(material.fermi_level, "the source's own (no electron count)")
    raise SolverError("neither an electron count nor a Fermi level is known; give the level with --fermi")


def with_band_edges(fermi: FermiLevel, energies: np.ndarray) -> FermiLevel:
    """The Fermi level with the band edges that more states show, such as those along a path.

    energies: (s, K, n) eV with one band a column; NaN where a state was not computed.
    A level in the middle of a gap follows the edges; one from elsewhere stays where it is. What is a metal in the whole
    zone is one, even if no band crosses the level along the path.
    """
    edges = band_edges(energies, fermi.level)
    if edges is None or (fermi.whole_zone and fermi.is_metal):
        return replace(fermi, valence_top=None, conduction_bottom=None)
    if fermi.valence_top is None or fermi.conduction_bottom is None:
        return replace(fermi, valence_top=edges[0], conduction_bottom=edges[1])
    top, bottom = max(edges[0], fermi.valence_top), min(edges[1], fermi.conduction_bottom)
    return replace(fermi, level=(top + bottom) / 2, valence_top=top, conduction_bottom=bottom)
