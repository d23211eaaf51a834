"""The spectral weight of a supercell's states on the k-points of a primitive cell.

C.-C. Lee, Y. Yamada-Takamura, T. Ozaki, J. Phys.: Condens. Matter 25, 345501 (2013). A row M of the supercell's H is
orbital m of a site in the primitive cell r(M). With L primitive cells in the supercell, a state c at K has at the
primitive k, which folds to K, the weight

    W(k) = Re Σ_m d*_m(k) s_m(k),  d_m(k) = L^-1/2 Σ_M exp(-2πi k·r(M)) c_M,  s_m(k) likewise of S c.

Over the L points k that fold to K the weights of a state add up to 1, less what its atoms without a site have.

Shape letters: M rows of H(k), m rows of the primitive cell, K k-points, n states, s spin channels, G energies.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import sparse
from scipy.ndimage import gaussian_filter1d

from deeph_tracegrad.inference.bands import DEFAULT_RANGE, BandOptions, BandStructure, choose_states, kept_bands
from deeph_tracegrad.inference.bloch import bloch_operators
from deeph_tracegrad.inference.fermi import FermiLevel, find_fermi_level
from deeph_tracegrad.inference.kpath import KPath
from deeph_tracegrad.inference.kpoints import over_k_points
from deeph_tracegrad.inference.spectra.states import States, in_columns, states_at_k
from deeph_tracegrad.inference.spectra.supercell import SupercellMap
from deeph_tracegrad.material import Material
from deeph_tracegrad.orbitals import SpinMode

SHOWN_MARGIN = 0.1  # eV above and below states that are shown alone
SHIFT_STEP = 0.005  # eV
SHIFT_SPREAD = 0.3  # eV, wide enough that distorted bands are fitted as a whole, not a flat one exactly


@dataclass(frozen=True, eq=False)
class UnfoldedStates:
    """States of a supercell and their weights along a path of the primitive cell.

    path: of the primitive cell. energies: (s, K, n) eV, absolute, ascending; NaN where a state was not computed, as
    are its weights: (s, K, n).
    """

    path: KPath
    energies: np.ndarray
    weights: np.ndarray
    fermi: FermiLevel
    spin: SpinMode
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def complete_range(self) -> tuple[float, float]:
        """Energies that a picture shows, eV around the Fermi level: the default, or less, where no k lacks a state."""
        relative = self.energies - self.fermi.level
        low = max(DEFAULT_RANGE[0], float(np.nanmin(relative, axis=2).max()))
        high = min(DEFAULT_RANGE[1], float(np.nanmax(relative, axis=2).min()))
        if low < high:
            return low, high
        return float(np.nanmin(relative)) - SHOWN_MARGIN, float(np.nanmax(relative)) + SHOWN_MARGIN

    def spectral_function(self, energies: np.ndarray, broadening: float) -> np.ndarray:
        """Weight for each eV with each state spread by a Gaussian, spins added: (K, G).

        energies: (G,) eV, absolute. broadening: standard deviation, eV.
        """
        result = np.zeros((len(self.path.k), len(energies)))
        for channel, weights in zip(self.energies, self.weights, strict=True):
            for point, (state_energies, state_weights) in enumerate(zip(channel, weights, strict=True)):
                known = ~np.isnan(state_energies)
                away = (energies[:, None] - state_energies[known]) / broadening
                result[point] += np.exp(-(away**2) / 2) @ state_weights[known]
        return result / (broadening * np.sqrt(2 * np.pi))

    def shift_of(self, reference: BandStructure, largest: float = 5.0) -> float:
        """How far these states lie above bands of the primitive cell on the same path: where they overlap most, eV.

        Two runs differ by a constant energy, and a defect moves the Fermi level, so neither zero is common to both.
        """
        shifts = np.arange(-largest, largest + SHIFT_STEP / 2, SHIFT_STEP)
        edges = np.append(shifts, shifts[-1] + SHIFT_STEP) - SHIFT_STEP / 2
        score = np.zeros(len(shifts))
        for place in range(len(self.path.k)):
            away = self.energies[:, place, :, None] - reference.energies[:, place, None]  # (s, n, bands)
            weights = np.broadcast_to(self.weights[:, place, :, None], away.shape)
            known = ~np.isnan(away)
            score += np.histogram(away[known], edges, weights=weights[known])[0]
        return float(shifts[gaussian_filter1d(score, SHIFT_SPREAD / SHIFT_STEP).argmax()])


@dataclass(frozen=True, eq=False)
class UnfoldedPicture:
    """What a picture of an unfolded spectrum shows.

    window: energies around the Fermi level, eV. broadening: standard deviation, eV. reference: bands of the primitive
    cell, on the energy scale of the supercell.
    """

    states: UnfoldedStates
    window: tuple[float, float]
    broadening: float
    reference: BandStructure | None
    title: str

    def shades(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """So many energies (G,) around the Fermi level, eV, and the weights (K, G) there: 1 of one whole state."""
        energies = np.linspace(*self.window, number)
        function = self.states.spectral_function(energies + self.states.fermi.level, self.broadening)
        return energies, function * self.broadening * np.sqrt(2 * np.pi)

    @property
    def reference_bands(self) -> np.ndarray:
        """The reference's energies from the Fermi level of the supercell, (s, K, n) eV; none without one."""
        return np.empty((0, 0, 0)) if self.reference is None else self.reference.energies - self.states.fermi.level


