"""The pictures of `pictures` as interactive pages. Energies count from the Fermi level."""

from pathlib import Path

from deeph_tracegrad.inference.bands import BandStructure
from deeph_tracegrad.inference.figure import GROUP_COLOURS
from deeph_tracegrad.inference.interactive import (
    ENERGY,
    add_bands,
    add_curve,
    add_discs,
    add_map,
    frame_path,
    new_page,
    save_page,
)
from deeph_tracegrad.inference.spectra.dos import DensityOfStates
from deeph_tracegrad.inference.spectra.pictures import REFERENCE_COLOUR, SPIN_NAMES, drawn_groups
from deeph_tracegrad.inference.spectra.projections import BandProjections
from deeph_tracegrad.inference.spectra.unfolding import UnfoldedPicture

PIXELS = 400  # energies of a map


def dos_page(file: Path, dos: DensityOfStates, title: str) -> None:
    """Total and groups; spin down points down."""
    page = new_page(title)
    energies, groups = dos.energies - dos.fermi.level, dos.of_groups
    for spin, sign in zip(range(len(groups)), (1, -1), strict=False):
        first = spin == 0
        add_curve(page, energies, sign * dos.total[spin], name="total", colour="black", first=first)
        for group, colour in zip(drawn_groups(groups.sum(axis=(0, 2))), GROUP_COLOURS, strict=False):
            values = sign * groups[spin, group]
            add_curve(page, energies, values, name=dos.labels[group], colour=colour, first=first)
    page.add_vline(0.0, line={"color": "gray", "width": 1, "dash": "dot"})
    page.update_xaxes(title_text=ENERGY)
    page.update_yaxes(title_text="electrons / (eV cell)")
    save_page(page, file)


def fat_bands_page(
    file: Path, bands: BandStructure, projections: BandProjections, window: tuple[float, float], title: str
) -> None:
    """Bands with one disc a group on each state; a click on the legend hides a group."""
    relative = bands.energies - bands.fermi.level
    inside = (relative >= window[0]) & (relative <= window[1])
    shown = drawn_groups(projections.weights[inside].sum(axis=0))
    page = new_page(title, SPIN_NAMES[: len(relative)] if len(relative) == 2 else ("",))
    for panel, (energies, weights) in enumerate(zip(relative, projections.weights, strict=True), start=1):
        add_bands(page, bands.path, energies, bands.first_band, name="", colour="gray", panel=panel, width=1)
        for group, colour in zip(shown, GROUP_COLOURS, strict=False):
            label, share = projections.labels[group], weights[..., group]
            add_discs(page, bands.path, energies, share, name=label, colour=colour, panel=panel)
    frame_path(page, bands.path, window)
    save_page(page, file)


def unfolded_page(file: Path, picture: UnfoldedPicture) -> None:
    """The spectral function as a map, with the primitive cell's bands where they are given."""
    page, path = new_page(picture.title), picture.states.path
    add_map(page, path, *picture.shades(PIXELS), "weight")
    if picture.reference is not None:
        for channel in picture.reference_bands:
            add_bands(
                page, path, channel, picture.reference.first_band, name="primitive cell", colour=REFERENCE_COLOUR,
                width=1, dash="dash",
            )  # fmt: skip
        page.update_layout(legend={"x": 1, "y": 1, "xanchor": "right", "yanchor": "bottom"})
    frame_path(page, path, picture.window)
    save_page(page, file)
