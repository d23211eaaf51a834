"""Pictures of densities of states, fat bands and unfolded spectra. Energies count from the Fermi level.

Shape letters: K k-points, n bands, s spin channels, P groups of orbitals, G energies.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from deeph_tracegrad.inference.bands import BandStructure
from deeph_tracegrad.inference.figure import GROUP_COLOURS, frame_path, new_figure, save_figure
from deeph_tracegrad.inference.spectra.dos import DensityOfStates
from deeph_tracegrad.inference.spectra.projections import BandProjections
from deeph_tracegrad.inference.spectra.unfolding import UnfoldedPicture

FERMI_LABEL = r"$E - E_\mathrm{F}$ (eV)"
SMALLEST_SHARE = 0.02  # of the whole, below which a group is not drawn
LARGEST_MARKER = 36.0  # points², of a state that one group has to itself
REFERENCE_COLOUR = "#c8402f"
REFERENCE_STYLE: dict[str, Any] = {"color": REFERENCE_COLOUR, "linestyle": (0, (4, 2))}
PIXELS = 600  # energies in the picture of an unfolded spectrum
SPIN_NAMES = ("spin up", "spin down")


def drawn_groups(shares: np.ndarray) -> np.ndarray:
    """The groups that get a colour: those with the largest shares, in their order. shares: (P,), some measure."""
    largest = np.sort(np.argsort(-shares, kind="stable")[: len(GROUP_COLOURS)])
    return largest[shares[largest] > SMALLEST_SHARE * shares.sum()]


def plot_dos(file: Path, dos: DensityOfStates, title: str) -> None:
    """The total as a black line, with its standard error where it has one, groups in colour; spin down points down."""
    figure = new_figure(6.0, 4.0)
    axes = figure.add_subplot()
    energies, groups = dos.energies - dos.fermi.level, dos.of_groups
    shown = drawn_groups(groups.sum(axis=(0, 2)))
    for spin, sign in zip(range(len(groups)), (1, -1), strict=False):
        total = sign * dos.total[spin]
        axes.fill_between(energies, total, color="0.92", linewidth=0)
        if dos.errors is not None:
            error = dos.errors[spin, 0]
            axes.fill_between(energies, total - error, total + error, color="0.7", linewidth=0)
        axes.plot(energies, total, color="black", linewidth=1.0, label="total" if spin == 0 else None)
        for group, colour in zip(shown, GROUP_COLOURS, strict=False):
            label = dos.labels[group] if spin == 0 else None
            axes.plot(energies, sign * groups[spin, group], color=colour, linewidth=1.0, label=label)
    axes.axvline(0.0, color="0.3", linewidth=0.7, linestyle=":")
    axes.axhline(0.0, color="0.3", linewidth=0.5)
    axes.set_xlim(energies[0], energies[-1])
    if len(groups) == 1:
        axes.set_ylim(bottom=0.0)
    axes.set_xlabel(FERMI_LABEL)
    axes.set_ylabel("electrons / (eV cell)" if len(groups) == 1 else "up, down: electrons / (eV cell)")
    axes.tick_params(direction="in", right=True, top=True)
    axes.set_title(title, fontsize=11)
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    save_figure(figure, file)


def plot_fat_bands(
    file: Path, bands: BandStructure, projections: BandProjections, window: tuple[float, float], title: str
) -> None:
    """Bands as thin lines; on each state one disc a group, its area the group's share. One panel a spin."""
    channels = len(bands.energies)
    figure = new_figure(5.6 + 4.2 * (channels - 1), 4.4)
    relative = bands.energies - bands.fermi.level
    inside = (relative >= window[0]) & (relative <= window[1])
    shown = drawn_groups(projections.weights[inside].sum(axis=0))
    for spin, panel in enumerate(figure.subplots(1, channels, sharey=True, squeeze=False)[0]):
        _fat_panel(panel, bands, relative[spin], projections.weights[spin], shown)
        panel.set_ylim(*window)
        if channels == 2:
            panel.set_title(SPIN_NAMES[spin], fontsize=10)
    figure.axes[0].set_ylabel(FERMI_LABEL)
    figure.suptitle(title, fontsize=11)
    handles = [
        Line2D([], [], color=colour, marker="o", linestyle="", label=projections.labels[group])
        for group, colour in zip(shown, GROUP_COLOURS, strict=False)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=5 * channels, fontsize=8, frameon=False)
    save_figure(figure, file)


def _fat_panel(
    axes: Axes, bands: BandStructure, energies: np.ndarray, weights: np.ndarray, shown: Sequence[int] | np.ndarray
) -> None:
    distance = bands.path.distance
    for segment in bands.path.segments:
        axes.plot(distance[segment], energies[segment], color="0.6", linewidth=0.5, zorder=1)
    places = np.broadcast_to(distance[:, None], energies.shape)
    # small discs above large ones, whichever the group
    points = [
        (places.ravel(), energies.ravel(), LARGEST_MARKER * np.clip(weights[..., group].ravel(), 0, None), colour)
        for group, colour in zip(shown, GROUP_COLOURS, strict=False)
    ]
    x, y, size = (np.concatenate([part[axis] for part in points]) for axis in range(3))
    colours = np.repeat([part[3] for part in points], energies.size)
    order = np.argsort(-size, kind="stable")
    order = order[(size[order] > LARGEST_MARKER / 100) & ~np.isnan(y[order])]
    axes.scatter(x[order], y[order], s=size[order], c=colours[order], linewidth=0, zorder=2)
    frame_path(axes, bands.path)
    axes.axhline(0.0, color="0.3", linewidth=0.7, linestyle=":", zorder=1)


def plot_unfolded(file: Path, picture: UnfoldedPicture) -> None:
    """The spectral function as a map of energy by k, darkest where one whole state is; a reference as dashed lines."""
    figure = new_figure(5.8, 4.4)
    axes = figure.add_subplot()
    path = picture.states.path
    energies, shades = picture.shades(PIXELS)
    for segment in path.segments:
        mesh = axes.pcolormesh(
            path.distance[segment], energies, shades[segment].T, cmap="Blues", vmin=0, vmax=1,
            shading="gouraud", rasterized=True,
        )  # fmt: skip
        for channel in picture.reference_bands:
            axes.plot(path.distance[segment], channel[segment], linewidth=0.7, **REFERENCE_STYLE)
    frame_path(axes, path, colour="0.5")
    axes.axhline(0.0, color="0.3", linewidth=0.7, linestyle=":")
    axes.set_ylim(*picture.window)
    axes.set_ylabel(FERMI_LABEL)
    axes.set_title(picture.title, fontsize=11)
    figure.colorbar(mesh, ax=axes, label="weight (1: one whole state)", extend="max")
    if picture.reference is not None:
        handle = Line2D([], [], linewidth=0.9, label="primitive cell", **REFERENCE_STYLE)
        figure.legend(handles=[handle], loc="outside lower center", fontsize=8, frameon=False)
    save_figure(figure, file)
