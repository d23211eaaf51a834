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
from deeph_tracegrad.preprocess.openmx import folder as openmx_folder
from deeph_tracegrad.preprocess.siesta.netcdf_file import find_netcdf

Kind = Literal["openmx", "abacus", "siesta", "deeph", "deeph-legacy"]

ACCEPTED = (
    "OpenMX (a .scfout file, or openmx.out and output/overlaps_*.h5), ABACUS (OUT.*/running_*.log), "
    "SIESTA (the .nc file of CDF.Save true), "
    "DeepH (info.json, POSCAR and overlap.h5 or hamiltonian.h5) "
    "or legacy DeepH (element.dat, lat.dat and overlaps.h5 or hamiltonians.h5)"
)
WILDCARDS = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Run:
    """A folder, or one of several `.scfout` files in it, that holds one calculation.

    label: a name that no other run found with it has: its path from the folder that was searched, or its own name.
    """

    path: Path
    kind: Kind
    label: str


def detect(path: Path) -> Kind | None:
    """What kind of run a folder (or a `.scfout` file) holds; None if none, or several.

    By the names of its files; a .nc file by its content.
    """
    if not path.is_dir():
        return "openmx" if openmx_folder.is_scfout(path) else None
    names = {entry.name for entry in _entries(path)}
    if any(name.endswith(".scfout") for name in names):
        return "openmx"
    if abacus_folder.is_output(path) or len(abacus_folder.outputs(path)) == 1:
        return "abacus"
    if names >= {"info.json", "POSCAR"} and names & {"overlap.h5", "hamiltonian.h5", "hamiltonian_pred.h5"}:
        return "deeph"
    if names >= {"element.dat", "lat.dat"} and names & {"overlaps.h5", "hamiltonians.h5", "hamiltonians_pred.h5"}:
        return "deeph-legacy"
    if openmx_folder.overlap_files(path):
        return "openmx"
    return "siesta" if find_netcdf(path) else None


def find_runs(patterns: Sequence[str]) -> list[Run]:
    """The runs that the patterns lead to, each once, in natural order (run2 before run10) for each pattern.

    patterns: run folders, `.scfout` files, folders to be searched for runs at any depth, or globs of any of these.

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
    return [Run(path, kind, label) for (path, kind, _), label in zip(found.values(), labels, strict=True)]


def read_material(source: Path | Run, *, matrices: Collection[str] = ()) -> Material:
    """Read a run of any kind.

    matrices: "density" and "position" are read too where they are named here and the run has them.

    Raises:
        ReadError: it is no run, or cannot be read.
    """
    path, kind = (source.path, source.kind) if isinstance(source, Run) else (Path(source), detect(Path(source)))
    if kind is None:
        raise ReadError(path, f"is no run: {_nothing(path)}Accepted are {ACCEPTED}")
    return _reader(kind)(path, matrices=matrices)


def _reader(kind: Kind) -> Callable[..., Material]:
    if kind == "openmx":
        from deeph_tracegrad.preprocess.openmx.reader import read_openmx

        return read_openmx
    if kind == "abacus":
        from deeph_tracegrad.preprocess.abacus.reader import read_abacus

        return read_abacus
    if kind == "siesta":
        from deeph_tracegrad.preprocess.siesta.reader import read_siesta

        return read_siesta
    if kind == "deeph":
        from deeph_tracegrad.deeph_format import read_deeph

        return read_deeph
    from deeph_tracegrad.deeph_legacy import read_deeph_legacy

    return read_deeph_legacy


def _matches(pattern: str) -> Iterator[tuple[Path, Kind, str]]:
    """Path, kind and label of every run of one pattern."""
    path = Path(pattern)
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
        if not (path.is_dir() or openmx_folder.is_scfout(path)) or path.resolve() in seen:
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
        label = path.resolve().name if path == base else path.relative_to(base).as_posix()
        several = openmx_folder.scfout_files(path) if kind == "openmx" else []
        if len(several) > 1:
            for file in sorted(several, key=lambda file: _natural(file.name)):
                yield file, kind, f"{label}/{file.stem}"
        else:
            yield path, kind, label.removesuffix(".scfout")
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
        return "it is a file; name the folder of the run (predict takes structure files with --basis-dir). "
    names = [entry.name for entry in _entries(path)]
    if not names:
        return "it is empty. "
    return f"it holds {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}. "
