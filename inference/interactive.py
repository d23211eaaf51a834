"""Pictures to look at in a browser: one HTML file that needs nothing else, to zoom in and to read values off.

Shape letters: K k-points, n bands, s spin channels, P groups of orbitals, G energies.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from plotly.graph_objects import Figure, Heatmap, Scattergl
from plotly.subplots import make_subplots

from deeph_tracegrad.atomic import atomic_path
from deeph_tracegrad.inference.bands import BandStructure
from deeph_tracegrad.inference.kpath import KPath

COLOURS = ("#1f5fa8", "#c8402f")  # up (or the only channel), down
REFERENCE_COLOURS = ("#999999", "#bfbfbf")
ENERGY = "E − E<sub>F</sub> (eV)"


def bands_page(
    file: Path,
    bands: BandStructure,
    reference: BandStructure | None,
    *,
    names: tuple[str, str],
    title: str,
    window: tuple[float, float],
) -> None:
    """What `plot.plot_bands` draws, with the same arguments."""
    page = new_page(title)
    spins = ("",) if len(bands.energies) == 1 else ("spin up", "spin down")
    level = bands.fermi.level
    for structure, colours, name, line in (
        (reference, REFERENCE_COLOURS, names[1], {"width": 4}),
        (bands, COLOURS, names[0] if reference is not None else "", {"width": 2}),
    ):
        if structure is not None:
            for energies, colour, spin in zip(structure.energies - level, colours, spins, strict=False):
                label = f"{name} {spin}".strip()
                add_bands(page, bands.path, energies, structure.first_band, name=label, colour=colour, **line)
    frame_path(page, bands.path, window)
    save_page(page, file)


def new_page(title: str, panels: Sequence[str] = ("",)) -> Figure:
    """An empty figure with one panel a name, side by side, on one energy axis."""
    page = make_subplots(1, len(panels), shared_yaxes=True, horizontal_spacing=0.03, subplot_titles=panels)
    page.update_layout(title=title, template="simple_white", legend={"itemsizing": "constant"}, hovermode="closest")
    page.update_xaxes(mirror=True)
    page.update_yaxes(mirror=True)
    return page


def save_page(page: Figure, file: Path) -> None:
    """Write it with plotly's program inside, 5 MB."""
    with atomic_path(file) as temporary:
        page.write_html(temporary, include_plotlyjs=True)


def frame_path(page: Figure, path: KPath, window: tuple[float, float]) -> None:
    """Labelled lines at the corners, the Fermi level, and the energies that are shown at first, in every panel."""
    places = path.corner_distance
    page.update_xaxes(tickvals=places, ticktext=path.ticks, range=[places[0], places[-1]])
    for place in places[1:-1]:
        page.add_vline(place, line={"color": "gray", "width": 1})
    page.add_hline(0.0, line={"color": "gray", "width": 1, "dash": "dot"})
    page.update_yaxes(range=list(window))
    page.update_yaxes(title_text=ENERGY, col=1)


def add_bands(
    page: Figure,
    path: KPath,
    energies: np.ndarray,
    first_band: int,
    *,
    name: str,
    colour: str,
    panel: int = 1,
    **line: Any,
) -> None:
    """One curve for the bands (K, n) of one spin, eV from the Fermi level; the mouse shows band, k and energy."""
    x, y, texts = [], [], []
    for band, column in enumerate(energies.T, start=first_band + 1):
        for segment in path.segments:
            x += [*path.distance[segment], None]
            y += [*column[segment], None]
            texts += [*(f"band {band}<br>{place}" for place in _places(path.k[segment])), ""]
    hover = "%{text}<br>%{y:.4f} eV<extra></extra>"
    curve = Scattergl(
        x=x, y=y, text=texts, mode="lines", name=name, showlegend=bool(name), line={"color": colour, **line},
        hovertemplate=hover,
    )  # fmt: skip
    page.add_trace(curve, row=1, col=panel)


def add_discs(
    page: Figure, path: KPath, energies: np.ndarray, shares: np.ndarray, *, name: str, colour: str, panel: int = 1
) -> None:
    """Discs on states (K, n), eV from the Fermi level, whose areas are the shares (K, n) of a group."""
    point, band = np.nonzero((shares > 0.01) & ~np.isnan(energies))
    share = shares[point, band]
    discs = Scattergl(
        x=path.distance[point], y=energies[point, band], customdata=share, mode="markers", name=name,
        showlegend=panel == 1, legendgroup=name,
        marker={"color": colour, "size": share, "sizemode": "area", "sizeref": 1 / 12**2, "line": {"width": 0}},
        hovertemplate=f"{name} %{{customdata:.3f}}<br>%{{y:.4f}} eV<extra></extra>",
    )  # fmt: skip
    page.add_trace(discs, row=1, col=panel)


def add_curve(page: Figure, energies: np.ndarray, values: np.ndarray, *, name: str, colour: str, first: bool) -> None:
    """A density (G,) over energies (G,); `first`: whether the legend is to name it."""
    curve = Scattergl(
        x=energies, y=values, mode="lines", name=name, legendgroup=name, showlegend=first, line={"color": colour},
        hovertemplate=f"{name}<br>%{{x:.3f}} eV: %{{y:.4f}}<extra></extra>",
    )  # fmt: skip
    page.add_trace(curve, row=1, col=1)


def add_map(page: Figure, path: KPath, energies: np.ndarray, values: np.ndarray, colour_label: str) -> None:
    """Values (K, G) from 0 to 1 as colours over the path and energies (G,)."""
    for number, segment in enumerate(path.segments):
        colours = Heatmap(
            x=path.distance[segment], y=energies, z=np.round(values[segment].T, 4), colorscale="Blues", zmin=0, zmax=1,
            showscale=number == 0, colorbar={"title": colour_label},
            hovertemplate="%{y:.3f} eV: %{z:.3f}<extra></extra>",
        )  # fmt: skip
        page.add_trace(colours, row=1, col=1)


def _places(k: np.ndarray) -> Iterator[str]:
    return ("k = " + ", ".join(f"{value:.4f}" for value in point) for point in k)
