"""Where the files of an ABACUS run are, in the names of all versions."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deeph_tracegrad.errors import ReadError

# {spin} counts from 0 up to 3.10 and from 1 afterwards; g<step> stands in the names of runs over several ionic steps.
HAMILTONIAN_NAMES = (r"data-HR-sparse_SPIN{old}\.csr", r"hrs{new}(g\d+)?_nao\.csr")
OVERLAP_NAMES = (r"data-SR-sparse_SPIN0\.csr", r"srs1(g\d+)?_nao\.csr", r"sr(g\d+)?_nao\.csr", r"SR\.csr")
LOG_NAMES = ("running_scf.log", "running_get_S.log", "running_get_s.log")


@dataclass(frozen=True)
class RunFolder:
    """inputs: the folder with STRU and INPUT. output: its OUT.* folder."""

    inputs: Path
    output: Path

    def hamiltonian(self, spin: int) -> Path | None:
        """The H(R) of a spin channel, 0 or 1.

        Raises:
            ReadError: there are two, of different versions of ABACUS.
        """
        names = [name.format(old=spin, new=spin + 1) for name in HAMILTONIAN_NAMES]
        paths = [path for name in names if (path := _find([name], self.output))]
        if len(paths) > 1:
            raise ReadError(self.output, f"holds both {paths[0].name} and {paths[1].name}; remove the outdated one")
        return paths[0] if paths else None

    def overlap(self) -> Path | None:
        """The S(R); early versions of get_S wrote it beside the input."""
        return _find(OVERLAP_NAMES, self.output) or _find(OVERLAP_NAMES, self.inputs)

    def input_file(self, name: str) -> Path | None:
        """An input file, from beside the output or from the copy in it."""
        return next((path for folder in (self.inputs, self.output) if (path := folder / name).is_file()), None)

    def log(self) -> Path:
        """The log of the calculation that made the matrices, where there are several."""
        names = sorted(path.name for path in self.output.glob("running_*.log"))
        return self.output / next(name for name in (*LOG_NAMES, *names) if name in names)


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
        return RunFolder(path.parent, path)
    found = outputs(path)
    if not found:
        raise ReadError(path, "is no ABACUS run: neither it nor a folder OUT.* in it holds a running_*.log")
    if len(found) > 1:
        raise ReadError(path, f"holds several outputs, {', '.join(folder.name for folder in found)}; name one of them")
    return RunFolder(path, found[0])


def _find(names: Sequence[str], folder: Path) -> Path | None:
    """The file whose name fits the first of these patterns that any fits; of several ionic steps the last."""
    paths = list(folder.iterdir()) if folder.is_dir() else []
    for name in names:
        found = [path for path in paths if re.fullmatch(name, path.name)]
        if found:
            return max(found, key=_step)
    return None


def _step(path: Path) -> int:
    step = re.search(r"g(\d+)_nao", path.name)
    return int(step.group(1)) if step else 0
