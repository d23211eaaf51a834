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
from deeph_tracegrad.console import count, say
from deeph_tracegrad.errors import ConfigError, MismatchError
from deeph_tracegrad.inference.band_report import report_bands
from deeph_tracegrad.inference.bands import BandOptions, BandStructure, compute_bands
from deeph_tracegrad.inference.describe import headline, title
from deeph_tracegrad.inference.export import EXPORTS, write_bands
from deeph_tracegrad.inference.fermi import FermiLevel
from deeph_tracegrad.inference.figure import DEFAULT_FORMATS, INTERACTIVE, output_files
from deeph_tracegrad.inference.kept_results import KeptResults, kept_results
from deeph_tracegrad.inference.kpath import DENSITY, STEPS, KPath, choose_path, path_through
from deeph_tracegrad.inference.plot import plot_bands
from deeph_tracegrad.inference.solvers import SMALL_CELL
from deeph_tracegrad.inference.spectra.projections import BandProjections, Grouping, project_bands
from deeph_tracegrad.material import Material
from deeph_tracegrad.parallel import world

UNFINISHED = "unfinished"

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

    What takes long is kept in the folder OUT.unfinished until they are written, and taken from there.

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
        InterruptionError: Ctrl-C or SIGTERM.
    """
    started = time.monotonic()
    if compare is not None and wanted.grouping is not None:
        raise ConfigError("--project and --compare each make a picture of their own; give one of them")
    files = output_files(out, ("h5", *wanted.formats, *(EXPORTS[name][0] for name in wanted.exports)))
    for file in files:
        check_writable(file)
    with kept_results(out.with_name(f"{out.name}.{UNFINISHED}")) as kept:
        material = read_material(folder)
        say(headline(material))
        reference = None
        if compare is None:
            bands = compute_bands(material, _path(material, options), options, kept)
        elif compare.is_file():
            bands, reference = _beside_file(material, options, compare, read_printed(compare), kept)
        else:
            bands, reference = _beside_folder(material, options, compare, read_material(compare), kept)
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
    report_bands(bands, reference, options.window)
    say(f"written       {', '.join(map(str, files))}")
    say(f"time          {time.monotonic() - started:.1f} s")
    return bands


def _path(material: Material, options: BandOptions) -> KPath:
    """The path that the options ask for; of a large cell with fewer k-points."""
    large = material.num_orbitals * material.spin.components > SMALL_CELL
    path = choose_path(options.kpath, material.structure, options.density or (None if large else DENSITY))
    _say_path(
        path,
        f", {STEPS} a segment as the cell is large; --density for others" if large and options.density is None else "",
    )
    return path


def _say_path(path: KPath, hint: str = "") -> None:
    say(f"k-path        {' - '.join(path.ticks)}: {count(len(path.k), 'k-point')}{hint}")


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
    material: Material, options: BandOptions, file: Path, printed: PrintedBands, kept: KeptResults
) -> tuple[BandStructure, BandStructure]:
    """Our bands at the k-points of a file, and the file's own."""
    if options.kpath != "auto":
        raise ConfigError(f"{file} brings its own k-points, so --kpath cannot be given with it")
    _check_belongs(printed, material, file)
    labels = [segment.labels for segment in getattr(printed, "segments", ())]
    path, source = path_through(printed.k, material.structure, labels)
    _say_path(path)
    bands = compute_bands(material, path, options, kept)
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
    material: Material, options: BandOptions, folder: Path, other: Material, kept: KeptResults
) -> tuple[BandStructure, BandStructure]:
    """The bands of both on one path. Where only one knows its electrons, the other's same atoms have as many."""
    _check_comparable(material, other, folder)
    if sorted(material.elements) == sorted(other.elements):
        electrons = other.electrons if material.electrons is None else material.electrons
        material = replace(material, electrons=electrons)
        other = replace(other, electrons=electrons if other.electrons is None else other.electrons)
    path = _path(material, options)
    return compute_bands(material, path, options, kept), compute_bands(other, path, options, kept)


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


def _name(path: Path, other: Path | None) -> str:
    """A short name for the legend: with the parent's where both would be the same."""
    path = path.resolve()
    return f"{path.parent.name}/{path.name}" if other is not None and other.resolve().name == path.name else path.name
