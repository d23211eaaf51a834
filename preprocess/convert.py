"""One run from any code, written in a DeepH folder format or for ABACUS."""

import time
from collections.abc import Collection
from pathlib import Path
from typing import Literal

from deeph_tracegrad import deeph_format, deeph_legacy
from deeph_tracegrad.console import say
from deeph_tracegrad.errors import MismatchError, ReadError
from deeph_tracegrad.preprocess.abacus import writer as abacus_writer
from deeph_tracegrad.preprocess.inspection import pair_counts
from deeph_tracegrad.preprocess.runs import read_material

# What an earlier conversion left and this one may replace.
_REPLACEABLE = {
    "deeph": {
        *("POSCAR", "info.json", deeph_format.OVERLAP, deeph_format.HAMILTONIAN),
        *(deeph_format.DENSITY, deeph_format.POSITION),
    },
    "deeph-legacy": {
        *("element.dat", "lat.dat", "rlat.dat", "site_positions.dat", "orbital_types.dat", "info.json"),
        *(deeph_legacy.OVERLAP, deeph_legacy.HAMILTONIAN, deeph_legacy.LOCAL_FRAMES, deeph_legacy.LOCAL_HAMILTONIAN),
        *(deeph_legacy.DENSITY, deeph_legacy.POSITION),
    },
    "abacus": {abacus_writer.STRUCTURE, *abacus_writer.HAMILTONIANS, abacus_writer.OVERLAP},
}
# Where a matrix that a run lacks can come from.
_ORIGIN = {
    "density": "OpenMX writes it always, ABACUS with out_dmr 1, SIESTA with CDF.Save true",
    "position": "OpenMX writes it always, ABACUS with out_mat_r 1, SIESTA never",
}


def convert(
    source: Path,
    destination: Path,
    to: Literal["deeph", "deeph-legacy", "abacus"],
    *,
    local_coordinates: bool = False,
    matrices: Collection[str] = (),
) -> None:
    """Read a run and write it to the folder `destination`.

    local_coordinates: also write rc.h5 and rh.h5 (legacy format only).
    matrices: "density" and "position", to be carried over too (not for ABACUS).

    Raises:
        ReadError: the run cannot be read or lacks one of the matrices, or the destination holds something else.
        MismatchError: local coordinates are asked of another format than the legacy one, or do not exist for the
            structure; ABACUS has no use for the matrices, or not for those of this run (`write_abacus`).
    """
    if local_coordinates and to != "deeph-legacy":
        raise MismatchError("--local-coordinates belongs to the legacy format; add --to deeph-legacy")
    if matrices and to == "abacus":
        raise MismatchError(f"--with {next(iter(matrices))} belongs to the DeepH formats; ABACUS starts from H alone")
    _check_destination(source, destination, _REPLACEABLE[to])
    start = time.perf_counter()
    material = read_material(source, matrices=matrices)
    for name in matrices:
        if not getattr(material, name):
            raise ReadError(source, f"holds no {name} matrix; {_ORIGIN[name]}. Without --with {name} it is not needed")
    read = time.perf_counter()
    if to == "deeph":
        deeph_format.write_deeph(material, destination)
    elif to == "abacus":
        abacus_writer.write_abacus(material, destination)
    else:
        deeph_legacy.write_deeph_legacy(material, destination, local_coordinates=local_coordinates)
    written = time.perf_counter()
    say(
        f"{source}: {material.structure.composition.formula}, {material.basis.describe()}, spin {material.spin}, "
        f"{pair_counts(material)}"
    )
    for file in sorted(destination.iterdir()):
        say(f"  {destination / file.name}  {file.stat().st_size} bytes")
    say(f"read in {read - start:.2f} s, written in {written - read:.2f} s")


def _check_destination(source: Path, destination: Path, replaceable: set[str]) -> None:
    """Refuse to replace anything but an earlier conversion."""
    if destination.exists() and not destination.is_dir():
        raise ReadError(destination, "is a file; give the name of a folder to write")
    if destination.resolve() == source.resolve():
        raise ReadError(destination, "is the run itself; give another folder to write")
    others = sorted({child.name for child in destination.iterdir()} - replaceable) if destination.is_dir() else []
    if others:
        raise ReadError(destination, f"holds {others[0]}, which is not of an earlier conversion; give another folder")
