"""The command `unfold`: lay the primitive lattice over the supercell, solve, write, and say what was found."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pymatgen.core.structure import Structure

from deeph_tracegrad.atomic import check_writable
from deeph_tracegrad.console import count, say
from deeph_tracegrad.inference.bands import BandOptions, BandStructure, compute_bands
from deeph_tracegrad.inference.checks import check_positive
from deeph_tracegrad.inference.describe import headline, title
from deeph_tracegrad.inference.figure import INTERACTIVE, output_files
from deeph_tracegrad.inference.kpath import choose_path
from deeph_tracegrad.inference.spectra.files import write_unfolded
from deeph_tracegrad.inference.spectra.supercell import SupercellMap, map_supercell
from deeph_tracegrad.inference.spectra.unfolding import UnfoldedPicture, UnfoldedStates, unfold
from deeph_tracegrad.material import Material
from deeph_tracegrad.parallel import world

WINDOW_PARTS = 120  # the window in units of the default broadening


@dataclass(frozen=True)
class UnfoldOptions:
    """What unfolded spectrum is wanted.

    bands: which states, as of bands; kpath and density are of the primitive cell. broadening: standard deviation in the
    picture, eV; None for a share of the window. tolerance: between atom and site, Å.
    """

    bands: BandOptions
    broadening: float | None = None
    tolerance: float = 0.7

    def __post_init__(self) -> None:
        if self.broadening is not None:
            check_positive("--broadening", self.broadening)
        check_positive("--tolerance", self.tolerance)


@dataclass(frozen=True, eq=False)
class PrimitiveCell:
    """What is known of the primitive cell: its structure, and maybe its matrices."""

    structure: Structure
    material: Material | None = None


def run_unfold(
    folder: Path,
    primitive: PrimitiveCell,
    out: Path,
    options: UnfoldOptions,
    formats: Sequence[str],
    *,
    read_material: Callable[[Path], Material],
) -> UnfoldedStates:
    """Write the unfolded spectrum of a supercell to OUT.h5 and pictures, and print what it shows.

    Args:
        folder: run or DeepH folder of the supercell.
        primitive: the primitive cell; where it has H and S, its bands are drawn too.
        out: prefix of the files.
        options: which spectrum.
        formats: of the pictures.
        read_material: reads a folder.

    Raises:
        TracegradError: something cannot be read, solved or written, or the cells do not fit.
    """
    started = time.monotonic()
    files = output_files(out, ("h5", *formats))
    for file in files:
        check_writable(file)
    material = read_material(folder)
    say(headline(material))
    supercell = map_supercell(material.structure, primitive.structure, options.tolerance)
    _report_cells(supercell, material)
    path = choose_path(options.bands.kpath, primitive.structure, options.bands.density)
    states = unfold(material, supercell, path, options.bands)
    say(f"k-path        {' - '.join(path.ticks)}: {count(len(path.k), 'k-point')} of the primitive cell")
    say(f"Fermi level   {states.fermi.level:.4f} eV ({states.fermi.source})")
    reference = None
    if primitive.material is not None and primitive.material.hamiltonian:
        reference = _beside(states, compute_bands(primitive.material, path, BandOptions()))
    if world().is_main:
        write_unfolded(files[0], states, supercell)
        window = options.bands.window or states.complete_range
        broadening = options.broadening or (window[1] - window[0]) / WINDOW_PARTS
        picture = UnfoldedPicture(states, window, broadening, reference, title(material))
        for file in files[1:]:
            _draw(file, picture)
    say(f"written       {', '.join(map(str, files))}")
    say(f"time          {time.monotonic() - started:.1f} s")
    return states


def _report_cells(supercell: SupercellMap, material: Material) -> None:
    rows = "; ".join(" ".join(map(str, row)) for row in supercell.transform.tolist())
    say(f"supercell     {count(supercell.num_cells, 'primitive cell')}, matrix {rows}")
    on_sites, farthest = len(material.structure) - supercell.strangers, np.nanmax(supercell.displacement)
    say(
        f"atoms         {on_sites} of {len(material.structure)} on sites, {farthest:.3f} Å away at most; "
        f"{count(supercell.vacancies, 'empty site')}"
    )
    if supercell.strangers:
        say(f"              what the other {count(supercell.strangers, 'atom')} have of a state is not drawn")


def _beside(states: UnfoldedStates, reference: BandStructure) -> BandStructure:
    """The primitive cell's bands on the energy scale of the supercell."""
    shift = states.shift_of(reference)
    say(f"primitive     bands moved by {round(shift, 3) + 0.0:+.3f} eV, to where they overlap most with the spectrum")
    return replace(reference, energies=reference.energies + shift)


def _draw(file: Path, picture: UnfoldedPicture) -> None:
    if file.suffix == INTERACTIVE:
        from deeph_tracegrad.inference.spectra.pages import unfolded_page

        unfolded_page(file, picture)
    else:
        from deeph_tracegrad.inference.spectra.pictures import plot_unfolded

        plot_unfolded(file, picture)
