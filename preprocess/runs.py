"""Which folders are runs, of which code, and the one way to read any of them."""

import glob
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deeph_tracegrad.console import warn
from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.material import Material
from deeph_tracegrad.preprocess.abacus import folder as abacus_folder
from deeph_tracegrad.preprocess.abacus.folder import split_step, step_path

Further = Literal["density", "position"]
Kind = Literal["openmx", "abacus", "deeph", "deeph-legacy"]

ACCEPTED = (
    "OpenMX (a .scfout file), ABACUS (OUT.*/running_*.log), DeepH (info.json, POSCAR and overlap.h5 or hamiltonian.h5) "
    "or legacy DeepH (element.dat, lat.dat and overlaps.h5 or hamiltonians.h5)"
)
WILDCARDS = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Run:
    """A calculation, or one ionic step of it.

    path: the folder that holds it; of one step among several, that folder and `step_<number>`, as if it were a folder
        in it. Every command takes either.
    label: a name that no other run found with it has: its path from the folder that was searched, or its own name.
    step: the ionic step, counted from 0; None where the run has no others with matrices.
    """

    path: Path
    kind: Kind
    label: str
    step: int | None = None

    @property
    def folder(self) -> Path:
        """The folder that holds it."""
        return self.path if self.step is None else self.path.parent


def detect(path: Path) -> Kind | None:
    """What kind of run a folder holds, by the names of its files; None if none, or several."""
    if not path.is_dir():
        return None
    names = {entry.name for entry in _entries(path)}
    if any(name.endswith(".scfout") for name in names):
        return "openmx"
    if abacus_folder.is_output(path) or len(abacus_folder.outputs(path)) == 1:
        return "abacus"
    if names >= {"info.json", "POSCAR"} and names & {"overlap.h5", "hamiltonian.h5", "hamiltonian_pred.h5"}:
        return "deeph"
    if names >= {"element.dat", "lat.dat"} and names & {"overlaps.h5", "hamiltonians.h5", "hamiltonians_pred.h5"}:
        return "deeph-legacy"
    return None


def find_runs(patterns: Sequence[str]) -> list[Run]:
    """The runs that the patterns lead to, each once, in natural order (run2 before run10) for each pattern.

    Each ionic step of a relaxation or molecular dynamics that has matrices is a run.

    patterns: run folders, single steps, folders to be searched for runs at any depth, or globs of folders.

    Raises:
        ReadError: a pattern leads to no run.
    """
    found: dict[Path, tuple[Path, Kind, str]] = {}
    for pattern in patterns:
        matches = list(_matches(pattern))
        if not matches:
            raise ReadError(pattern, _nothing(Path(pattern)) + f"Accepted are {ACCEPTED}")
        for path, kind, label in matches:
            found.setdefault(path.resolve(), (path, kind, label))
    labels = _distinct([label for _, _, label in found.values()], list(found))
    kinds = [(path, kind) for path, kind, _ in found.values()]
    runs = [run for (path, kind), label in zip(kinds, labels, strict=True) for run in _steps(path, kind, label)]
    return list({run.path.resolve(): run for run in runs}.values())


def read_material(source: Path | Run, also: Collection[Further] = ()) -> Material:
    """Read a run of any kind.

    source: of a path to a run of several ionic steps the last is read.
    also: the large matrices to read besides, where the run has them.

    Raises:
        ReadError: it is no run, or cannot be read.
    """
    run = source if isinstance(source, Run) else _run(Path(source))
    if run.kind == "abacus":
        from deeph_tracegrad.preprocess.abacus.reader import read_abacus

        return read_abacus(run.folder, run.step, also)
    return _reader(run.kind)(run.path)


def _run(path: Path) -> Run:
    folder, step = split_step(path)
    kind = detect(folder)
    if kind is None or (step is not None and kind != "abacus"):
        raise ReadError(path, f"is no run: {_nothing(path)}Accepted are {ACCEPTED}")
    return Run(path, kind, path.name, step)


