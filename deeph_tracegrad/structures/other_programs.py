"""Structure files that pymatgen or, where it is installed, ASE reads for us.

Only formats whose readers run nothing that a file holds; damage is noticed as far as those readers notice it.
"""

import warnings
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core import Element, Structure

from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.structures.checks import checked_lattice
from deeph_tracegrad.structures.labels import element_of

PYMATGEN_NAMES = ("*.cssr", "*.res", "*.pwmat", "atom.config", "vasprun*.xml")

# looked through in ASE 3.29: no pickle, no eval, no database, no program started, no file read that the file names
ASE_FORMATS = {
    *("abinit-in", "aims", "crystal", "cube", "dmol-car", "elk", "espresso-in", "espresso-out", "gen", "siesta-xv"),
    *("struct", "struct_out", "traj", "v-sim", "vasp-out", "xsd"),
}


def read_other(path: Path) -> Structure:
    """Read a file with pymatgen or ASE.

    Raises:
        ReadError: neither knows its kind, or the one that does cannot read it.
    """
    if any(fnmatch(path.name.lower(), pattern) for pattern in PYMATGEN_NAMES):
        return _read_with_pymatgen(path)
    return _read_with_ase(path)


def _read_with_pymatgen(path: Path) -> Structure:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            structure = Structure.from_file(path)
    except Exception as error:  # whatever a reader that is not ours may raise
        raise ReadError(path, f"cannot be read by pymatgen ({_first_line(error)})") from error
    if not structure.is_ordered:
        raise ReadError(
            path, "has partly occupied sites, which have no one Hamiltonian; make an ordered structure of it"
        )
    elements = [element_of(str(site.specie), path) for site in structure]
    return Structure(structure.lattice, elements, structure.frac_coords, labels=structure.labels)


def _read_with_ase(path: Path) -> Structure:
    try:
        from ase.io import read
        from ase.io.formats import UnknownFileTypeError, filetype
    except ImportError:
        raise ReadError(
            path,
            "its name is that of no structure file read here (POSCAR, CIF, extended XYZ, XSF, pymatgen's JSON, "
            f"{', '.join(PYMATGEN_NAMES)}); for files of ASE install deeph-tracegrad[ase]",
        ) from None
    absolute = str(path.absolute())  # else a name such as postgres.gen leads to a database
    try:
        kind = filetype(absolute)
    except (UnknownFileTypeError, UnicodeDecodeError):
        kind = "unknown"
    if kind not in ASE_FORMATS:
        raise ReadError(
            path,
            f"is, to ASE, of the format {kind}, and not one that is read here ({', '.join(sorted(ASE_FORMATS))}); "
            f"convert it, for instance with `ase convert {path.name} structure.xyz`",
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            images: Any = read(absolute, index=slice(0, 2), format=kind, do_not_split_by_at_sign=True)
    except Exception as error:  # whatever a reader that is not ours may raise
        raise ReadError(path, f"cannot be read by ASE as {kind} ({_first_line(error)})") from error
    if len(images) != 1:
        raise ReadError(path, f"holds {'several structures; keep one a file' if images else 'no structure'}")
    atoms = images[0]
    if 0 in atoms.numbers:
        raise ReadError(path, "has dummy atoms, which have no element; remove them")
    return Structure(
        checked_lattice(path, np.array(atoms.cell)),
        [Element.from_Z(number) for number in atoms.numbers],
        atoms.positions,
        coords_are_cartesian=True,
    )


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip()[:200]}".splitlines()[0]
