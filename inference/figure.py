"""What all pictures share: the file formats, the canvas, and the k-path along the axis below."""

import re
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from deeph_tracegrad.atomic import atomic_path
from deeph_tracegrad.errors import ConfigError
from deeph_tracegrad.inference.kpath import KPath

FORMATS = ("png", "pdf", "svg", "html")  # html is interactive
DEFAULT_FORMATS = ("png",)
INTERACTIVE = ".html"
GROUP_COLOURS = (  # tell apart with any colour vision; by P. Tol's scheme "muted"
    "#332288", "#cc6677", "#44aa99", "#ddcc77", "#aa4499", "#88ccee", "#117733", "#882255", "#999933",
)  # fmt: skip


def parse_formats(text: str) -> tuple[str, ...]:
    """The formats in a list such as 'png,html'.

    Raises:
        ConfigError: one is not known.
    """
    return parse_names(text, FORMATS, "--format")


def parse_names(text: str, known: Sequence[str], option: str) -> tuple[str, ...]:
    """Some of the known names, separated by commas.

    Raises:
        ConfigError: one is not known.
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in known:
            raise ConfigError(f"{option} {name} is not known; choose from {', '.join(known)}")
    return names


def output_files(out: Path, suffixes: Sequence[str]) -> list[Path]:
    """The files that a prefix leads to: PREFIX.h5, PREFIX.png, ..."""
    return [out.with_name(f"{out.name}.{suffix.lstrip('.')}") for suffix in suffixes]


def new_figure(width: float = 5.2, height: float = 4.4) -> Figure:
    """An empty figure, inches."""
    figure = Figure(figsize=(width, height), dpi=200, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, file: Path) -> None:
    """Write a figure; the file's suffix is the format."""
    with atomic_path(file) as temporary:
        figure.savefig(temporary)


def frame_path(axes: Axes, path: KPath, colour: str = "0.3") -> None:
    """Labelled vertical lines at the corners of a path."""
    places = path.corner_distance
    if places[-1] > 0:
        axes.set_xticks(places, [_tick(label) for label in path.ticks])
        axes.set_xlim(places[0], places[-1])
    else:
        axes.set_xticks([0.0], [_tick(path.ticks[0])])
        axes.set_xlim(-0.8, 0.8)
    for place in places[1:-1]:
        axes.axvline(place, color=colour, linewidth=0.6, zorder=1)
    axes.tick_params(axis="x", length=0)
    axes.tick_params(axis="y", direction="in", right=True)


def _tick(label: str) -> str:
    """X1 as X with a subscript; both sides of a break alike."""
    return "|".join(re.sub(r"^([A-ZΓ])_?(\d+)$", r"$\\mathrm{\1}_{\2}$", part) for part in label.split("|"))
