"""Pictures of band structures.

Shape letters: K k-points, n bands, s spin channels.
"""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from deeph_tracegrad.inference.bands import BandStructure
from deeph_tracegrad.inference.figure import frame_path, new_figure, save_figure

COLOURS = ("#1f5fa8", "#c8402f")  # up (or the only channel), down
REFERENCE_COLOURS = ("0.6", "0.75")
OVERLAY = (0, (3, 1.5))  # dashes through which a reference underneath is seen


def plot_bands(
    file: Path,
    bands: BandStructure,
    reference: BandStructure | None = None,
    *,
    names: tuple[str, str] = ("", ""),
    title: str = "",
    window: tuple[float, float] | None = None,
) -> None:
    """Draw bands, over those of a reference where there is one; energies count from the Fermi level of `bands`.

    Args:
        file: the picture to write; its suffix is the format.
        bands: in colour.
        reference: in grey underneath, at the same k-points.
        names: of the two, for the legend.
        title: above the picture.
        window: energies to show, eV around the Fermi level.
    """
    figure = new_figure()
    axes = figure.add_subplot()
    level = bands.fermi.level
    low, high = window or bands.shown_range
    if reference is not None:
        _draw(axes, reference, level, REFERENCE_COLOURS, linewidth=2.2, linestyle="-")
    _draw(axes, bands, level, COLOURS, linewidth=1.1, linestyle="-" if reference is None else OVERLAY)
    frame_path(axes, bands.path)
    axes.axhline(0.0, color="0.3", linewidth=0.7, linestyle=":", zorder=1)
    axes.set_ylim(low, high)
    axes.set_ylabel(r"$E - E_\mathrm{F}$ (eV)")
    gap = "" if bands.fermi.is_metal or np.isinf(bands.fermi.gap) else f"gap {bands.fermi.gap:.3f} eV"
    axes.set_title("   ".join(part for part in (title, gap) if part), fontsize=11)
    _mark_edges(axes, bands)
    _legend(axes, bands, reference, names)
    save_figure(figure, file)


def _draw(axes: Axes, bands: BandStructure, level: float, colours: tuple[str, str], **style: Any) -> None:
    distance = bands.path.distance
    for channel, colour in zip(bands.energies, colours, strict=False):
        for segment in bands.path.segments:
            if distance[-1] > 0:
                axes.plot(distance[segment], channel[segment] - level, color=colour, **style)
            else:  # the levels of a molecule
                axes.plot([-0.5, 0.5], np.repeat(channel[segment] - level, 2, axis=0), color=colour, **style)


def _mark_edges(axes: Axes, bands: BandStructure) -> None:
    """Dots at the band edges, where they are on the path."""
    fermi = bands.fermi
    if fermi.is_metal or fermi.valence_top is None or fermi.conduction_bottom is None:
        return
    for edge in (fermi.valence_top, fermi.conduction_bottom):
        number = bands.k_of(edge)
        if number is not None:
            spin = int(np.unravel_index(np.nanargmin(abs(bands.energies - edge)), bands.energies.shape)[0])
            place = bands.path.distance[number]
            axes.plot(place, edge - fermi.level, "o", color=COLOURS[spin], markersize=4, clip_on=False, zorder=3)


def _legend(axes: Axes, bands: BandStructure, reference: BandStructure | None, names: tuple[str, str]) -> None:
    handles = []
    if reference is not None:
        handles.append(Line2D([], [], color=REFERENCE_COLOURS[0], linewidth=2.2, label=names[1]))
    name = "" if reference is None else names[0]
    channels = ("",) if len(bands.energies) == 1 else ("spin up", "spin down")
    handles += [
        Line2D([], [], color=colour, linestyle="-" if reference is None else "--", label=label)
        for colour, channel in zip(COLOURS, channels, strict=False)
        if (label := f"{name} {channel}".strip())
    ]
    if handles:
        axes.figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8, frameon=False)
