"""The header of an .orb file: which shells it has and where they end."""

import re
from pathlib import Path

from deeph_tracegrad.errors import MismatchError, ReadError
from deeph_tracegrad.orbitals import ElementBasis
from deeph_tracegrad.preprocess.abacus.text import read_text
from deeph_tracegrad.units import ABACUS_BOHR_ANGSTROM

CUTOFF = re.compile(r"Radius Cutoff\(a\.u\.\)\s+(\d+(?:\.\d+)?)\s")
ZETAS = re.compile(r"Number of ([A-Z])orbital\s*-->\s*(\d+)\s")
DEGREES = "SPDFGHI"


def read_orbital_header(path: Path) -> ElementBasis:
    """The basis in an .orb file.

    Raises:
        ReadError: the file cannot be read or is no .orb file.
    """
    header, end, _ = read_text(path).partition("SUMMARY")
    cutoff, zetas = CUTOFF.search(header), ZETAS.findall(header)
    if not end or cutoff is None or not zetas or not all(letter in DEGREES for letter, _ in zetas):
        raise ReadError(path, "is no .orb file of ABACUS: its header lacks the cutoff radius or the shells")
    shells = tuple(DEGREES.index(letter) for letter, count in zetas for _ in range(min(int(count), 100)))
    return element_basis(path, shells, float(cutoff.group(1)) * ABACUS_BOHR_ANGSTROM, path.name)


def element_basis(path: Path, shells: tuple[int, ...], cutoff_radius: float | None, label: str | None) -> ElementBasis:
    """An ElementBasis, or a ReadError where the file's shells are beyond what is supported."""
    try:
        return ElementBasis(shells, cutoff_radius, label)
    except MismatchError as error:
        raise ReadError(path, str(error)) from None
