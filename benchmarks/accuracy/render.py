"""Write docs/accuracy.md and its pictures from the results of the accuracy study.

    python benchmarks/accuracy/render.py RESULTS [--docs docs]

The same results give the same text.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path

from figures import draw_curves, draw_errors
from measure import DEGENERATE, MESH_DENSITY, WINDOW
from results import read_results
from study import ROWS, Budget, DataSet, Row
from summary import FAITHFUL, Summary, Value, change

from deeph_tracegrad.atomic import atomic_path
from deeph_tracegrad.config import PRESETS
from deeph_tracegrad.errors import ReadError, TracegradError

HEADLINE = next(row for row in ROWS if row.name == "best")
GOALS = {"hamiltonian": 0.40, "occupied": 0.76}  # how much lower than faithful DeepH-E3, at equal time
GOAL_SETS = ("graphene", "mos2")
ROUNDING = 0.01  # of a ratio: less is no difference
BUDGETS: dict[Budget, str] = {"epochs": "Equal epochs", "time": "Equal time"}
ERRORS = {
    "hamiltonian": "H",
    "occupied": "occupied energies",
    "occupied_largest": "largest",
    "window": f"±{WINDOW:g} eV",
    "window_largest": "largest",
    "energy_sum": "sum, per atom",
    "similarity": "similarity",
    "trace": "trace labels",
}

INTRODUCTION = """\
<!-- Written by benchmarks/accuracy/render.py from the results of run.py beside it: do not edit. -->

# Accuracy

What TraceGrad and the other choices of this project gain over DeepH-E3 as published, on real calculations. One command
trains and measures everything, another writes this page from the results:

```bash
OMP_NUM_THREADS=1 python benchmarks/accuracy/run.py DATA --out RESULTS --jobs 2
python benchmarks/accuracy/render.py RESULTS
```"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--docs", type=Path, default=Path(__file__).parents[2] / "docs")
    arguments = parser.parse_args()
    try:
        records = read_results(arguments.results)
        if not records:  # else a wrong path would leave an empty page in place of the last one
            raise ReadError(arguments.results, "holds no result of run.py, which are the files results/*.json")
        render(Summary(records), arguments.docs)
    except TracegradError as error:
        sys.exit(str(error))


def render(summary: Summary, docs: Path) -> None:
    """Write the page and its pictures into a folder of documentation."""
    with atomic_path(docs / "accuracy.md") as temporary:
        temporary.write_text(page(summary), encoding="utf-8")
    for chosen in summary.sets:
        with atomic_path(docs / "images" / f"accuracy_{chosen.name}.png") as temporary:
            draw_errors(summary, chosen, temporary)
    with atomic_path(docs / "images" / "accuracy_curves.png") as temporary:
        draw_curves(summary, temporary)


def page(summary: Summary) -> str:
    """The page as Markdown."""
    parts = [
        INTRODUCTION,
        _origin(summary),
        "## The goals",
        *_goals(summary),
        "![validation error over processor time](images/accuracy_curves.png)",
        "## How it is measured",
        _method(),
        "## The networks",
        _networks(summary),
        *(part for chosen in summary.sets for part in _set(summary, chosen)),
    ]
    return "\n\n".join(parts) + "\n"


def _origin(summary: Summary) -> str:
    """Where the numbers come from."""

    def all_of(name: str) -> str:
        return ", ".join(sorted({str(record[name]) for record in summary.records}))

    versions = {f"{name} {number}" for record in summary.records for name, number in record["versions"].items()}
    return (
        f"{len(summary.records)} trainings, of revision {all_of('revision')} (a + is for files that differ from it), "
        f"on {all_of('machine')}, with {', '.join(sorted(versions))}."
    )


