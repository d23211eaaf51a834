"""running_scf.log and its kin: what ABACUS made of its input, and how the calculation went.

The wording changed over the versions (`atom label` / `Atom label`, `AUTOSET number of electrons:` /
`Autoset the number of electrons`, ...); the expressions below take all of it.

Shape letters: N atoms.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np

from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.preprocess.abacus.geometry import Geometry, spanning
from deeph_tracegrad.preprocess.abacus.text import numbers
from deeph_tracegrad.text_tables import read_text
from deeph_tracegrad.units import ABACUS_BOHR_ANGSTROM

# A number counts only with a blank after it: the last one of a log that was cut short may lack digits.
NUMBER = r"([-+]?\d+\.?\d*(?:[eE][-+]?\d+)?)(?=\s)"
VERSION = re.compile(r"ABACUS\s+v?(\d+\.\d+\S*)")
ATOM_TYPE = re.compile(r"READING ATOM TYPE \d+\b(.*?[Nn]umbers? of atoms? for this type\s*=\s*\d+\s)", re.DOTALL)
LABEL = re.compile(r"[Aa]tom label\s*=\s*(\S+)")
SHELLS = re.compile(r"\bL=(\d+), number of zeta\s*=\s*(\d+)\s")
ATOM_COUNT = re.compile(r"of atoms? for this type\s*=\s*(\d+)")
CONSTANT = re.compile(rf"[Ll]attice constant \(Bohr\)\s*=\s*{NUMBER}")
VECTORS = re.compile(r"Lattice vectors: \(Cartesian coordinate: in unit of a_0\)\s*\n((?:.*\n){3})")
POSITIONS = re.compile(r"(DIRECT|CARTESIAN) COORDINATES.*\n *atom .*\n((?: *[A-Za-z]\S*(?: +[-+]?\d\S*){3,} *\n)+)")
FERMI = re.compile(rf"EFERMI\s*=\s*{NUMBER}\s*eV")
FERMI_ROW = re.compile(rf"E_Fermi\s+{NUMBER}\s+{NUMBER}")
# The heading of each electronic iteration, which counts the ionic steps from 1, and that of a step of molecular
# dynamics, which goes on where an earlier run ended.
ITERATION = re.compile(r"\bION=\s*(\d{1,9})\s+ELEC=|#ION MOVE#\s*(\d{1,9})\s")
DYNAMICS_STEP = re.compile(r"STEP OF MOLECULAR DYNAMICS\s*:\s*(\d{1,9})\s")
ELEMENT_ELECTRONS = re.compile(rf"(?<!total )electron number of element (\S+)\s*=\s*{NUMBER}", re.IGNORECASE)
PSEUDOPOTENTIAL_ELECTRONS = re.compile(rf"valence electrons\s*=\s*{NUMBER}", re.IGNORECASE)
# These are looked for in lower case.
SPIN = re.compile(r"nspin =+ (\d)\s")
ELECTRONS = re.compile(rf"autoset (?:the )?number of electrons:?\s*=\s*{NUMBER}")
CONVERGED = ("charge density convergence is achieved", "#scf is converged#")
NOT_CONVERGED = ("convergence has not been achieved", "scf is not converged")


@dataclass(frozen=True)
class AtomType:
    """One species: its label, the degrees of its shells, and how many atoms it has."""

    label: str
    shells: tuple[int, ...]
    count: int


@dataclass(frozen=True)
class IonicStep:
    """What the log tells of one ionic step; None where it does not.

    lattice: (3, 3) Å, to six digits. geometry: with that lattice; the atoms stand where ABACUS moved them.
    fermi_level: eV.
    """

    lattice: np.ndarray | None = None
    geometry: Geometry | None = None
    fermi_level: float | None = None
    converged: bool | None = None


@dataclass(frozen=True)
class Log:
    """What a running_*.log tells; None where it does not.

    types: the species in the order of the matrices. valence_electrons: of one atom of each label.
    electrons: as set from the pseudopotentials.
    steps: the ionic steps by their number, counted from 0.
    whole: the first geometry, and what the log says last of all else.
    first_dynamics_step: the number that the first step of molecular dynamics has in MD_dump; not 0 if it was continued.
    """

    path: Path
    version: str | None
    nspin: int | None
    types: tuple[AtomType, ...]
    valence_electrons: Mapping[str, float]
    electrons: float | None
    steps: Mapping[int, IonicStep]
    whole: IonicStep
    first_dynamics_step: int

    def at(self, step: int | None) -> IonicStep:
        """One ionic step; by default the run as a whole."""
        return self.whole if step is None else self.steps.get(step, IonicStep())


def read_log(path: Path) -> Log:
    """Read a running_*.log.

    Raises:
        ReadError: it cannot be read, or does not tell which atoms and shells there are.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise ReadError(path, f"cannot be read ({error.strerror})") from None
    return _read_log(path, status.st_size, status.st_mtime_ns)


