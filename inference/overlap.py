"""S(R) of structures from basis files, where other programs need a run of the DFT code."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from deeph_tracegrad.console import count, say, warn
from deeph_tracegrad.deeph_format import OVERLAP, write_deeph
from deeph_tracegrad.errors import Failure, ReadError, TracegradError
from deeph_tracegrad.integrals.basis_files import read_orbitals
from deeph_tracegrad.integrals.overlap import overlap_material
from deeph_tracegrad.material import Material
from deeph_tracegrad.parallel import ALONE, World, world
from deeph_tracegrad.structures.files import StructureFile
from deeph_tracegrad.structures.reader import read_structure


def write_overlaps(
    structures: Sequence[StructureFile], basis_dir: Path, labels: Mapping[str, str], out: Path
) -> list[Failure]:
    """Write a DeepH folder with structure, overlap and electrons for each file, `out`/label.

    A file that fails is reported and left out. Under mpirun the ranks share the work on each structure.

    labels: of the bases, by element.

    Raises:
        WriteError: an overlap cannot be written; those before it stay.
    """
    failures = []
    for structure in structures:
        start = time.perf_counter()
        destination = out / structure.label
        try:
            _require_replaceable(destination)
            material = material_of(structure, basis_dir, labels, world())
        except TracegradError as error:
            failures.append(Failure.of(structure.path, error))
            if world().is_main:
                warn(f"skipped {structure.path}: {failures[-1].reason}")
            continue
        if world().is_main:
            write_deeph(material, destination)
        electrons = "electrons unknown" if material.electrons is None else f"{material.electrons:g} electrons"
        say(
            f"{structure.label}: {count(len(material.structure), 'atom')}, {count(material.num_orbitals, 'orbital')}, "
            f"{electrons}, {count(len(material.overlap or ()), 'block')}, {time.perf_counter() - start:.2f} s; "
            f"{destination}"
        )
    if any(label.endswith(".orb") for label in labels.values()):
        say(".orb files do not tell the number of electrons; predict takes it from what the network was trained on")
    return failures


def material_of(
    structure: StructureFile, basis_dir: Path, labels: Mapping[str, str | None], ranks: World = ALONE
) -> Material:
    """A structure file with its overlap.

    labels: of the bases, by element, in the order that the basis takes. ranks: share the work.

    Raises:
        ReadError: the structure or a basis file cannot be read.
        MismatchError: the basis of an element is not known.
    """
    crystal = read_structure(structure.path)
    present = dict.fromkeys(site.specie.symbol for site in crystal)
    elements = [element for element in labels if element in present] + [one for one in present if one not in labels]
    material = overlap_material(crystal, read_orbitals(basis_dir, labels, elements), ranks)
    return replace(material, provenance={"source": str(structure.path), **material.provenance})


def _require_replaceable(destination: Path) -> None:
    """Only an earlier overlap may be replaced.

    Raises:
        ReadError: something else stands there.
    """
    if destination.exists():
        names = {entry.name for entry in destination.iterdir()} if destination.is_dir() else {destination.name}
        if names - {"POSCAR", "info.json", OVERLAP}:
            raise ReadError(destination, "exists and is more than an overlap; give another --out")
