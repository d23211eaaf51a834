"""What the text output of OpenMX tells: whether the self-consistency was reached, and the final structure.

Shape letters: N atoms.
"""

import re
from pathlib import Path

import numpy as np

from deeph_tracegrad.errors import ReadError

WRAPPING_TOLERANCE = 1e-6  # of fractions
FINAL_STRUCTURE = "Fractional coordinates of the final structure"


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


def final_structure(text: str, path: Path) -> tuple[tuple[str, ...], np.ndarray]:
    """The last final structure in NAME.out: each atom's species, and fractions (N, 3) wrapped into [0, 1].

    Raises:
        ReadError: there is none, or it is broken.
    """
    _, heading, table = text.rpartition(FINAL_STRUCTURE)
    if not heading:
        raise ReadError(path, f"the text output has no {FINAL_STRUCTURE.lower()!r}: the run did not end")
    paragraphs = re.split(r"\n[ \t]*\n", table)
    rows = [line.split() for line in paragraphs[1].splitlines()] if len(paragraphs) > 1 else []
    if not rows or any(len(row) != 5 or row[0] != str(number) for number, row in enumerate(rows, start=1)):
        raise ReadError(path, "the table of the final structure in the text output is broken")
    fractions = np.array([[_number(word) for word in row[2:]] for row in rows])
    if not ((fractions >= -WRAPPING_TOLERANCE) & (fractions <= 1 + WRAPPING_TOLERANCE)).all():
        raise ReadError(path, "the final structure in the text output has fractions that are not from 0 to 1")
    return tuple(row[1] for row in rows), fractions


def _number(word: str) -> float:
    """Not a number where OpenMX printed stars, so that no comparison with it holds."""
    try:
        return float(word)
    except ValueError:
        return float("nan")
