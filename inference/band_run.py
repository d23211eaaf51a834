"""The command `bands`: compute, compare, write, and say what was found.

Shape letters: K k-points, n bands, s spin channels.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from deeph_tracegrad.atomic import check_writable
from deeph_tracegrad.console import say, warn
from deeph_tracegrad.errors import ConfigError, MismatchError
from deeph_tracegrad.inference.bands import BandOptions, BandStructure, band_difference, compute_bands
from deeph_tracegrad.inference.describe import headline, title
from deeph_tracegrad.inference.export import EXPORTS, write_bands
from deeph_tracegrad.inference.fermi import FermiLevel
from deeph_tracegrad.inference.figure import DEFAULT_FORMATS, INTERACTIVE, output_files
from deeph_tracegrad.inference.kpath import choose_path, path_through
from deeph_tracegrad.inference.plot import plot_bands
from deeph_tracegrad.inference.spectra.projections import BandProjections, Grouping, project_bands
from deeph_tracegrad.material import Material
from deeph_tracegrad.parallel import world

NEAR_FERMI = 2.0  # eV on either side
SOUND_RESIDUAL = 1e-6  # eV
TABLE_ROW = "{:16}{:>7}{:>10}{:>10}{:>11}{:>10}{:>10}"

ReadMaterial = Callable[[Path], Material]


class PrintedBands(Protocol):
    """Bands that a DFT code printed, from the lowest on: k (K, 3), energies (s, K, n) eV."""

    @property
    def k(self) -> np.ndarray:
        """k-points in units of the reciprocal vectors."""

    @property
    def energies(self) -> np.ndarray:
        """Energies in eV, absolute."""


ReadPrinted = Callable[[Path], PrintedBands]


@dataclass(frozen=True)
class BandFiles:
    """What is written beside OUT.h5.

    formats: of the pictures. exports: names in `export.EXPORTS`. grouping: draw the shares of these groups of orbitals
    instead of plain bands.
    """

    formats: tuple[str, ...] = DEFAULT_FORMATS
    exports: tuple[str, ...] = ()
    grouping: Grouping | None = None


def run_bands(
    folder: Path,
    out: Path,
    options: BandOptions,
    compare: Path | None,
    wanted: BandFiles = BandFiles(),
    *,
    read_material: ReadMaterial,
    read_printed: ReadPrinted,
) -> BandStructure:
    """Write the bands of a run to OUT.h5, pictures and exports, and print what they show.

    Args:
        folder: run or DeepH folder.
        out: prefix of the files.
        options: which bands.
        compare: a folder, or a file with the bands that a DFT code printed, whose k-points are then taken.
        wanted: which files.
        read_material: reads a folder.
        read_printed: reads such a file.

    Raises:
        TracegradError: something cannot be read, solved or compared.
    """
    started = time.monotonic()
    if compare is not None and wanted.grouping is not None:
        raise ConfigError("--project and --compare each make a picture of their own; give one of them")
    files = output_files(out, ("h5", *wanted.formats, *(EXPORTS[name][0] for name in wanted.exports)))
    for file in files:
        check_writable(file)
    material = read_material(folder)
    say(headline(material))
    reference = None
    if compare is None:
        bands = compute_bands(material, choose_path(options.kpath, material.structure, options.density), options)
    elif compare.is_file():
        bands, reference = _beside_file(material, options, compare, read_printed(compare))
    else:
        bands, reference = _beside_folder(material, options, compare, read_material(compare))

    projections = None if wanted.grouping is None else project_bands(material, bands, wanted.grouping)
    if world().is_main:
        write_bands(files[0], bands, projections)
        names = (_name(folder, compare), _name(compare, folder) if compare is not None else "")
        for file in files[1 : 1 + len(wanted.formats)]:
            if projections is None:
                _draw(file, bands, reference, names, title(material), options)
            else:
                _draw_projections(file, bands, projections, title(material), options)
        for name, file in zip(wanted.exports, files[1 + len(wanted.formats) :], strict=True):
            EXPORTS[name][1](file, bands)
    _report(bands, reference, options)
    say(f"written       {', '.join(map(str, files))}")
    say(f"time          {time.monotonic() - started:.1f} s")
    return bands


def _draw(
    file: Path,
    bands: BandStructure,
    reference: BandStructure | None,
    names: tuple[str, str],
    heading: str,
    options: BandOptions,
) -> None:
    if file.suffix == INTERACTIVE:
        from deeph_tracegrad.inference.interactive import bands_page

        bands_page(file, bands, reference, names=names, title=heading, window=options.window or bands.shown_range)
    else:
        plot_bands(file, bands, reference, names=names, title=heading, window=options.window)


def _draw_projections(
    file: Path, bands: BandStructure, projections: BandProjections, heading: str, options: BandOptions
) -> None:
    window = options.window or bands.shown_range
    if file.suffix == INTERACTIVE:
        from deeph_tracegrad.inference.spectra.pages import fat_bands_page

        fat_bands_page(file, bands, projections, window, heading)
    else:
        from deeph_tracegrad.inference.spectra.pictures import plot_fat_bands

        plot_fat_bands(file, bands, projections, window, heading)


def _beside_file(
    material: Material, options: BandOptions, file: Path, printed: PrintedBands
) -> tuple[BandStructure, BandStructure]:
    """Our bands at the k-points of a file, and the file's own."""
    if options.kpath != "auto":
        raise ConfigError(f"{file} brings its own k-points, so --kpath cannot be given with it")
    _check_belongs(printed, material, file)
    labels = [segment.labels for segment in getattr(printed, "segments", ())]
    path, source = path_through(printed.k, material.structure, labels)
    bands = compute_bands(material, path, options)
    energies = printed.energies[:, source]
    level = getattr(printed, "fermi_level", None)
    fermi = bands.fermi if level is None else FermiLevel(level, file.name)
    return bands, BandStructure(path, energies, np.full(energies.shape, np.nan), 0, fermi, bands.spin)