def _steps(path: Path, kind: Kind, label: str) -> list[Run]:
    """The run, or else each of its steps where it has several."""
    folder, step = split_step(path)
    if step is not None:
        return [Run(path, kind, label, step)]
    try:
        steps = abacus_folder.locate(folder).steps if kind == "abacus" else ()
    except ReadError:
        steps = ()  # reading it will tell the reason
    if len(steps) < 2:
        return [Run(path, kind, label)]
    return [Run(step_path(path, own), kind, f"{label}/{step_path(path, own).name}", own) for own in steps]


def _reader(kind: Kind) -> Callable[[Path], Material]:
    if kind == "openmx":
        from deeph_tracegrad.preprocess.openmx.reader import read_openmx

        return read_openmx
    if kind == "deeph":
        from deeph_tracegrad.deeph_format import read_deeph

        return read_deeph
    from deeph_tracegrad.deeph_legacy import read_deeph_legacy

    return read_deeph_legacy


def _matches(pattern: str) -> Iterator[tuple[Path, Kind, str]]:
    """Path, kind and label of every run of one pattern."""
    path = Path(pattern)
    run, step = split_step(path)
    if step is not None and detect(run) == "abacus":
        yield path, "abacus", f"{run.resolve().name}/{path.name}"
        return
    if path.exists() or not WILDCARDS.search(pattern):
        yield from _runs_below(path, path, set())
        return
    fixed = next(place for place, part in enumerate(path.parts) if WILDCARDS.search(part))
    base = Path(*path.parts[:fixed])
    for match in sorted(glob.glob(pattern, recursive=True), key=_natural):  # noqa: PTH207  Path.glob refuses absolute ones
        yield from _runs_below(Path(match), base, set())


def _runs_below(path: Path, base: Path, seen: set[Path]) -> Iterator[tuple[Path, Kind, str]]:
    """The run that a folder is, or else those in its subfolders. seen: where links must not lead again."""
    try:
        if not path.is_dir() or path.resolve() in seen:
            return
        seen.add(path.resolve())
        kind = detect(path)
    except (ReadError, OSError) as error:
        if path == base:
            raise
        reason = error.reason if isinstance(error, ReadError) else error.strerror
        warn(f"skipped {path}: {reason}")  # such as lost+found, which must not cost the runs beside it
        return
    if kind is not None:
        yield path, kind, path.resolve().name if path == base else path.relative_to(base).as_posix()
        return
    for entry in _entries(path):
        if not entry.name.startswith("."):
            yield from _runs_below(entry, base, seen)


def _entries(folder: Path) -> list[Path]:
    """What a folder holds, in natural order."""
    try:
        return sorted(folder.iterdir(), key=lambda entry: _natural(entry.name))
    except OSError as error:
        raise ReadError(folder, f"cannot be listed: {error.strerror or error}") from error


def _distinct(labels: list[str], paths: list[Path]) -> list[str]:
    """Labels that occur twice get more of their path in front."""
    labels = list(labels)
    while twice := {label for label, count in Counter(labels).items() if count > 1}:
        for place, label in enumerate(labels):
            if label in twice:
                parts = min(label.count("/") + 2, len(paths[place].parts))
                labels[place] = "/".join(paths[place].parts[-parts:])
    return labels


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """A key that sorts run2 before run10."""
    parts = re.split(r"(\d+)", name)
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]


def _nothing(path: Path) -> str:
    """What stands where a run was expected."""
    if WILDCARDS.search(str(path)) and not path.exists():
        return "no folder that it matches is or holds a run. "
    if not path.exists():
        return "it does not exist. "
    if not path.is_dir():
        return "it is a file; name the folder. "
    names = [entry.name for entry in _entries(path)]
    if not names:
        return "it is empty. "
    return f"it holds {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}. "
