"""What the text output of OpenMX tells and the `.scfout` does not: whether the self-consistency was reached."""

import re
from pathlib import Path

from deeph_tracegrad.errors import ReadError


def find_text_output(scfout: Path) -> Path | None:
    """The text output beside a `.scfout`: NAME.out, NAME.std, openmx.std, or the folder's only *.out."""
    named = [scfout.with_suffix(".out"), scfout.with_suffix(".std"), scfout.with_name("openmx.std")]
    others = sorted(scfout.parent.glob("*.out"))
    return next((path for path in named + others[:1] * (len(others) == 1) if path.is_file()), None)


def read_text_output(path: Path) -> str:
    """The text.

    Raises:
        ReadError: the file cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ReadError(path, f"the file cannot be read: {error.strerror or error}") from error


def scf_reached(text: str, criterion: float) -> bool | None:
    """Whether the last self-consistency loop ended below `criterion`; None where the text does not tell.

    OpenMX stops when the band energy Uele (Hartree) changes by less than scf.criterion from one step to the next; it
    writes Uele of every step into NAME.out, and the change itself to standard output. The second step repeats the Uele
    of the first.
    """
    steps = re.findall(r"SCF=\s*(\d+)\s+NormRD=\s*\S+\s+Uele=\s*(\S+)", text)
    if steps:
        last_loop = max(place for place, (step, _) in enumerate(steps) if place == 0 or step == "1")
        energies = [_number(energy) for _, energy in steps[last_loop:]]
        return len(energies) > 2 and abs(energies[-1] - energies[-2]) < criterion
    changes = re.findall(r"\bdUele\s*=\s*(\S+)", text)
    return abs(_number(changes[-1])) < criterion if changes else None


def last_chemical_potential(text: str) -> float | None:
    """The last chemical potential in NAME.out, Hartree; None where there is none."""
    found = re.findall(r"Chemical potential \(Hartree\)\s+(\S+)", text)
    return _number(found[-1]) if found else None


def _number(word: str) -> float:
    """Not a number where OpenMX printed stars, so that no comparison with it holds."""
    try:
        return float(word)
    except ValueError:
        return float("nan")
