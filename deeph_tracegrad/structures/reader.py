"""One structure from a file of any program: atoms in the file's order, neither wrapped, nor merged, nor reduced."""

from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
from pymatgen.core import Structure

from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.poscar import read_poscar
from deeph_tracegrad.structures.checks import require_possible
from deeph_tracegrad.structures.cif import read_cif
from deeph_tracegrad.structures.extended_xyz import read_extended_xyz
from deeph_tracegrad.structures.other_programs import read_other
from deeph_tracegrad.structures.pymatgen_json import read_pymatgen_json
from deeph_tracegrad.structures.xsf import read_xsf

LARGEST_FILE = 64 * 2**20  # bytes; a million atoms
COMPRESSED = {".gz", ".bz2", ".xz", ".zip", ".zst", ".Z"}

# by the name of the file in lower case, the first that fits
READERS: dict[str, Callable[[Path], Structure]] = {
    "*.cif": read_cif,
    "*.xyz": read_extended_xyz,
    "*.extxyz": read_extended_xyz,
    "*.xsf": read_xsf,
    "*.json": read_pymatgen_json,
    "*.vasp": read_poscar,
    "*poscar*": read_poscar,
    "*contcar*": read_poscar,
    "chgcar*": read_poscar,
    "locpot*": read_poscar,
}


def read_structure(path: Path | str) -> Structure:
    """Read a structure: POSCAR, CIF, extended XYZ, XSF, pymatgen's JSON, and what pymatgen or ASE read.

    A site's label is the file's own name of the atom (Fe1, C_up).

    Raises:
        ReadError: the file cannot be read, is of another kind, is damaged, or holds what no calculation could be of:
            no cell, atoms without nucleus or partly there, two atoms in one place.
    """
    path = Path(path)
    _require_small_file(path)
    with np.errstate(all="ignore"):  # numbers out of range are refused in the next line
        structure = reader_for(path)(path)
    require_possible(path, structure)
    return structure


def reader_for(path: Path) -> Callable[[Path], Structure]:
    """The reader of files that are called so."""
    name = path.name.lower()
    return next((reader for pattern, reader in READERS.items() if fnmatch(name, pattern)), read_other)


def _require_small_file(path: Path) -> None:
    if path.is_dir():
        raise ReadError(path, "is a folder; name the file of the structure")
    if not path.exists():
        raise ReadError(path, "the file is missing")
    if not path.is_file():
        raise ReadError(path, "is no regular file")
    if path.suffix in COMPRESSED:
        raise ReadError(path, "is compressed; unpack it first")
    size = path.stat().st_size
    if size == 0:
        raise ReadError(path, "the file is empty")
    if size > LARGEST_FILE:
        raise ReadError(path, f"has {size >> 20} MiB, where a structure has at most {LARGEST_FILE >> 20}")
