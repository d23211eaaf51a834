"""The command `dos`: compute, write, and say what was found."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from deeph_tracegrad.atomic import check_writable
from deeph_tracegrad.console import say
from deeph_tracegrad.inference.describe import headline, title
from deeph_tracegrad.inference.figure import INTERACTIVE, output_files
from deeph_tracegrad.inference.spectra.dos import DensityOfStates, DosOptions, compute_dos
from deeph_tracegrad.inference.spectra.files import write_dos, write_dos_csv
from deeph_tracegrad.material import Material
from deeph_tracegrad.parallel import world

MOST_LINES = 30  # of the table of groups


def run_dos(
    folder: Path,
    out: Path,
    options: DosOptions,
    formats: Sequence[str],
    *,
    read_material: Callable[[Path], Material],
) -> DensityOfStates:
    """Write the density of states of a run to OUT.h5, OUT.csv and pictures, and print what it shows.

    formats: of the pictures.

    Raises:
        TracegradError: something cannot be read, solved or written.
    """
    started = time.monotonic()
    files = output_files(out, ("h5", "csv", *formats))
    for file in files:
        check_writable(file)
    material = read_material(folder)
    say(headline(material))
    dos = compute_dos(material, options)
    if world().is_main:
        write_dos(files[0], dos)
        write_dos_csv(files[1], dos)
        for file in files[2:]:
            _draw(file, dos, title(material))
    _report(dos, material)
    say(f"written       {', '.join(map(str, files))}")
    say(f"time          {time.monotonic() - started:.1f} s")
    return dos


def _draw(file: Path, dos: DensityOfStates, name: str) -> None:
    if file.suffix == INTERACTIVE:
        from deeph_tracegrad.inference.spectra.pages import dos_page

        dos_page(file, dos, name)
    else:
        from deeph_tracegrad.inference.spectra.pictures import plot_dos

        plot_dos(file, dos, name)


def _report(dos: DensityOfStates, material: Material) -> None:
    place = int(np.searchsorted(dos.edges, dos.fermi.level)) - 1
    say(f"method        {dos.method}")
    say(f"Fermi level   {dos.fermi.level:.4f} eV ({dos.fermi.source})")
    known = "" if material.electrons is None else f" of {material.electrons:g}"
    say(f"electrons     {dos.occupied.sum():.4f}{known} below the Fermi level")
    if 0 <= place < len(dos.energies):
        error = "" if dos.errors is None else f" ± {np.linalg.norm(dos.errors[:, 0, place]):.2g}"
        say(f"at E_F        {dos.total[:, place].sum():.4f}{error} electrons/eV in the cell")
    say()
    spins = ("",) if len(dos.occupied) == 1 else ("up", "down")
    say((f"{'electrons below E_F':24}" + "".join(f"{spin:>10}" for spin in spins)).rstrip())
    for label, electrons in list(zip(dos.labels, dos.occupied.T, strict=True))[:MOST_LINES]:
        say(f"{label:24}" + "".join(f"{value:>10.4f}" for value in electrons))
    if len(dos.labels) > MOST_LINES:
        say(f"... {len(dos.labels) - MOST_LINES} more in the files")
    say()