def _goals(summary: Summary) -> Iterable[str]:
    yield (
        f"Of “{HEADLINE.title}” against DeepH-E3 as published, both with the same processor time to train; means over "
        "the seeds."
    )
    lines = []
    for chosen in summary.sets:
        for column, wanted in GOALS.items():
            ratio = summary.ratio(chosen, HEADLINE, "time", column)
            if chosen.name in GOAL_SETS:
                goal, reached = f"{change(1 - wanted)} or lower", ratio is not None and ratio <= 1 - wanted
            else:
                goal, reached = "no higher", ratio is not None and ratio <= 1
            lines.append([chosen.title, f"error of {ERRORS[column]}", goal, change(ratio), _verdict(ratio, reached)])
        for cell, column in product(_cells(chosen), GOALS):
            ours, theirs = (summary.growth(chosen, row, "time", column, cell) for row in (HEADLINE, FAITHFUL))
            goal = "–" if theirs is None else f"{theirs:.2f} times or less"
            reached = ours is not None and theirs is not None and ours <= theirs
            found = "–" if ours is None else f"{ours:.2f} times"
            lines.append(
                [chosen.title, f"error of {ERRORS[column]}, growth to {cell}", goal, found, _verdict(ours, reached)]
            )
    yield _table(["set", "what", "goal", "found", ""], lines, words=True)
    if any(_cells(chosen) for chosen in summary.sets):
        yield (
            "Growth: the error on a cell that is larger, or stacked otherwise, than all that was trained on, divided "
            "by the error on the validation structures; the goal is that of DeepH-E3."
        )


def _verdict(found: float | None, reached: bool) -> str:
    return "not measured" if found is None else "reached" if reached else "**not reached**"


def _method() -> str:
    return f"""\
Splits, settings, seeds, versions and the revision of each training are in `RESULTS/results/*.json`, the figures of all
in `RESULTS/results.csv`. The checkpoint with the lowest validation loss is measured, as DeepH-E3 does; cells beyond the
validation structures had no say in it. All energies are in meV.

- **Equal epochs**: every network sees the structures as often as DeepH-E3. **Equal time**: the number of epochs is
  divided by the cost of a step relative to DeepH-E3's, measured in turns in processor time before the training; a
  schedule that ends with the training ends earlier then.
- **H**: mean absolute error over all elements of H, in global coordinates. **Trace labels**: mean absolute error of
  what a network learns beside H, in the unit of its own labels.
- **Energies** are eigenvalues of the predicted H with the true S against those of the true H with S, on a k-mesh of at
  least {MESH_DENSITY:g} points for each 1/Å, by `deeph_tracegrad.inference`. They are compared as they are, without
  alignment.
- **Occupied energies**: mean absolute error of the lowest states at each k, as many as the electrons fill: the paper's
  quantity. **±{WINDOW:g} eV**: of the states around the Fermi level of the true H. **Largest**: the worst of them, over
  all structures, in the mean over the seeds.
- **Sum, per atom**: absolute error of the sum of the occupied energies, for each atom.
- **Similarity**: mean of |⟨ψ true|S|ψ predicted⟩| over the occupied states, paired in order of energy; states closer
  than {1e3 * DEGENERATE:g} meV are compared as spaces, by the cosines of the angles between them. 1 is perfect.
- ± is the standard deviation over seeds; a figure without is of one seed."""


def _networks(summary: Summary) -> str:
    trained = {record["row"] for record in summary.records}
    published = PRESETS["deeph-e3"].training
    lines = [
        [row.title, " ".join(f"`{setting}`" for setting in row.settings) or "–"] for row in ROWS if row.name in trained
    ]
    return (
        "Each is `configs/deeph-e3.toml` with these settings. DeepH-E3's own schedule lowers the learning rate when "
        f"the validation error stalls for {published.schedule.patience} epochs, and it was made for "
        f"{published.epochs} epochs. This study is sized for two cores of a CPU: its trainings are shorter, and do not "
        "show the lowest error that DeepH-E3 reaches. What a schedule that ends with the training gains by itself is a "
        "row of its own.\n\n" + _table(["network", "settings"], lines, words=True)
    )


