"""What a survey of runs found: a table with a verdict for people, JSON for programs."""

import json
import sys
from collections.abc import Iterator
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from deeph_tracegrad.console import count, out, say
from deeph_tracegrad.parallel import world
from deeph_tracegrad.preprocess.check.outliers import MIN_COMPARED, OUTLIER_DEVIATIONS
from deeph_tracegrad.preprocess.check.survey import CheckedRun, Survey
from deeph_tracegrad.preprocess.defects import Kind, Severity

FORMAT = "deeph-tracegrad check"
FORMAT_VERSION = 1
EXAMPLES = 5
STYLES = {Severity.FIX: "red", Severity.WARNING: "yellow", None: None}


def show(survey: Survey, *, as_json: bool) -> None:
    """Print the survey to standard output; as JSON, nothing else stands there."""
    if not world().is_main:
        return
    if as_json:
        sys.stdout.write(json.dumps(content(survey), indent=1, allow_nan=False) + "\n")
        return
    out.print(table(survey))
    for line in verdict(survey):
        say(line)


def table(survey: Survey) -> Table:
    """One row a run."""
    result = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    result.add_column("run", overflow="fold")
    result.add_column("formula", no_wrap=True)
    result.add_column("con-\nverged", no_wrap=True)
    for name in ("elec-\ntrons", "Fermi\nlevel\neV", "closest\natoms\nÅ", "lowest\nof S(k)", "H\nbeyond\nS, eV"):
        result.add_column(name, justify="right", no_wrap=True)
    result.add_column("found", overflow="fold")
    for run in survey.runs:
        found = ", ".join(dict.fromkeys(defect.kind.label for defect in run.defects))
        result.add_row(*map(Text, (run.run.label, *_cells(run), found)), style=STYLES[run.severity])
    return result


def _cells(run: CheckedRun) -> list[str]:
    """The figures of a run as text, without its name and defects."""
    figures = run.figures
    if figures is None:
        return [""] * 7

    def shown(value: float | None, form: str) -> str:
        return "?" if value is None else format(value, form)

    return [
        figures.formula,
        {True: "yes", False: "no", None: "?"}[figures.converged],
        shown(figures.electrons, "g"),
        shown(figures.fermi_level, ".3f"),
        shown(figures.shortest, ".3f"),
        shown(figures.lowest_overlap, ".1e"),
        format(figures.beyond_overlap_largest, ".0e") if figures.beyond_overlap else "",
    ]


def verdict(survey: Survey) -> Iterator[str]:
    """The defects by kind, what the runs have in common, and one line of conclusion."""
    for kind in Kind:
        yield from _defects(survey, kind)
    compared = sum(bool(by_name) for by_name in survey.scatters.values())
    yield f"energies compared within {count(compared, 'formula')}; a formula needs {MIN_COMPARED} runs"
    if survey.common is not None:
        yield f"common to most: {survey.common.basis.describe()}, spin {survey.common.spin}"
    fix, warned, fine = (survey.number(severity) for severity in (Severity.FIX, Severity.WARNING, None))
    yield (
        f"{count(len(survey.runs), 'run')}: {fine} fine, {warned} with warnings, {fix} to fix or to leave out before "
        f"training; {survey.seconds:.1f} s"
    )


def _defects(survey: Survey, kind: Kind) -> Iterator[str]:
    """The runs that have defects of one kind, and what to do about it."""
    runs_of: dict[str, list[str]] = {}
    for run in survey.runs:
        for defect in run.defects:
            if defect.kind is kind:
                runs_of.setdefault(defect.message, []).append(run.run.label)
    if not runs_of:
        return
    runs = {label for labels in runs_of.values() for label in labels}
    yield f"{kind.severity}: {kind.label}, {count(len(runs), 'run')}. {kind.advice}"
    for message, labels in list(runs_of.items())[:EXAMPLES]:
        more = f" and {len(labels) - EXAMPLES} more" if len(labels) > EXAMPLES else ""
        yield f"  {', '.join(labels[:EXAMPLES])}{more}: {message}"
    if len(runs_of) > EXAMPLES:
        yield f"  and {len(runs_of) - EXAMPLES} more; --json has all"


def content(survey: Survey) -> dict[str, Any]:
    """The survey as JSON; null where a figure is unknown."""
    common = survey.common
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "summary": {
            "runs": len(survey.runs),
            "fine": survey.number(None),
            "warning": survey.number(Severity.WARNING),
            "fix": survey.number(Severity.FIX),
            "seconds": round(survey.seconds, 3),
        },
        "common": None
        if common is None
        else {
            "spin": str(common.spin),
            "basis": {element: basis.name for element, basis in common.basis.items()},
        },
        "energies": {
            "outlier_beyond_deviations": OUTLIER_DEVIATIONS,
            "formulas": {
                formula: {
                    name: {"median_eV": scatter.median, "deviation_eV": scatter.deviation}
                    for name, scatter in by_name.items()
                }
                for formula, by_name in survey.scatters.items()
                if by_name
            },
        },
        "runs": [_run(run) for run in survey.runs],
    }


def _run(run: CheckedRun) -> dict[str, Any]:
    severity = run.severity
    result: dict[str, Any] = {
        "run": run.run.label,
        "path": str(run.run.path),
        "kind": run.run.kind,
        "severity": "fine" if severity is None else str(severity),
        "defects": [
            {"kind": defect.kind.name.lower(), "severity": str(defect.kind.severity), "message": defect.message}
            for defect in run.defects
        ],
        "same_structure_as": run.same_as,
        "figures": None,
    }
    figures = run.figures
    if figures is not None:
        overlap, hamiltonian = figures.overlap, figures.hamiltonian
        result["figures"] = {
            "formula": figures.formula,
            "atoms": len(figures.elements),
            "orbitals": figures.num_orbitals,
            "basis": {element: basis.name for element, basis in figures.basis.items()},
            "basis_labels": {element: basis.label for element, basis in figures.basis.items()},
            "spin": str(figures.spin),
            "converged": figures.converged,
            "electrons": figures.electrons,
            "fermi_level_eV": figures.fermi_level,
            "on_site_level_eV": dict(figures.on_site_levels),
            "exchange_splitting_eV": figures.exchange_splitting,
            "shortest_distance_angstrom": figures.shortest,
            "smallest_overlap_eigenvalue": figures.lowest_overlap,
            "overlap_pairs": None if overlap is None else overlap.pairs,
            "hamiltonian_pairs": None if hamiltonian is None else hamiltonian.pairs,
            "longest_overlap_pair_angstrom": None if overlap is None else overlap.longest,
            "longest_hamiltonian_pair_angstrom": None if hamiltonian is None else hamiltonian.longest,
            "overlap_asymmetry": figures.violations.get("overlap"),
            "hamiltonian_asymmetry_eV": figures.violations.get("hamiltonian"),
            "blocks_beyond_overlap": figures.beyond_overlap,
            "largest_beyond_overlap_eV": figures.beyond_overlap_largest,
        }
    return result
