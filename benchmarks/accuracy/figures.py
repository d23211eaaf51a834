"""The pictures of the accuracy page."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import LogFormatter, NullFormatter
from study import Budget, DataSet
from summary import FAITHFUL, Summary

PANELS = {"hamiltonian": "error of H, meV", "occupied": "error of occupied energies, meV"}
COLOURS: dict[Budget, str] = {"epochs": "#9ecae1", "time": "#08519c"}
CURVES = ("deeph-e3", "compact", "paper", "schedule", "choices", "best")


def draw_errors(summary: Summary, chosen: DataSet, path: Path) -> None:
    """Errors of all rows on the validation structures: bars for the means over the seeds, points for the seeds."""
    rows = list(dict.fromkeys(row for budget in COLOURS for row in summary.rows(chosen, budget)))
    figure = Figure(figsize=(11, 1.6 + 0.42 * len(rows)), layout="constrained")
    panels = figure.subplots(1, len(PANELS), sharey=True)
    for axes, (column, label) in zip(panels, PANELS.items(), strict=True):
        for offset, (budget, colour) in zip((-0.2, 0.2), COLOURS.items(), strict=True):
            for place, row in enumerate(rows):
                values = [record["errors"]["validation"][column] for record in summary.of(chosen, row, budget)]
                if values:
                    axes.barh(place + offset, np.mean(values), 0.4, color=colour)
                    axes.plot(values, [place + offset] * len(values), "o", ms=3, color="black")
        faithful = summary.error(chosen, FAITHFUL, "epochs", column)
        if faithful:
            axes.axvline(faithful.mean, color="grey", lw=0.8, ls="--")
        axes.set_xlabel(label)
        axes.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xscale("log")  # errors of energies range over orders of magnitude
    panels[-1].set_xlim(left=10 ** np.floor(np.log10(panels[-1].get_xlim()[0])))
    panels[-1].xaxis.set_minor_formatter(NullFormatter())
    panels[0].set_yticks(range(len(rows)), [row.title for row in rows])
    panels[0].set_ylim(len(rows) - 0.5, -0.5)
    handles = [Patch(color=colour, label=f"equal {budget}") for budget, colour in COLOURS.items()]
    figure.legend(handles=handles, frameon=False, loc="outside lower center", ncols=len(handles))
    figure.suptitle(chosen.title)
    figure.savefig(path, dpi=130)


def draw_curves(summary: Summary, path: Path) -> None:
    """The validation error of H over processor time, in epochs of DeepH-E3; the first seed of each row."""
    sets = summary.sets
    figure = Figure(figsize=(4.6 * max(1, len(sets)), 4.2), layout="constrained")
    panels = figure.subplots(1, max(1, len(sets)), squeeze=False)[0]
    for axes, chosen in zip(panels, sets, strict=False):
        for number, name in enumerate(CURVES):
            for row in summary.rows(chosen, "time") + summary.rows(chosen, "epochs"):
                if row.name == name:
                    record = (summary.of(chosen, row, "time") or summary.of(chosen, row, "epochs"))[0]
                    epochs, errors = np.array(record["curve"]).T
                    axes.plot(epochs * record["step_ratio"], errors, lw=1, color=f"C{number}", label=row.title)
                    break
        axes.set(yscale="log", title=chosen.title, xlabel="processor time, epochs of DeepH-E3")
        axes.yaxis.set_major_formatter(LogFormatter())
        axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.5)))
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    panels[0].set_ylabel("validation error of H, meV")
    figure.savefig(path, dpi=130)