def _set(summary: Summary, chosen: DataSet) -> Iterable[str]:
    (record, *_) = summary.of(chosen, FAITHFUL, "epochs")
    sizes = {part: len(labels) for part, labels in record["split"].items()}
    yield f"## {chosen.title}"
    yield (
        f"{chosen.description}: {sizes['train']} structures to train on, {sizes['validation']} to validate, one a "
        f"batch; {record['epochs']} epochs of DeepH-E3."
    )
    for budget, title in BUDGETS.items():
        rows = summary.rows(chosen, budget)
        yield f"**{title}**, validation structures, meV; changes are to DeepH-E3:"
        yield _table(["network", *_error_header()], [_error_line(summary, chosen, row, budget) for row in rows])
        for cell in _cells(chosen):
            yield f"{title}, {cell}:"
            lines = [_error_line(summary, chosen, row, budget, cell) for row in rows]
            yield _table(["network", *_error_header()], lines)
    yield "**Cost**:"
    yield _table(
        ["network", "weights", "ms a step", "relative", "epochs", "best", "processor, min", "wall, min", "edges/s"],
        [
            _cost_line(summary, chosen, row, budget)
            for budget in BUDGETS
            for row in summary.rows(chosen, budget)
            if budget == "epochs" or row is not FAITHFUL
        ],
    )
    yield f"![errors on {chosen.name}](images/accuracy_{chosen.name}.png)"
    introduction, *found = _tried(summary, chosen)
    yield "\n".join([introduction, "", *found])


def _error_header() -> list[str]:
    names = []
    for column, name in ERRORS.items():
        names += [name, "change"] if column in GOALS else [name]
    return names


def _error_line(summary: Summary, chosen: DataSet, row: Row, budget: Budget, cell: str = "validation") -> list[str]:
    cells = [row.title]
    for column in ERRORS:
        value = summary.error(chosen, row, budget, column, cell)
        cells.append("–" if value is None else value.text(4 if column == "similarity" else None))
        if column in GOALS:
            cells.append(change(summary.ratio(chosen, row, budget, column, cell)))
    return cells


def _cost_line(summary: Summary, chosen: DataSet, row: Row, budget: Budget) -> list[str]:
    records = summary.of(chosen, row, budget)
    first = records[0]
    best = Value.of([record["best_epoch"] for record in records])
    minutes = [
        Value.of([record["training_seconds"][kind] / 60 for record in records]).mean for kind in ("processor", "wall")
    ]
    return [
        f"{row.title}{', equal time' if budget == 'time' else ''}",
        str(first["weights"]),
        f"{1e3 * first['step_seconds']:.1f}",
        f"{first['step_ratio']:.2f}",
        str(first["epochs"]),
        f"{best.mean:.0f}",
        *(f"{value:.1f}" for value in minutes),
        f"{Value.of([record['edges_per_second'] for record in records]).mean:.0f}",
    ]


def _tried(summary: Summary, chosen: DataSet) -> Iterable[str]:
    """What changed the error of H at equal epochs by more than DeepH-E3's seeds differ, and what did not."""
    faithful = summary.error(chosen, FAITHFUL, "epochs", "hamiltonian")
    spread = max((faithful.spread or 0.0) / faithful.mean, ROUNDING) if faithful else ROUNDING
    yield (
        f"What changed the error of H at equal epochs, by more than {100 * spread:.0f} %, the standard deviation of "
        f"DeepH-E3's seeds or {100 * ROUNDING:.0f} %:"
    )
    for reference in ROWS:
        groups: dict[str, list[str]] = {"lower": [], "no difference": [], "higher": []}
        for row in summary.rows(chosen, "epochs"):
            ratio = summary.ratio(chosen, row, "epochs", "hamiltonian", reference=reference)
            if row is not reference and row.reference == reference.name and ratio is not None:
                group = "lower" if ratio < 1 - spread else "higher" if ratio > 1 + spread else "no difference"
                groups[group].append(f"{row.title} ({change(ratio)})")
        if any(groups.values()):
            said = "; ".join(f"{name}: {', '.join(rows)}" for name, rows in groups.items() if rows)
            yield f"- Against {reference.title}: {said}."


def _cells(chosen: DataSet) -> list[str]:
    return [Path(cell).name for cell in chosen.extrapolation]


def _table(header: Sequence[str], lines: Sequence[Sequence[str]], *, words: bool = False) -> str:
    rule = ["---", *["---" if words else "---:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, rule, *lines])


if __name__ == "__main__":
    main()
