"""What the command `bands` says of what was found."""

import numpy as np

from deeph_tracegrad.console import say, warn
from deeph_tracegrad.inference.band_difference import band_difference
from deeph_tracegrad.inference.bands import BandStructure
from deeph_tracegrad.parallel import world

NEAR_FERMI = 2.0  # eV on either side
SOUND_RESIDUAL = 1e-4  # eV; an energy is wrong by its square over the distance to the next level
TABLE_ROW = "{:16}{:>7}{:>10}{:>10}{:>11}{:>10}{:>10}"


def report_bands(bands: BandStructure, reference: BandStructure | None, window: tuple[float, float] | None) -> None:
    """Bands, Fermi level, gap, residual; beside a reference also the differences, around E_F and in a window (eV)."""
    last = bands.first_band + bands.energies.shape[2]
    say(f"bands         {bands.first_band + 1} to {last}{' of each spin' if len(bands.energies) == 2 else ''}")
    if bands.provenance.get("solver", "dense") != "dense":
        say(f"solver        {bands.provenance['solver']}")
    say(f"Fermi level   {bands.fermi.level:.4f} eV ({bands.fermi.source})")
    say(f"band gap      {describe_gap(bands)}")
    largest = float(np.nanmax(bands.residuals))
    say(f"residual      {largest:.1e} eV at most")
    if largest > SOUND_RESIDUAL and world().is_main:
        warn(f"a residual of {largest:.1e} eV is large: the eigenproblem is ill-conditioned, do not trust all bands")
    if reference is not None:
        _report_differences(bands, reference, window)


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


def _report_differences(bands: BandStructure, reference: BandStructure, window: tuple[float, float] | None) -> None:
    """The table of differences: as they are, and without the constant by which all levels are off."""
    say(f"reference     Fermi level {reference.fermi.level:.4f} eV ({reference.fermi.source})")
    say()
    say("difference (meV)           as it is               without the shift")
    say(TABLE_ROW.format("around E_F", "states", "mean", "largest", "shift", "mean", "largest"))
    near = (-NEAR_FERMI, NEAR_FERMI)
    for low, high in (near,) if window is None else (near, window):
        found = band_difference(bands, reference, (low, high))
        values = (found.mean, found.largest, found.shift, found.mean_shifted, found.largest_shifted) if found else ()
        cells = [f"{1e3 * value:.3g}" for value in values] or ["-"] * 5
        states = f"{found.states:,}" if found else "0"
        say(TABLE_ROW.format(f"{low:+g} to {high:+g} eV", states, *cells))
    say()
