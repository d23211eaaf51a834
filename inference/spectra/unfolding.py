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

from deeph_tracegrad.errors import SolverError
from deeph_tracegrad.inference.bands import BandStructure
from deeph_tracegrad.inference.bloch import bloch_operators
from deeph_tracegrad.inference.fermi import FermiLevel, find_fermi_level
from deeph_tracegrad.inference.kpath import KPath
from deeph_tracegrad.inference.kpoints import over_k_points
from deeph_tracegrad.inference.spectra.states import States, states_at_k
from deeph_tracegrad.inference.spectra.supercell import SupercellMap
from deeph_tracegrad.material import Material
from deeph_tracegrad.orbitals import SpinMode

SHIFT_STEP = 0.005  # eV
SHIFT_SPREAD = 0.3  # eV, wide enough that distorted bands are fitted as a whole, not a flat one exactly


@dataclass(frozen=True, eq=False)
class UnfoldedStates:
    """States of a supercell and their weights along a path of the primitive cell.

    path: of the primitive cell. energies: (s, K, n) eV, absolute, ascending. weights: (s, K, n).
    """

    path: KPath
    energies: np.ndarray
    weights: np.ndarray
    fermi: FermiLevel
    spin: SpinMode
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def spectral_function(self, energies: np.ndarray, broadening: float) -> np.ndarray:
        """Weight for each eV with each state spread by a Gaussian, spins added: (K, G).

        energies: (G,) eV, absolute. broadening: standard deviation, eV.
        """
        result = np.zeros((len(self.path.k), len(energies)))
        for channel, weights in zip(self.energies, self.weights, strict=True):
            for point, (state_energies, state_weights) in enumerate(zip(channel, weights, strict=True)):
                away = (energies[:, None] - state_energies) / broadening
                result[point] += np.exp(-(away**2) / 2) @ state_weights
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
            score += np.histogram(away, edges, weights=weights)[0]
        return float(shifts[gaussian_filter1d(score, SHIFT_SPREAD / SHIFT_STEP).argmax()])


def unfold(
    material: Material, supercell: SupercellMap, path: KPath, window: tuple[float, float], fermi_level: float | None
) -> UnfoldedStates:
    """The states of a supercell in a window around its Fermi level, unfolded; the MPI ranks share the k-points.

    Args:
        material: the supercell.
        supercell: where its atoms stand.
        path: of the primitive cell.
        window: energies around the Fermi level, eV.
        fermi_level: eV; None to find it.

    Raises:
        SolverError: the eigenproblem or the Fermi level has no solution, or no state lies in the window.
    """
    operators = bloch_operators(material)
    if fermi_level is None:
        fermi = find_fermi_level(material, operators)
    else:
        fermi = FermiLevel(fermi_level, "given by the user")
    rows = PrimitiveRows.of(material, supercell)

    def solve(k: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        return [
            (states.energies, rows.weights(states, k)) for states in states_at_k(operators, supercell.transform @ k)
        ]

    solved = over_k_points(solve, path.k, operators.num_orbitals, "unfolding")
    energies, weights = (
        np.array([[channel[part] for channel in channels] for channels in solved]).swapaxes(0, 1) for part in (0, 1)
    )
    inside = ((energies >= fermi.level + window[0]) & (energies <= fermi.level + window[1])).any(axis=(0, 1))
    if not inside.any():
        raise SolverError("no state lies in the window; give a wider --window, and check the Fermi level")
    return UnfoldedStates(path, energies[..., inside], weights[..., inside], fermi, material.spin, material.provenance)


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
