"""OpenMX's basis files: `C6.0.pao` for the label `C6.0-s2p2d1`, of which the shells pick the first radial functions.

Format: keywords, and for each degree a block of rows `ln r, r, R_0(r), R_1(r), ...` in bohr. Contractions that the file
was made with are in R already.

Shape letters: n points of the grid, F radial functions.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pymatgen.core import Element

from deeph_tracegrad import units
from deeph_tracegrad.errors import MismatchError, ReadError
from deeph_tracegrad.integrals.radial import Quadrature, RadialFunctions
from deeph_tracegrad.orbitals import SHELL_LETTERS
from deeph_tracegrad.text_tables import read_text

MAX_RADIAL_FUNCTIONS = 20
MAX_RADIUS = 50.0  # bohr
MIN_POINTS = 10


@dataclass(frozen=True)
class BasisLabel:
    """`C6.0-s2p2d1`, or `Si7.0-s4>2p4>2d1` where orbitals are contracted during the run.

    stem: name of the file without .pao. shells: degree of each radial function in the matrices, ascending.
    contracted: degrees whose functions the run makes of more than it keeps.
    """

    text: str
    stem: str
    shells: tuple[int, ...]
    contracted: tuple[int, ...]


def parse_label(text: str) -> BasisLabel:
    """Take a label apart.

    Raises:
        MismatchError: it is no label.
    """
    stem, _, shells = text.partition("-")
    parts = re.findall(r"([spdfg])(\d{1,4})(?:>(\d{1,4}))?", shells)
    written = "".join(f"{letter}{first}" + (f">{second}" if second else "") for letter, first, second in parts)
    counts = {letter: int(second or first) for letter, first, second in parts}
    if written != shells or len(counts) != len(parts) or not 0 < sum(counts.values()) <= MAX_RADIAL_FUNCTIONS:
        raise MismatchError(f"the basis {text!r} is not of the form C6.0-s2p2d1")
    degrees = tuple(degree for degree, letter in enumerate(SHELL_LETTERS) for _ in range(counts.get(letter, 0)))
    contracted = tuple(SHELL_LETTERS.index(letter) for letter, first, second in parts if second and second != first)
    return BasisLabel(text, stem, degrees, contracted)


def read_pao(path: Path, label: BasisLabel) -> RadialFunctions:
    """The functions that a label picks from its file.

    Raises:
        ReadError: the file is damaged, lacks functions, or the label needs some that only a run of OpenMX makes.
    """
    if label.contracted:
        letters = ", ".join(SHELL_LETTERS[degree] for degree in label.contracted)
        raise ReadError(
            path,
            f"the basis {label.text} contracts its {letters} orbitals during the run; "
            "name the .pao that OpenMX then writes (CntOrb.fileout on), with its own shells",
        )
    text = read_text(path)
    grids, values = [], []
    for degree in sorted(set(label.shells)):
        table = _table(path, text, degree)
        count = label.shells.count(degree)
        if table.shape[1] < 2 + count:
            raise ReadError(
                path,
                f"has {table.shape[1] - 2} radial functions of l = {degree}, and {label.text} needs {count}",
            )
        grids.append(table[:, 1])
        values += list(table[:, 2 : 2 + count].T)
    r, cutoff = grids[0], _number(path, text, "radial.cutoff.pao")
    if any(not np.array_equal(grid, r) for grid in grids) or r[0] <= 0 or (np.diff(r) <= 0).any() or r[-1] < cutoff:
        raise ReadError(path, f"its radial grid does not ascend from 0 to the cutoff of {cutoff:g} bohr; it is damaged")
    number = _number(path, text, "AtomSpecies")
    if number not in range(1, 119):
        raise ReadError(path, f"AtomSpecies {number:g} is no element")
    return RadialFunctions(
        source=path,
        element=Element.from_Z(int(number)).symbol,
        label=label.text,
        degrees=label.shells,
        cutoff=cutoff,
        r=r,
        values=np.array(values),
        quadrature=Quadrature.OPENMX,
        bohr_angstrom=units.OPENMX_BOHR_ANGSTROM,
        hartree_ev=units.OPENMX_HARTREE_EV,
        valence_electrons=_number(path, text, "valence.electron"),
    )


def _table(path: Path, text: str, degree: int) -> np.ndarray:
    """The block of one degree, (n, 2 + functions)."""
    name = f"pseudo.atomic.orbitals.L={degree}"
    _, begin, rest = text.partition(f"<{name}\n")
    block, end, _ = rest.partition(f"{name}>")
    if not begin or not end:
        raise ReadError(path, f"has no whole block <{name}; is it a .pao file of OpenMX?")
    try:
        table = np.array([line.split() for line in block.splitlines()], dtype=float)
    except ValueError:
        table = np.empty(0)
    if table.ndim != 2 or len(table) < MIN_POINTS or table.shape[1] < 3 or not np.isfinite(table).all():
        raise ReadError(path, f"the block <{name} is no table of numbers with at least 3 columns; it is damaged")
    return table


def _number(path: Path, text: str, keyword: str) -> float:
    """The number after a keyword, positive."""
    match = re.search(rf"^\s*{re.escape(keyword)}\s+(\d{{1,3}}(?:\.\d*)?)\s", text, re.MULTILINE)
    if match is None or not 0 < float(match[1]) < 200:
        raise ReadError(path, f"lacks {keyword}; is it a .pao file of OpenMX?")
    return float(match[1])