def _check_belongs(printed: PrintedBands, material: Material, file: Path) -> None:
    """A file of bands of this cell, in this basis."""
    channels, _, count = printed.energies.shape
    if channels != material.spin.channels:
        raise MismatchError(f"{file} has {channels} spin channels, the run has {material.spin.channels}")
    available = material.num_orbitals * material.spin.components
    if count > available:
        raise MismatchError(f"{file} has {count} bands, the run only {available}: it is of another run")
    theirs, ours = getattr(printed, "reciprocal", None), material.structure.lattice.reciprocal_lattice.matrix
    if theirs is not None and not np.allclose(theirs @ theirs.T, ours @ ours.T, atol=1e-2 * np.max(ours @ ours.T)):
        raise MismatchError(
            f"{file} has the reciprocal vectors {theirs.round(4).tolist()}, the run {ours.round(4).tolist()} (1/Å): "
            "it is of another cell"
        )


def _beside_folder(
    material: Material, options: BandOptions, folder: Path, other: Material
) -> tuple[BandStructure, BandStructure]:
    """The bands of both on one path. Where only one knows its electrons, the other's same atoms have as many."""
    _check_comparable(material, other, folder)
    if sorted(material.elements) == sorted(other.elements):
        electrons = other.electrons if material.electrons is None else material.electrons
        material = replace(material, electrons=electrons)
        other = replace(other, electrons=electrons if other.electrons is None else other.electrons)
    path = choose_path(options.kpath, material.structure, options.density)
    return compute_bands(material, path, options), compute_bands(other, path, options)


def _check_comparable(material: Material, other: Material, folder: Path) -> None:
    """Two materials whose bands can be laid over one another."""
    if material.spin is not other.spin or material.num_orbitals != other.num_orbitals:
        raise MismatchError(
            f"{folder} has {other.num_orbitals} orbitals and spin {other.spin}, the run {material.num_orbitals} and "
            f"{material.spin}; bands are compared one by one, which needs the same of both"
        )
    if not np.allclose(material.structure.lattice.parameters, other.structure.lattice.parameters, rtol=1e-2):
        raise MismatchError(
            f"{folder} has the lattice {other.structure.lattice.parameters}, the run "
            f"{material.structure.lattice.parameters} (Å, degrees); bands are compared at the same k in the same cell"
        )


def _report(bands: BandStructure, reference: BandStructure | None, options: BandOptions) -> None:
    path = bands.path
    last = bands.first_band + bands.energies.shape[2]
    say(f"k-path        {' - '.join(path.ticks)}: {len(path.k)} k-points")
    say(f"bands         {bands.first_band + 1} to {last}{' of each spin' if len(bands.energies) == 2 else ''}")
    say(f"Fermi level   {bands.fermi.level:.4f} eV ({bands.fermi.source})")
    say(f"band gap      {describe_gap(bands)}")
    largest = float(np.nanmax(bands.residuals))
    say(f"residual      {largest:.1e} eV at most")
    if largest > SOUND_RESIDUAL and world().is_main:
        warn(f"a residual of {largest:.1e} eV is large: the eigenproblem is ill-conditioned, do not trust all bands")
    if reference is not None:
        _report_differences(bands, reference, options)


def describe_gap(bands: BandStructure) -> str:
    """The band gap in words: its size, and where its edges lie."""
    fermi = bands.fermi
    if fermi.is_metal or fermi.valence_top is None or fermi.conduction_bottom is None:
        return "none: a metal or semimetal"
    if np.isinf(fermi.gap):
        return "unknown: no band was computed on one side of the Fermi level"
    scope = "" if fermi.whole_zone else "; of the states on this path alone"
    top, bottom = bands.k_of(fermi.valence_top), bands.k_of(fermi.conduction_bottom)
    names = ["off the path" if number is None else bands.path.name(number) for number in (top, bottom)]
    if top is not None and bottom is not None and np.allclose(bands.path.k[top], bands.path.k[bottom]):
        return f"{fermi.gap:.4f} eV, direct, {names[0]}{scope}"
    return f"{fermi.gap:.4f} eV, indirect, valence top {names[0]}, conduction bottom {names[1]}{scope}"


def _report_differences(bands: BandStructure, reference: BandStructure, options: BandOptions) -> None:
    """The table of differences: as they are, and without the constant by which all levels are off."""
    say(f"reference     Fermi level {reference.fermi.level:.4f} eV ({reference.fermi.source})")
    say()
    say("difference (meV)           as it is               without the shift")
    say(TABLE_ROW.format("around E_F", "states", "mean", "largest", "shift", "mean", "largest"))
    for window in [(-NEAR_FERMI, NEAR_FERMI), *([options.window] if options.window is not None else [])]:
        found = band_difference(bands, reference, window)
        values = (found.mean, found.largest, found.shift, found.mean_shifted, found.largest_shifted) if found else ()
        cells = [f"{1e3 * value:.3g}" for value in values] or ["-"] * 5
        states = f"{found.states:,}" if found else "0"
        say(TABLE_ROW.format(f"{window[0]:+g} to {window[1]:+g} eV", states, *cells))
    say()


def _name(path: Path, other: Path | None) -> str:
    """A short name for the legend: with the parent's where both would be the same."""
    path = path.resolve()
    return f"{path.parent.name}/{path.name}" if other is not None and other.resolve().name == path.name else path.name