def unfold(material: Material, supercell: SupercellMap, path: KPath, options: BandOptions) -> UnfoldedStates:
    """The states of a supercell around its Fermi level, unfolded; the MPI ranks share the k-points.

    Args:
        material: the supercell.
        supercell: where its atoms stand.
        path: of the primitive cell.
        options: which states, as of bands.

    Raises:
        SolverError: the eigenproblem or the Fermi level has no solution, or no state lies in the window.
    """
    operators = bloch_operators(material)
    if options.fermi_level is None:
        fermi = find_fermi_level(material, operators)
    else:
        fermi = FermiLevel(options.fermi_level, "given by the user")
    selection = choose_states(options, operators, fermi.level)
    rows = PrimitiveRows.of(material, supercell)

    def solve(k: np.ndarray) -> list[tuple[int, np.ndarray]]:
        found = states_at_k(operators, supercell.transform @ k, selection)
        return [(states.first, np.column_stack([states.energies, rows.weights(states, k)])) for states in found]

    solved = over_k_points(solve, path.k, operators.num_orbitals, "unfolding")
    numbers = [(first, first + len(values)) for channels in solved for first, values in channels if len(values)]
    columns = range(min((first for first, _ in numbers), default=0), max((last for _, last in numbers), default=0))
    table = np.array([[in_columns(values, first, columns) for first, values in channels] for channels in solved])
    energies, weights = np.moveaxis(table.swapaxes(0, 1), -1, 0)
    kept = kept_bands(energies, selection)
    return UnfoldedStates(path, energies[..., kept], weights[..., kept], fermi, material.spin, material.provenance)


@dataclass(frozen=True, eq=False)
class PrimitiveRows:
    """Which row of the primitive cell each row of the supercell is, and in which cell.

    row: (M,) int, -1 for rows of atoms without a site. Of an element that is not the site's own, the rows are new ones.
    cell: (M, 3) int.
    """

    row: np.ndarray
    cell: np.ndarray
    num_cells: int

    @classmethod
    def of(cls, material: Material, supercell: SupercellMap) -> "PrimitiveRows":
        """From the sites of the atoms and the basis of their elements."""
        sizes = material.basis.num_orbitals(material.elements) * material.spin.components
        atom = np.repeat(np.arange(len(sizes)), sizes)
        inside = np.arange(len(atom)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        species = material.basis.species(material.elements)
        keys = np.column_stack([supercell.site[atom], species[atom], inside])
        row = np.unique(keys, axis=0, return_inverse=True)[1].ravel()
        return cls(np.where(supercell.site[atom] < 0, -1, row), supercell.cell[atom], supercell.num_cells)

    def weights(self, states: States, k: np.ndarray) -> np.ndarray:
        """W(k) of each state, (n,)."""
        member = np.flatnonzero(self.row >= 0)
        phases = np.exp(-2j * np.pi * (self.cell[member] @ k)) / np.sqrt(self.num_cells)
        shape = (int(self.row.max()) + 1, len(self.row))
        bloch_sum = sparse.csr_array((phases, (self.row[member], member)), shape=shape)
        return ((bloch_sum @ states.coefficients).conj() * (bloch_sum @ states.image)).real.sum(axis=0)
