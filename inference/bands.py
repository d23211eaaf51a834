"""Band structures along a path.

Shape letters: K k-points, n bands, s spin channels.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from deeph_tracegrad import __version__
from deeph_tracegrad.console import say
from deeph_tracegrad.errors import ConfigError, SolverError
from deeph_tracegrad.inference.bloch import BlochOperators, bloch_operators
from deeph_tracegrad.inference.checks import check_fermi_level, check_window
from deeph_tracegrad.inference.fermi import FermiLevel, find_fermi_level, with_band_edges
from deeph_tracegrad.inference.kept_points import KeptPoints
from deeph_tracegrad.inference.kept_results import KeptResults, Origin, fingerprint
from deeph_tracegrad.inference.kpath import KPath
from deeph_tracegrad.inference.solvers import (
    DENSE_LIMIT,
    SMALL_CELL,
    Selection,
    Spectrum,
    choose_direct_solver,
    choose_solver,
    fastest_solver,
)
from deeph_tracegrad.inference.window import WINDOW_STATES, half_width
from deeph_tracegrad.material import Material
from deeph_tracegrad.orbitals import SpinMode
from deeph_tracegrad.parallel import world

DEFAULT_RANGE = (-6.0, 6.0)  # eV around the Fermi level, in pictures
OFF_PATH = 1e-3  # eV; a band edge that no state on the path comes closer to is elsewhere in the zone


@dataclass(frozen=True)
class BandOptions:
    """What bands are wanted.

    kpath: 'auto', corners, or the name of a file. window: energies around the Fermi level, eV.
    num_bands: only so many bands, nearest to the Fermi level. density: k-points for each 1/Å of path (without 2π); None
    for what suits the size of the cell. fermi_level: eV; None to find it.
    solver, direct: names for `choose_solver`.
    """

    kpath: str = "auto"
    window: tuple[float, float] | None = None
    num_bands: int | None = None
    density: float | None = None
    fermi_level: float | None = None
    solver: str = "auto"
    direct: str = "auto"

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


def compute_bands(
    material: Material, path: KPath, options: BandOptions, kept: KeptResults | None = None
) -> BandStructure:
    """The bands of a material along a path; the MPI ranks share the k-points.

    kept: results of a calculation that was interrupted, which takes in those of this one.

    Raises:
        ConfigError: a solver is not there.
        SolverError: the eigenproblem or the Fermi level has no solution, or no band lies in the window.
    """
    try:
        return _computed(material, path, options, kept or KeptResults())
    except SolverError as error:
        raise SolverError(f"{material.provenance.get('source', 'the input')}: {error}") from error


def _computed(material: Material, path: KPath, options: BandOptions, kept: KeptResults) -> BandStructure:
    operators = bloch_operators(material)
    direct = choose_direct_solver(options.direct)
    origin = {"input": fingerprint(material), "version of the program": __version__, "direct solver": direct}
    fermi = _fermi_level(material, operators, options, kept, origin)
    selection = choose_states(options, operators, fermi.level)
    name = fastest_solver(operators.num_orbitals, selection) if options.solver == "auto" else options.solver
    solver = choose_solver(operators.num_orbitals, selection, name, options.direct)
    origin |= {"solver": name, "choice of bands": repr(selection)}
    points = KeptPoints(kept, "k-point", origin)
    _say_what_is_kept(points, path, kept, origin)
    energies, residuals, first_band = _aligned(points.spectra(operators, solver, path.k, "bands"))
    chosen = kept_bands(energies, selection)
    return BandStructure(
        path,
        energies[:, :, chosen],
        residuals[:, :, chosen],
        first_band + chosen.start,
        with_band_edges(fermi, energies),
        material.spin,
        {**material.provenance, "solver": f"{name}, {direct}" if name == "shift-invert" else name},
    )


def _fermi_level(
    material: Material, operators: BlochOperators, options: BandOptions, kept: KeptResults, origin: Origin
) -> FermiLevel:
    if options.fermi_level is not None:
        return FermiLevel(options.fermi_level, "given by the user")
    known = kept.find("Fermi level", origin)
    if known:
        say("kept          the Fermi level of a calculation that was interrupted")
        return FermiLevel(**known[0])
    if operators.num_orbitals > DENSE_LIMIT and material.electrons is not None:
        say("Fermi level   sought by counts of states on a mesh, which takes long; --fermi gives a known one")
    fermi = find_fermi_level(material, operators, direct=options.direct, kept=kept, origin=origin)
    if world().is_main:
        kept.add("Fermi level", origin, asdict(fermi))
    return fermi


def _say_what_is_kept(points: KeptPoints, path: KPath, kept: KeptResults, origin: Origin) -> None:
    wanted = set(map(tuple, path.k.tolist()))
    done = len(wanted & set(points.known))
    if done:
        say(f"kept          {done} of {len(wanted)} k-points of a calculation that was interrupted")
    else:
        kept.explain_unused("k-point", origin)


def choose_states(options: BandOptions, operators: BlochOperators, level: float) -> Selection:
    """The states that are asked for; of a large cell by default those of a window around the Fermi level (eV)."""
    if options.window is not None:
        return Selection(window=(level + options.window[0], level + options.window[1]), centre=level)
    everything = options.solver == "dense" or (options.solver == "auto" and operators.num_orbitals <= SMALL_CELL)
    if options.num_bands is not None or everything:
        return Selection(num_bands=options.num_bands, centre=level)
    half = half_width(operators, level, options.solver, options.direct)
    say(
        f"window        {-half:g} to {half:g} eV, for the {WINDOW_STATES} states nearest to the Fermi level at Γ; "
        "--window or --num-bands for others"
    )
    return Selection(window=(level - half, level + half), num_bands=WINDOW_STATES, centre=level)


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


def kept_bands(energies: np.ndarray, selection: Selection) -> slice:
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
