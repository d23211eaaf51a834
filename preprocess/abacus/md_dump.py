"""MD_dump: cell and atoms of the steps of a molecular dynamics run.

Shape letters: N atoms.
"""

import mmap
import re
from functools import lru_cache
from pathlib import Path

import numpy as np

from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.preprocess.abacus.geometry import Geometry, spanning
from deeph_tracegrad.preprocess.abacus.text import numbers
from deeph_tracegrad.units import ABACUS_BOHR_ANGSTROM

MARK = b"MDSTEP:"
# Early versions print the constant in bohr, and positions in units of it.
CONSTANT = re.compile(r"LATTICE_CONSTANT: *(\S+)( Angstrom)? *\n")
VECTORS = re.compile(r"LATTICE_VECTORS *\n((?:.*\n){3})")
ATOMS = re.compile(r"INDEX +LABEL +POSITIONS?( \(Angstrom\))?.*\n((?: *\d+ +[A-Za-z].*\n)+)")
# ABACUS prints the constant with 1 bohr = 0.529177 Å, and these positions with 1 Å = 1.889727 bohr.
POSITION_SCALE = ABACUS_BOHR_ANGSTROM * 1.889727


def read_md_dump(path: Path, step: int) -> Geometry | None:
    """Cell and atoms of a step, as numbered in the file; None if it is not there.

    The atoms stand in the periodic images that the matrices count from.

    Raises:
        ReadError: the file cannot be read, or is damaged or cut short at this step.
    """
    try:
        status = path.stat()
        places = _places(path, status.st_size, status.st_mtime_ns)
        if step not in places:
            return None
        with path.open("rb") as file:
            file.seek(places[step][0])
            text = file.read(places[step][1] - places[step][0]).decode(errors="replace")
    except OSError as error:
        raise ReadError(path, f"cannot be read ({error.strerror})") from None
    constant, vectors, atoms = CONSTANT.search(text), VECTORS.search(text), ATOMS.search(text)
    if constant is None or vectors is None or atoms is None or (constant.group(2) is None) != (atoms.group(1) is None):
        raise ReadError(path, f"step {step} lacks its lattice or its positions; the file is cut short or damaged")
    scale = numbers(path, [constant.group(1)], 1, "LATTICE_CONSTANT")[0]
    scale *= 1.0 if constant.group(2) else ABACUS_BOHR_ANGSTROM
    rows = [numbers(path, line.split(), 3, "a line of LATTICE_VECTORS") for line in vectors.group(1).splitlines()]
    lattice = spanning(path, scale * np.array(rows))
    words = [line.split() for line in atoms.group(2).splitlines()]
    positions = np.array([numbers(path, own[2:], 3, "an atom's position") for own in words])
    positions *= POSITION_SCALE if atoms.group(1) else scale
    return Geometry(path, tuple(own[1] for own in words), lattice, positions @ np.linalg.inv(lattice))


# Without it each step of a long run would search the whole file for its place.
@lru_cache(maxsize=8)
def _places(path: Path, size: int, modified: int) -> dict[int, tuple[int, int]]:  # noqa: ARG001  they tell a changed file
    """First byte and end of each step; of one that is there twice, as a continued run may write it, the last."""
    if not size:
        return {}
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        begins = [match.start() for match in re.finditer(MARK, data)]
        words = [bytes(data[begin + len(MARK) : begin + 40]).split() for begin in begins]
    ends = [*begins[1:], size]
    return {
        int(own[0]): (begin, end)
        for own, begin, end in zip(words, begins, ends, strict=False)
        if own and own[0].isdigit() and len(own[0]) < 10
    }
