"""A picture of a network's errors: a map over orbital pairs, and their distribution."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from deeph_tracegrad.targets import TargetLayout
from deeph_tracegrad.training.error_sums import HISTOGRAM_EDGES, OFF_SITE, ON_SITE, ErrorSums, orbital_maes

MAX_NUMBERED_SHELLS = 8  # more leave no room for a number in each field of the map


def draw(errors: ErrorSums, layout: TargetLayout, path: Path, title: str) -> None:
    """Write the picture; its format follows the suffix of `path`."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    figure.suptitle(title, fontsize="medium")
    left, right = figure.subplots(1, 2)
    _draw_map(left, errors, layout)
    _draw_distribution(right, errors)
    figure.savefig(path, dpi=150)


def _draw_map(axes: Axes, errors: ErrorSums, layout: TargetLayout) -> None:
    """MAE of each pair of shells; rows are those of atom i."""
    maes: dict[tuple[str, str], float] = {}
    elements = layout.basis.elements
    for left, first in enumerate(elements):
        for right, second in enumerate(elements):
            for (row, column), mae in orbital_maes(errors, layout, left, right).items():
                maes[f"{first} {row}", f"{second} {column}"] = mae
    names = list(dict.fromkeys(row for row, _ in maes))
    image = np.full((len(names), len(names)), np.nan)
    for (row, column), mae in maes.items():
        image[names.index(row), names.index(column)] = mae
    positive = image[image > 0]
    scale = LogNorm(positive.min(), positive.max() * 1.001) if positive.size else None
    mesh = axes.imshow(image, norm=scale, cmap="viridis")
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.set_title("MAE by orbital pair in meV")
    bar = axes.figure.colorbar(mesh, ax=axes)
    for axis_formatter in (bar.ax.yaxis.set_major_formatter, bar.ax.yaxis.set_minor_formatter):
        axis_formatter(StrMethodFormatter("{x:g}"))  # 4, not 4 x 10^0
    if len(names) <= MAX_NUMBERED_SHELLS:
        for (row, column), mae in maes.items():
            place = names.index(column), names.index(row)
            axes.text(*place, f"{mae:.3g}", ha="center", va="center", color="white", backgroundcolor="#0006")


def _draw_distribution(axes: Axes, errors: ErrorSums) -> None:
    """Share of the matrix elements by their error."""
    centres = 1e3 * 10 ** ((HISTOGRAM_EDGES[:-1] + HISTOGRAM_EDGES[1:]) / 2)
    for site, name in ((ON_SITE, "on-site"), (OFF_SITE, "off-site")):
        counts = errors.histogram[site]
        if counts.sum():
            axes.stairs(counts / counts.sum(), 1e3 * 10**HISTOGRAM_EDGES, label=name)
    filled = np.flatnonzero(errors.histogram.sum(axis=0))
    axes.set_xscale("log")
    axes.set_xlim(centres[filled[0]] / 2, centres[filled[-1]] * 2)
    axes.set_xlabel("|predicted - DFT| in meV")
    axes.set_ylabel("share of the elements of H")
    axes.set_title("Distribution of the errors")
    axes.legend()
