"""Many runs, each judged alone and beside the others, before they are preprocessed or trained on."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from threadpoolctl import threadpool_limits

from deeph_tracegrad.errors import TracegradError
from deeph_tracegrad.parallel import world
from deeph_tracegrad.preprocess.check.common import Common
from deeph_tracegrad.preprocess.check.duplicates import duplicates
from deeph_tracegrad.preprocess.check.electrons import electron_misfits
from deeph_tracegrad.preprocess.check.outliers import Scatters, outliers, scatters
from deeph_tracegrad.preprocess.defects import Defect, Kind, Severity, defects_as_label, defects_of, impossible_entries
from deeph_tracegrad.preprocess.figures import Figures, measure
from deeph_tracegrad.preprocess.processes import performed
from deeph_tracegrad.preprocess.runs import Run, find_runs, read_material


@dataclass(frozen=True, eq=False)
class CheckedRun:
    """One run and what is wrong with it. figures: None where it cannot be read. same_as: label of an earlier run."""

    run: Run
    figures: Figures | None
    defects: tuple[Defect, ...]
    same_as: str | None = None

    @property
    def severity(self) -> Severity | None:
        """Of the worst defect; None where there is none."""
        return min((defect.kind.severity for defect in self.defects), default=None, key=list(Severity).index)

    def having(self, *defects: Defect) -> "CheckedRun":
        """The same with further defects."""
        return replace(self, defects=(*self.defects, *defects))


@dataclass(frozen=True, eq=False)
class Survey:
    """All runs. common: None where none can be read. seconds: that it took."""

    runs: tuple[CheckedRun, ...]
    common: Common | None
    scatters: Scatters
    seconds: float

    def number(self, severity: Severity | None) -> int:
        """Of the runs that are as bad as that."""
        return sum(run.severity is severity for run in self.runs)


def check_runs(patterns: Sequence[str], workers: int | None = None) -> Survey:
    """Read every run and say what is wrong with it, the same on every rank.

    patterns: run folders, folders that hold some, globs. workers: processes; under mpirun the ranks share the work.
    Memory: one run a process, and the atoms' positions of all.

    Raises:
        ReadError: no run found.
    """
    start = time.perf_counter()
    runs = world().broadcast(find_runs(patterns) if world().is_main else None)
    checked = list(performed(check_run, runs, workers, "checking runs"))
    return compared(checked, start)


def check_run(run: Run) -> CheckedRun:
    """Read a run and judge it by itself; one that cannot be read is no error but a defect."""
    try:
        material = read_material(run)
    except (TracegradError, OSError) as error:
        return CheckedRun(run, None, (Defect(Kind.UNREADABLE, str(error).removeprefix(f"{run.path}: ")),))
    if reason := impossible_entries(material):
        return CheckedRun(run, None, (Defect(Kind.UNREADABLE, reason),))
    with threadpool_limits(1):  # processes and ranks share the cores already
        figures = measure(material)
    return CheckedRun(run, figures, (*defects_as_label(material), *defects_of(figures)))


def compared(checked: Sequence[CheckedRun], start: float) -> Survey:
    """The runs with what is wrong with them beside each other. start: of the clock.

    Runs that must be fixed anyway are held against the common basis and spin only.
    """
    readable = [run.figures for run in checked if run.figures is not None]
    common = Common.of(readable) if readable else None
    runs = [run.having(*common.misfits(run.figures)) if common and run.figures else run for run in checked]
    sound = {
        place: run.figures
        for place, run in enumerate(runs)
        if run.figures is not None and run.severity is not Severity.FIX
    }
    places, figures = list(sound), list(sound.values())
    known = scatters(figures)
    for place in places:
        runs[place] = runs[place].having(*outliers(sound[place], known))
    for number, misfit in electron_misfits(figures):
        runs[places[number]] = runs[places[number]].having(misfit)
    for number, original in duplicates(figures):
        label = runs[places[original]].run.label
        message = f"the same structure as {label}; {_difference(figures[number], figures[original])}"
        twin = runs[places[number]].having(Defect(Kind.DUPLICATE, message))
        runs[places[number]] = replace(twin, same_as=label)
    return Survey(tuple(runs), common, known, time.perf_counter() - start)


def _difference(one: Figures, other: Figures) -> str:
    """Whether two runs of one structure have one H."""
    differences = [abs(level - other.on_site_levels[element]) for element, level in one.on_site_levels.items()]
    return f"their on-site levels differ by up to {max(differences, default=0.0):.1e} eV"