# Without it each step of a long run would read the log of all.
@lru_cache(maxsize=2)
def _read_log(path: Path, size: int, modified: int) -> Log:  # noqa: ARG001  they tell a changed file
    text = read_text(path, errors="replace")
    types = tuple(_atom_type(path, part) for part in ATOM_TYPE.findall(text))
    if not types:
        raise ReadError(path, "lists no atom types; is it a complete running_*.log of ABACUS?")
    start = text[: first.start()] if (first := ITERATION.search(text)) else text
    lower = start.lower()
    version, nspin, electrons = VERSION.search(start), SPIN.search(lower), ELECTRONS.findall(lower)
    constant, vectors, table = CONSTANT.search(start), VECTORS.search(start), POSITIONS.search(start)
    cell = _Cell(path, types, float(constant.group(1)) * ABACUS_BOHR_ANGSTROM if constant else None)
    lattice = cell.lattice(vectors.group(1)) if vectors else None
    geometry = cell.geometry(lattice, *table.groups()) if table else None
    dynamics = DYNAMICS_STEP.search(text)
    return Log(
        path,
        version.group(1) if version else None,
        int(nspin.group(1)) if nspin else None,
        types,
        _valence_electrons(start, types),
        float(electrons[-1]) if electrons else None,
        _steps(text, cell),
        IonicStep(lattice, geometry, _fermi_level(text), _converged(text)),
        int(dynamics.group(1)) if dynamics else 0,
    )


def _atom_type(path: Path, text: str) -> AtomType:
    label, count = LABEL.search(text), ATOM_COUNT.search(text)
    shells = [int(degree) for degree, zetas in SHELLS.findall(text) for _ in range(min(int(zetas), 100))]
    if label is None or count is None or not shells:
        raise ReadError(path, "an atom type lacks its label or its shells; only runs with basis_type lcao can be read")
    return AtomType(label.group(1), tuple(shells), int(count.group(1)))


def _valence_electrons(text: str, types: tuple[AtomType, ...]) -> dict[str, float]:
    """By label; where INPUT sets the number of electrons, those of the pseudopotentials, in their order."""
    in_order = PSEUDOPOTENTIAL_ELECTRONS.findall(text)
    labels = [kind.label for kind in types] if len(in_order) == len(types) else []
    found = [*zip(labels, in_order, strict=False), *ELEMENT_ELECTRONS.findall(text)]
    return {label: float(number) for label, number in found}


def _steps(text: str, cell: "_Cell") -> dict[int, IonicStep]:
    """Cut the log where the iterations of another ionic step begin.

    A table of positions counts for the step that follows only, since a run may print none; a lattice until the next.
    """
    headings = [(int(match.group(1) or match.group(2)) - 1, match.start()) for match in ITERATION.finditer(text)]
    groups = [(step, [place for _, place in own]) for step, own in groupby(headings, key=itemgetter(0))]
    ends = [places[0] for _, places in groups[1:]] + [len(text)]
    steps: dict[int, IonicStep] = {}
    last, lattice = 0, None
    for (step, places), end in zip(groups, ends, strict=False):
        before, own = text[last : places[0]], text[places[0] : end]
        for vectors in VECTORS.findall(before):
            lattice = cell.lattice(vectors)
        tables = POSITIONS.findall(before)
        geometry = cell.geometry(lattice, *tables[-1]) if tables else None
        steps[step] = IonicStep(lattice, geometry, _fermi_level(own), _converged(own))
        last = places[-1]
    return steps


@dataclass(frozen=True)
class _Cell:
    """What turns the log's tables into geometries. constant: Å; None where the log does not tell."""

    path: Path
    types: tuple[AtomType, ...]
    constant: float | None

    def lattice(self, table: str) -> np.ndarray | None:
        """(3, 3) Å."""
        rows = [numbers(self.path, line.split(), 3, "a lattice vector") for line in table.splitlines()]
        return None if self.constant is None else spanning(self.path, self.constant * np.array(rows))

    def geometry(self, lattice: np.ndarray | None, kind: str, table: str) -> Geometry | None:
        """kind: DIRECT or CARTESIAN."""
        if lattice is None or self.constant is None:
            return None
        lines = table.splitlines()
        positions = np.array([numbers(self.path, line.split()[1:], 3, "an atom's position") for line in lines])
        if kind == "CARTESIAN":
            positions = positions * self.constant @ np.linalg.inv(lattice)
        labels = tuple(kind.label for kind in self.types for _ in range(kind.count))
        if len(positions) != len(labels):
            raise ReadError(self.path, f"announces {len(labels)} atoms and lists {len(positions)} positions")
        return Geometry(self.path, labels, lattice, positions)


def _fermi_level(text: str) -> float | None:
    """The last line that tells it: EFERMI at the end of a step, or a row of the last iteration's energies."""
    final, rows = FERMI.findall(text), FERMI_ROW.findall(text)
    if final:
        return float(final[-1])
    return float(rows[-1][1]) if rows else None


def _converged(text: str) -> bool | None:
    """What the last statement about it is."""
    lower = text.lower()
    reached, missed = (max(map(lower.rfind, phrases)) for phrases in (CONVERGED, NOT_CONVERGED))
    return None if reached == missed else reached > missed
