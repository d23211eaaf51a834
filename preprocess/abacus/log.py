"""running_scf.log and its kin: what ABACUS made of its input, and how the calculation went.

The wording changed over the versions (`atom label` / `Atom label`, `AUTOSET number of electrons:` /
`Autoset the number of electrons`, ...); the expressions below take all of it.

Shape letters: N atoms.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.preprocess.abacus.geometry import Geometry, spanning
from deeph_tracegrad.preprocess.abacus.text import numbers, read_text
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
class Log:
    """What a running_*.log tells; None where it does not.

    types: the species in the order of the matrices.
    geometry: cell and atoms, to six digits; the atoms stand where ABACUS moved them.
    fermi_level: eV. electrons: as set from the pseudopotentials.
    """

    path: Path
    version: str | None
    nspin: int | None
    types: tuple[AtomType, ...]
    geometry: Geometry | None
    fermi_level: float | None
    electrons: float | None
    converged: bool | None


def read_log(path: Path) -> Log:
    """Read a running_*.log.

    Raises:
        ReadError: it cannot be read, or does not tell which atoms and shells there are.
    """
    text = read_text(path)
    types = tuple(_atom_type(path, part) for part in ATOM_TYPE.findall(text))
    if not types:
        raise ReadError(path, "lists no atom types; is it a complete running_*.log of ABACUS?")
    lower = text.lower()
    version, nspin, electrons = VERSION.search(text), SPIN.search(lower), ELECTRONS.findall(lower)
    return Log(
        path,
        version.group(1) if version else None,
        int(nspin.group(1)) if nspin else None,
        types,
        _geometry(path, text, types),
        _fermi_level(text),
        float(electrons[-1]) if electrons else None,
        _converged(lower),
    )


def _atom_type(path: Path, text: str) -> AtomType:
    label, count = LABEL.search(text), ATOM_COUNT.search(text)
    shells = [int(degree) for degree, zetas in SHELLS.findall(text) for _ in range(min(int(zetas), 100))]
    if label is None or count is None or not shells:
        raise ReadError(path, "an atom type lacks its label or its shells; only runs with basis_type lcao can be read")
    return AtomType(label.group(1), tuple(shells), int(count.group(1)))


def _geometry(path: Path, text: str, types: tuple[AtomType, ...]) -> Geometry | None:
    constant, vectors, table = CONSTANT.search(text), VECTORS.search(text), POSITIONS.search(text)
    if constant is None or vectors is None or table is None:
        return None
    rows = [numbers(path, line.split(), 3, "a lattice vector") for line in vectors.group(1).splitlines()]
    lattice = spanning(path, np.array(rows))
    lines = table.group(2).splitlines()
    positions = np.array([numbers(path, line.split()[1:], 3, "an atom's position") for line in lines])
    if table.group(1) == "CARTESIAN":
        positions = positions @ np.linalg.inv(lattice)
    labels = tuple(kind.label for kind in types for _ in range(kind.count))
    if len(positions) != len(labels):
        raise ReadError(path, f"announces {len(labels)} atoms and lists {len(positions)} positions")
    return Geometry(path, labels, lattice * float(constant.group(1)) * ABACUS_BOHR_ANGSTROM, positions)


def _fermi_level(text: str) -> float | None:
    """The last line that tells it: EFERMI at the end of the run, or a row of the last iteration's energies."""
    final, rows = FERMI.findall(text), FERMI_ROW.findall(text)
    if final:
        return float(final[-1])
    return float(rows[-1][1]) if rows else None


def _converged(text: str) -> bool | None:
    """What the last statement about it is; of a calculation with several steps that is the last one's."""
    reached, missed = (max(map(text.rfind, phrases)) for phrases in (CONVERGED, NOT_CONVERGED))
    return None if reached == missed else reached > missed
