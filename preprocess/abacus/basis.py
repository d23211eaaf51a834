"""The basis of each element in an ABACUS run."""

from dataclasses import replace
from pathlib import Path

from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.orbitals import Basis, ElementBasis
from deeph_tracegrad.preprocess.abacus.folder import RunFolder
from deeph_tracegrad.preprocess.abacus.geometry import Geometry, element_of
from deeph_tracegrad.preprocess.abacus.log import AtomType, Log
from deeph_tracegrad.preprocess.abacus.orbital_file import element_basis, read_orbital_header


def read_basis(folder: RunFolder, log: Log, geometry: Geometry) -> Basis:
    """The basis of each element, from the .orb files where they are at hand, else from the log.

    Raises:
        ReadError: the log has other atoms or shells than the geometry and the files, or atoms of one element differ.
    """
    bases: dict[str, ElementBasis] = {}
    counts = {kind.label: kind.count for kind in log.types}
    if any(geometry.labels.count(label) != counts.get(label) for label in set(geometry.labels)) or sum(
        counts.values()
    ) != len(geometry.labels):
        raise ReadError(geometry.path, f"its atoms are not those of {log.path}: {counts}")
    for kind in log.types:
        if not kind.count:
            continue
        element = element_of(log.path, kind.label)
        basis = _label_basis(folder, log, kind, geometry.orbital_files.get(kind.label))
        if bases.setdefault(element, basis) != basis:
            known = bases[element]
            one, other = (f"{own.name} ({own.label}, {own.valence_electrons} electrons)" for own in (known, basis))
            raise ReadError(
                log.path,
                f"{element} atoms have different orbitals or pseudopotentials under different labels, {one} and "
                f"{other}; networks tell atoms by their element, so that this is not supported",
            )
    return Basis.of(bases)


def _label_basis(folder: RunFolder, log: Log, kind: AtomType, orbital_file: str | None) -> ElementBasis:
    electrons, inputs = log.valence_electrons.get(kind.label), folder.inputs
    if orbital_file is not None:
        orbitals = inputs / folder.parameters.get("orbital_dir", ".")
        for path in (orbitals / orbital_file, inputs / Path(orbital_file).name):
            if path.is_file():
                basis = read_orbital_header(path)
                if basis.shells != kind.shells:
                    raise ReadError(path, f"has other shells than {log.path} tells for {kind.label}")
                return replace(basis, valence_electrons=electrons)
    basis = element_basis(log.path, kind.shells, None, orbital_file and Path(orbital_file).name)
    return replace(basis, valence_electrons=electrons)
