"""Band structures along a path, and how far two of them lie apart.

Shape letters: K k-points, n bands, s spin channels.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from deeph_tracegrad.console import say
from deeph_tracegrad.errors import ConfigError, SolverError
from deeph_tracegrad.inference.bloch import BlochOperators, bloch_operators
from deeph_tracegrad.inference.checks import check_fermi_level, check_window
from deeph_tracegrad.inference.fermi import FermiLevel, find_fermi_level, with_band_edges
from deeph_tracegrad.inference.kpath import KPath
from deeph_tracegrad.inference.kpoints import over_k_points
from deeph_tracegrad.inference.solvers import SMALL_CELL, Selection, SlepcSolver, Spectrum, choose_solver
from deeph_tracegrad.material import Material
from deeph_tracegrad.orbitals import SpinMode

DEFAULT_NUM_BANDS = 100  # of a cell with too many orbitals to compute all
DEFAULT_RANGE = (-6.0, 6.0)  # eV around the Fermi level, in pictures
OFF_PATH = 1e-3  # eV; a band edge that no state on the path comes closer to is elsewhere in the zone


@dataclass(frozen=True)
class BandOptions:
    """What bands are wanted.

    kpath: 'auto', corners, or the name of a file. window: energies around the Fermi level, eV.
    num_bands: only so many bands, nearest to the Fermi level. density: k-points for each 1/Å of path (without 2π).
    fermi_level: eV; None to find it.
    """

    kpath: str = "auto"
    window: tuple[float, float] | None = None
    num_bands: int | None = None
    density: float = 200.0
    fermi_level: float | None = None

    def __post_init__(self) -> None:
        if self.window is not None and self.num_bands is not None:
            raise ConfigError("--window and --num-bands each say which bands are wanted; give one of them")
        if self.window is not None:
            check_window(self.window)
        if self.fermi_level is not None:
            check_fermi_level(self.fermi_level)


@dataclass(frozen=True, eq=False)
class BandStructure:
    """Bands along a path.

    energies: (s, K, n) eV, absolute; NaN where a state was not computed. Column b is band `first_band` + b, counted
    from 0 at the lowest band of the basis.
    residuals: (s, K, n) ||H c - E S c|| / ||S c||, eV.
    """

    path: KPath
    energies: np.ndarray
    residuals: np.ndarray
    first_band: int
    fermi: FermiLevel
    spin: SpinMode
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def complete(self) -> "BandStructure":
        """Only the bands from the first to the last that were computed at every k-point of the path.

        Raises:
            SolverError: there is none.
        """
        known = np.flatnonzero(~np.isnan(self.energies).any(axis=(0, 1)))
        if not len(known):
            raise SolverError("no band was computed at every k-point of the path; give a wider --window")
        kept = slice(int(known[0]), int(known[-1]) + 1)
        return replace(
            self,
            energies=self.energies[:, :, kept],
            residuals=self.residuals[:, :, kept],
            first_band=self.first_band + kept.start,
        )

    @property
    def shown_range(self) -> tuple[float, float]:
        """Energies that a picture shows, eV around the Fermi level: the default, or less where few were computed."""
        relative = self.energies - self.fermi.level
        lowest, highest = float(np.nanmin(relative)), float(np.nanmax(relative))
        margin = max(0.05 * (highest - lowest), 0.1)
        low, high = max(DEFAULT_RANGE[0], lowest - margin), min(DEFAULT_RANGE[1], highest + margin)
        return (low, high) if low < high else (lowest - margin, highest + margin)  # all far from the Fermi level

    def k_of(self, energy: float) -> int | None:
        """The k-point of the path where a state has this energy; None where none comes within 1 meV."""
        distance = np.abs(self.energies - energy)
        if np.nanmin(distance) > OFF_PATH:
            return None
        return int(np.unravel_index(np.nanargmin(distance), distance.shape)[1])


@dataclass(frozen=True)
class BandDifference:
    """How far two band structures lie apart over some states, eV.

    shift: mean of E - E_reference. The `shifted` figures are those that remain without it.
    """

    states: int
    mean: float
    largest: float
    shift: float
    mean_shifted: float
    largest_shifted: float


def compute_bands(material: Material, path: KPath, options: BandOptions) -> BandStructure:
    """The bands of a material along a path; the MPI ranks share the k-points.

    Raises:
        SolverError: the eigenproblem or the Fermi level has no solution, or no band lies in the window.
    """
    try:
        return _computed(material, path, options)
    except SolverError as error:
        raise SolverError(f"{material.provenance.get('source', 'the input')}: {error}") from error


def _computed(material: Material, path: KPath, options: BandOptions) -> BandStructure:
    operators = bloch_operators(material)
    if options.fermi_level is None:
        fermi = find_fermi_level(material, operators)
    else:
        fermi = FermiLevel(options.fermi_level, "given by the user")
    selection = _selection(options, operators, fermi.level)
    solver = choose_solver(operators.num_orbitals, selection)

    def solve(k: np.ndarray) -> list[Spectrum]:
        overlap = operators.overlap.at_k(k)
        return [solver(channel.at_k(k), overlap) for channel in operators.hamiltonian]

    together = isinstance(solver, SlepcSolver)
    spectra = over_k_points(solve, path.k, operators.num_orbitals, "bands", together=together)
    energies, residuals, first_band = _aligned(spectra)
    kept = _kept_bands(energies, selection)
    return BandStructure(
        path,
        energies[:, :, kept],
        residuals[:, :, kept],
        first_band + kept.start,
        with_band_edges(fermi, energies),
        material.spin,
        material.provenance,
    )


def band_difference(
    bands: BandStructure, reference: BandStructure, window: tuple[float, float]
) -> BandDifference | None:
    """How far bands lie from those of a reference at the same k-points.

    Counted are the states of the reference in a window (eV) around its Fermi level; None where none are shared.
    """
    start = max(bands.first_band, reference.first_band)
    ours = bands.energies[:, :, start - bands.first_band :]
    theirs = reference.energies[:, :, start - reference.first_band :]
    shared = min(ours.shape[2], theirs.shape[2])
    ours, theirs = ours[:, :, :shared], theirs[:, :, :shared]
    relative = theirs - reference.fermi.level
    counted = (relative >= window[0]) & (relative <= window[1]) & ~np.isnan(ours)  # NaN is in no window
    if not counted.any():
        return None
    difference = (ours - theirs)[counted]
    shift = float(difference.mean())
    error, shifted = np.abs(difference), np.abs(difference - shift)
    return BandDifference(
        len(difference), float(error.mean()), float(error.max()), shift, float(shifted.mean()), float(shifted.max())
    )


def _selection(options: BandOptions, operators: BlochOperators, level: float) -> Selection:
    if options.window is not None:
        return Selection(window=(level + options.window[0], level + options.window[1]), centre=level)
    if options.num_bands is None and operators.num_orbitals > SMALL_CELL:
        say(
            f"{operators.num_orbitals:,} orbitals: only the {DEFAULT_NUM_BANDS} bands nearest to the Fermi level; "
            "--window or --num-bands for others"
        )
        return Selection(num_bands=DEFAULT_NUM_BANDS, centre=level)
    return Selection(num_bands=options.num_bands, centre=level)


def _aligned(spectra: list[list[Spectrum]]) -> tuple[np.ndarray, np.ndarray, int]:
    """Spectra of each k and spin as arrays (s, K, n) with one band a column, and the number of the first band."""
    everything = [spectrum for channels in spectra for spectrum in channels if len(spectrum.energies)]
    first = min((spectrum.first for spectrum in everything), default=0)
    last = max((spectrum.first + len(spectrum.energies) for spectrum in everything), default=0)
    shape = (len(spectra[0]), len(spectra), last - first)
    energies, residuals = np.full(shape, np.nan), np.full(shape, np.nan)
    for number, channels in enumerate(spectra):
        for spin, spectrum in enumerate(channels):
            columns = slice(spectrum.first - first, spectrum.first - first + len(spectrum.energies))
            energies[spin, number, columns], residuals[spin, number, columns] = spectrum.energies, spectrum.residuals
    return energies, residuals, first


def _kept_bands(energies: np.ndarray, selection: Selection) -> slice:
    """The bands that enter the window, or that come nearest to the centre; of either spin."""
    if not energies.shape[2]:
        raise SolverError("no band lies in the window; give a wider --window, and check the Fermi level")
    if selection.window is not None:
        inside = (energies >= selection.window[0]) & (energies <= selection.window[1])
        wanted = np.flatnonzero(inside.any(axis=(0, 1)))
        if not len(wanted):
            raise SolverError("no band lies in the window; give a wider --window, and check the Fermi level")
    elif selection.num_bands is not None:
        distance = np.nanmin(np.abs(energies - selection.centre), axis=(0, 1))
        wanted = np.argsort(distance, kind="stable")[: selection.num_bands]
    else:
        wanted = np.arange(energies.shape[2])
    return slice(int(wanted.min()), int(wanted.max()) + 1)
