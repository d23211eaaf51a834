"""Where the files of an ABACUS run are, in the names of all versions, and which ionic steps they hold."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from deeph_tracegrad.console import warn
from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.preprocess.abacus.csr import sections
from deeph_tracegrad.preprocess.abacus.input_file import read_input

# {old} and {new} count spin channels from 0 up to 3.10 and from 1 afterwards. A run over several ionic steps writes
# either all into one file, or one file a step, with <step>_ in front or g<step> within; which counts from 0 and which
# from 1 depends on the version, so that the number is taken from inside the file.
NAMES = {
    "H": (r"data-HR-sparse_SPIN{old}\.csr", r"hrs{new}(?P<within>g\d{{1,9}})?_nao\.(csr|dat)"),
    "S": (
        r"data-SR-sparse_SPIN0\.csr",
        r"srs1(?P<within>g\d{{1,9}})?_nao\.csr",
        r"sr(?P<within>g\d{{1,9}})?_nao\.(csr|dat)",
        r"SR\.csr",
    ),
    "DM": (r"data-DMR-sparse_SPIN{old}\.csr", r"dmrs{new}(?P<within>g\d{{1,9}})?_nao\.csr"),
    "r": (r"data-rR-sparse\.csr", r"rr(?P<within>g\d{{1,9}})?\.csr"),
}
ARCHIVE_NAMES = ("*_nao.npz", "output_*.npz")
STEP_BEFORE_NAME = r"(?P<before>\d{1,9}_)?"
STEP_FOLDER = "matrix"
STEP_PATH = re.compile(r"step_(\d{1,9})")
LOG_NAMES = ("running_scf.log", "running_get_S.log", "running_get_s.log")
MOVING_CALCULATIONS = ("relax", "cell-relax", "md")


@dataclass(frozen=True)
class RunFolder:
    """inputs: the folder with STRU and INPUT. output: its OUT.* folder."""

    inputs: Path
    output: Path

    def matrix(self, matrix: str, spin: int, step: int | None) -> Path | None:
        """The file with a matrix of an ionic step.

        Args:
            matrix: H, S, DM or r.
            spin: the channel, 0 or 1.
            step: counted from 0; by default the last one.

        Raises:
            ReadError: two files have it, one is none of ABACUS' matrix files, or H or S is there of other steps only.
        """
        found, damaged = self._steps(matrix, spin, step)
        paths = found.get(max(found) if step is None else step, []) if found else []
        if len(paths) > 1:
            raise _ambiguous(self.output, *paths[:2])
        if paths:
            return paths[0]
        if damaged:
            raise damaged[0]
        if step is not None and matrix in "HS" and (others := sorted(self._steps(matrix, spin)[0])):
            listed = ", ".join(map(str, others[:8])) + (", ..." if len(others) > 8 else "")
            raise ReadError(self.output, f"has no {matrix}(R) of step {step}; it has that of the steps {listed}")
        return None

    @cached_property
    def steps(self) -> tuple[int, ...]:
        """The ionic steps of a relaxation or molecular dynamics that have an H(R), or else S(R); none of other runs.

        A file that tells none is left out with a warning: the last one of an interrupted run may be empty.

        Raises:
            ReadError: there are matrices of two versions.
        """
        if self.calculation not in MOVING_CALCULATIONS:
            return ()
        for matrix in "HS":
            found, damaged = self._steps(matrix, 0)
            for error in damaged if found else []:
                warn(f"skipped {error}")
            if found:
                return tuple(sorted(found))
        return ()

    @cached_property
    def parameters(self) -> Mapping[str, str]:
        """What INPUT sets; empty where the file is missing."""
        path = self.input_file("INPUT")
        return read_input(path) if path else {}

    @cached_property
    def log(self) -> Path:
        """The log of the calculation that made the matrices, where there are several."""
        names = sorted(path.name for path in self.output.glob("running_*.log"))
        moving = [name for name in MOVING_CALCULATIONS if name == self.parameters.get("calculation")]
        wanted = (*(f"running_{name}.log" for name in moving), *LOG_NAMES, *names)
        return self.output / next(name for name in wanted if name in names)

    @property
    def calculation(self) -> str:
        """Of which kind it was, after which the log is named: scf, get_S, relax, cell-relax, md, ..."""
        return self.log.stem.removeprefix("running_")

    def input_file(self, name: str) -> Path | None:
        """An input file, from beside the output or from the copy in it."""
        return next((path for folder in (self.inputs, self.output) if (path := folder / name).is_file()), None)

    def holds_archives(self) -> bool:
        """Whether matrices were written in the form that is not read."""
        return any(found for name in ARCHIVE_NAMES for found in self.output.glob(name))

    def _steps(self, matrix: str, spin: int, step: int | None = None) -> tuple[dict[int, list[Path]], list[ReadError]]:
        """The files that hold each step, and what is wrong with those that tell none; of all, or of one step."""
        found: dict[int, list[Path]] = {}
        damaged = []
        for path in self._files(matrix, spin, step):
            try:
                for number in {section.step for section in sections(path, matrix)}:
                    found.setdefault(number, []).append(path)
            except ReadError as error:
                damaged.append(error)
        return found, damaged

    def _files(self, matrix: str, spin: int, step: int | None = None) -> list[Path]:
        """Every file named like this matrix, in one version's way, without those named after other steps.

        Of S, which nearly each version names otherwise, those with the first name that is there; early versions of
        get_S wrote it beside the input.
        """
        names = [name.format(old=spin, new=spin + 1) for name in NAMES[matrix]]
        found = [own for name in names if (own := _named(name, self._outputs, step))]
        if matrix == "S":
            found += [own for name in names if (own := _named(name, sorted(self.inputs.iterdir()), step))]
        elif len(found) > 1:
            raise _ambiguous(self.output, found[0][0], found[1][0])
        return found[0] if found else []

    @cached_property
    def _outputs(self) -> list[Path]:
        """What is in the folders that matrices are written to."""
        folders = [self.output, self.output / STEP_FOLDER]
        return [path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir())]


def outputs(folder: Path) -> list[Path]:
    """The output folders of a run folder: OUT.* with a log."""
    return sorted(path for path in folder.glob("OUT.*") if is_output(path))


def is_output(folder: Path) -> bool:
    """Whether ABACUS has written into this folder; by names alone."""
    return any(folder.glob("running_*.log"))


def locate(path: Path) -> RunFolder:
    """Tell inputs and output apart, given either of the two folders.

    Raises:
        ReadError: it is neither, or there are several outputs to choose from.
    """
    if is_output(path):
        return RunFolder(path.absolute().parent, path)  # the parent of "." is none
    found = outputs(path)
    if not found:
        raise ReadError(path, "is no ABACUS run: neither it nor a folder OUT.* in it holds a running_*.log")
    if len(found) > 1:
        raise ReadError(path, f"holds several outputs, {', '.join(folder.name for folder in found)}; name one of them")
    return RunFolder(path, found[0])


def step_path(run: Path, step: int) -> Path:
    """How one ionic step of a run is named, as if it were a folder in it."""
    return run / f"step_{step}"


def split_step(path: Path) -> tuple[Path, int | None]:
    """The run and the step that such a name stands for; the path itself, and none, where it is no such name."""
    found = None if path.exists() else STEP_PATH.fullmatch(path.name)
    return (path.parent, int(found.group(1))) if found else (path, None)


def _named(name: str, paths: Sequence[Path], step: int | None) -> list[Path]:
    """Those with this name, that of any step or of the one given."""
    pattern = re.compile(STEP_BEFORE_NAME + name)
    found = [(path, names) for path in paths if (names := pattern.fullmatch(path.name))]
    wanted = (None, step, step if step is None else step + 1)
    return [path for path, names in found if step is None or _number(names) in wanted]


def _number(names: re.Match[str]) -> int | None:
    """The number of a step in a file's name, which counts from 0 or from 1."""
    digits = [word.strip("g_") for word in names.groupdict().values() if word]
    return int(digits[0]) if digits else None


def _ambiguous(folder: Path, one: Path, other: Path) -> ReadError:
    return ReadError(folder, f"holds both {one.name} and {other.name}; remove the outdated one")
