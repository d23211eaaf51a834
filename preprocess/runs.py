"""Which folders are runs, of which code, and the one way to read any of them."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.material import Material
from deeph_tracegrad.preprocess.abacus import folder as abacus_folder
from deeph_tracegrad.preprocess.abacus.folder import split_step, step_path
from deeph_tracegrad.preprocess.openmx import folder as openmx_folder
from deeph_tracegrad.preprocess.siesta.netcdf_file import find_netcdf
from deeph_tracegrad.search import distinct_labels, entries, natural, search, what_stands_at

Kind = Literal["openmx", "abacus", "siesta", "deeph", "deeph-legacy"]

ACCEPTED = (
    "OpenMX (a .scfout file, or openmx.out and output/overlaps_*.h5), ABACUS (OUT.*/running_*.log), "
    "SIESTA (the .nc file of CDF.Save true), "
    "DeepH (info.json, POSCAR and overlap.h5 or hamiltonian.h5) "
    "or legacy DeepH (element.dat, lat.dat and overlaps.h5 or hamiltonians.h5)"
)


@dataclass(frozen=True)
class Run:
    """A calculation, or one ionic step of it.

    path: the folder that holds it, or one of several `.scfout` files in a folder; of one step among several, the folder
        and `step_<number>`, as if it were a folder in it. Every command takes either.
    label: a name that no other run found with it has: its path from the folder that was searched, or its own name.
    step: the ionic step, counted from 0; None where the run has no others with matrices.
    """

    path: Path
    kind: Kind
    label: str
    step: int | None = None

    @property
    def folder(self) -> Path:
        """The folder (or file) that holds it."""
        return self.path if self.step is None else self.path.parent


def detect(path: Path) -> Kind | None:
    """What kind of run a folder, `.scfout` file or step holds; None if none, or several.

    By the names of its files; a .nc file by its content.
    """
    folder, step = split_step(path)
    if not folder.is_dir():
        return "openmx" if openmx_folder.is_scfout(path) else None
    names = {entry.name for entry in entries(folder)}
    kind = next((kind for kind, holds in _SIGNS if holds(folder, names)), None)
    return kind if step is None or kind == "abacus" else None


def find_runs(patterns: Sequence[str]) -> list[Run]:
    """The runs that the patterns lead to, each once, in natural order (run2 before run10) for each pattern.

    Each ionic step of a relaxation or molecular dynamics that has matrices is a run, and each of several `.scfout`
    files in a folder.

    patterns: run folders, `.scfout` files, single steps, folders to be searched for runs at any depth, or globs.

    Raises:
        ReadError: a pattern leads to no run.
    """
    found = search(patterns, lambda path, _: detect(path) is not None, ACCEPTED)
    runs = list({run.path.resolve(): run for one in found for run in _runs_in(one.path, one.label)}.values())
    labels = distinct_labels([run.label for run in runs], [run.path.resolve() for run in runs])
    return [replace(run, label=label) for run, label in zip(runs, labels, strict=True)]


def read_material(source: Path | Run, *, matrices: Collection[str] = ()) -> Material:
    """Read a run of any kind.

    source: of a path to a run of several ionic steps the last is read.
    matrices: "density" and "position" are read too where they are named here and the run has them.

    Raises:
        ReadError: it is no run, or cannot be read.
    """
    run = source if isinstance(source, Run) else _run(Path(source))
    if run.kind == "abacus":
        from deeph_tracegrad.preprocess.abacus.reader import read_abacus

        return read_abacus(run.folder, run.step, matrices)
    return _reader(run.kind)(run.path, matrices=matrices)


def _reader(kind: Kind) -> Callable[..., Material]:
    if kind == "openmx":
        from deeph_tracegrad.preprocess.openmx.reader import read_openmx

        return read_openmx
    if kind == "siesta":
        from deeph_tracegrad.preprocess.siesta.reader import read_siesta

        return read_siesta
    if kind == "deeph":
        from deeph_tracegrad.deeph_format import read_deeph

        return read_deeph
    from deeph_tracegrad.deeph_legacy import read_deeph_legacy

    return read_deeph_legacy


def _run(path: Path) -> Run:
    kind = detect(path)
    if kind is None:
        raise ReadError(path, f"is no run: {what_stands_at(path)}Accepted are {ACCEPTED}")
    return Run(path, kind, path.name, split_step(path)[1])


def _runs_in(path: Path, label: str) -> Iterator[Run]:
    """The run, or else each of its steps or `.scfout` files where it has several."""
    kind, (_, step) = detect(path), split_step(path)
    if kind is None:
        return
    files = openmx_folder.scfout_files(path) if kind == "openmx" else []
    steps = _steps(path) if kind == "abacus" and step is None else ()
    if len(files) > 1:
        for file in sorted(files, key=lambda file: natural(file.name)):
            yield Run(file, kind, f"{label}/{file.stem}")
    elif len(steps) > 1:
        for own in steps:
            yield Run(step_path(path, own), kind, f"{label}/{step_path(path, own).name}", own)
    elif step is not None and label == path.name:
        yield Run(path, kind, f"{path.parent.resolve().name}/{label}", step)
    else:
        yield Run(path, kind, label.removesuffix(".scfout"), step)


def _steps(path: Path) -> Sequence[int]:
    try:
        return abacus_folder.locate(path).steps
    except ReadError:
        return ()  # reading it will tell the reason


def _is_abacus(folder: Path, _: set[str]) -> bool:
    return abacus_folder.is_output(folder) or len(abacus_folder.outputs(folder)) == 1


def _has(required: set[str], *any_of: str) -> Callable[[Path, set[str]], bool]:
    """Whether all of the first names and one of the others are there."""
    return lambda _, names: names >= required and not names.isdisjoint(any_of)


# The kinds in the order in which they are tried: what a conversion left counts before what it was made of.
_SIGNS: tuple[tuple[Kind, Callable[[Path, set[str]], bool]], ...] = (
    ("openmx", lambda _, names: any(name.endswith(".scfout") for name in names)),
    ("abacus", _is_abacus),
    ("deeph", _has({"info.json", "POSCAR"}, "overlap.h5", "hamiltonian.h5", "hamiltonian_pred.h5")),
    ("deeph-legacy", _has({"element.dat", "lat.dat"}, "overlaps.h5", "hamiltonians.h5", "hamiltonians_pred.h5")),
    ("openmx", lambda folder, _: bool(openmx_folder.overlap_files(folder))),
    ("siesta", lambda folder, _: bool(find_netcdf(folder))),
)
