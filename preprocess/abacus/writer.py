"""A material as the files that ABACUS starts a self-consistent calculation from (`init_chg hr`).

Shape letters: N atoms, E atom pairs.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core import PeriodicSite

from deeph_tracegrad.atomic import atomic_path
from deeph_tracegrad.blocks import BlockMatrix
from deeph_tracegrad.console import warn
from deeph_tracegrad.deeph_spin import join_spins
from deeph_tracegrad.errors import MismatchError
from deeph_tracegrad.integrals.pao import parse_label
from deeph_tracegrad.material import Material
from deeph_tracegrad.orbitals import SpinMode
from deeph_tracegrad.preprocess.abacus.csr_writer import CsrHeader, write_csr
from deeph_tracegrad.preprocess.abacus.geometry import Geometry, csr_structure
from deeph_tracegrad.preprocess.abacus.layout import Layout
from deeph_tracegrad.preprocess.abacus.reader import SPIN_MODES
from deeph_tracegrad.preprocess.abacus.stru import write_stru
from deeph_tracegrad.units import ABACUS_RYDBERG_EV

STRUCTURE = "STRU"
HAMILTONIANS = ("hrs1_nao.csr", "hrs2_nao.csr")
OVERLAP = "sr_nao.csr"
NSPIN = {spin: nspin for nspin, spin in SPIN_MODES.items()}
OTHER_ORBITALS = ("OpenMX", "SIESTA")


def write_abacus(material: Material, folder: Path | str) -> None:
    """Write H(R), S(R) where it is known, and the structure that they belong to; a folder at this path is replaced.

    H in Ry, 17 digits: what came from a file of ABACUS reads back to the last bit, any other H within one unit in the
    last place. Orbitals go from the project's order and signs to ABACUS', whatever made them. The atoms of a species
    come together, and all into the cell, as ABACUS puts them before it counts R.

    Raises:
        MismatchError: there is no Hamiltonian, or it is known to be one between orbitals of another code.
    """
    source = material.provenance.get("source", "the material")
    if not material.hamiltonian:
        raise MismatchError(f"{source}: holds no Hamiltonian, which ABACUS could start from")
    if orbitals := _other_orbitals(material):
        raise MismatchError(f"{source}: its H is one between {orbitals}, which ABACUS does not have")
    grouped = _grouped(material)
    geometry = _geometry(grouped, Path(folder) / STRUCTURE)
    cells = np.rint(geometry.fractional - geometry.wrapped().fractional).astype(np.int32)
    geometry = replace(geometry, fractional=geometry.fractional - cells)  # every digit of what is in the cell stays
    layout, nspin = Layout.of(grouped.basis, grouped.elements, grouped.spin), NSPIN[grouped.spin]
    structure = csr_structure(geometry)
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        write_stru(geometry, temporary / STRUCTURE)
        for channel, hamiltonian in enumerate(grouped.hamiltonian):
            blocks = layout.for_file(_counted_from(cells, hamiltonian))
            header = CsrHeader("H", structure, nspin, channel + 1)
            write_csr(
                temporary / HAMILTONIANS[channel], header, blocks.with_entries(blocks.entries / ABACUS_RYDBERG_EV)
            )
        if grouped.overlap is not None:
            overlap = _counted_from(cells, grouped.overlap)
            if grouped.spin is SpinMode.NONCOLLINEAR:
                overlap = join_spins(overlap, overlap)
                overlap = overlap.with_entries(overlap.entries.astype(np.complex128))
            write_csr(temporary / OVERLAP, CsrHeader("S", structure, nspin), layout.for_file(overlap))


def _other_orbitals(material: Material) -> str | None:
    """Which orbitals the matrices are of, where these are known not to be ABACUS'."""
    provenance: Mapping[str, Any] = material.provenance
    while isinstance(provenance.get("origin"), Mapping):
        provenance = provenance["origin"]
    if provenance.get("code") in OTHER_ORBITALS:
        return f"orbitals of {provenance['code']}"
    return next((f"orbitals {basis.label} of OpenMX" for basis in material.basis.bases if _is_pao(basis.label)), None)


def _is_pao(label: str | None) -> bool:
    try:
        return label is not None and bool(parse_label(label))
    except MismatchError:
        return False


def _species(site: PeriodicSite) -> str:
    """The atom's label, where it names the element as ABACUS' labels do (Fe1, C_up); else the element."""
    element: str = site.specie.symbol
    return site.label if re.fullmatch(rf"{element}(?![A-Za-z])[\w+-]*", site.label, re.ASCII) else element


def _grouped(material: Material) -> Material:
    """With the atoms of each species together, in order of first appearance."""
    species = [_species(site) for site in material.structure]
    place = {name: number for number, name in enumerate(dict.fromkeys(species))}
    order = np.argsort([place[name] for name in species], kind="stable")
    if np.array_equal(order, np.arange(len(order))):
        return material
    warn(f"ABACUS needs the atoms of a species together: they now come as {', '.join(place)}, as in {STRUCTURE}")
    return material.permuted(order)


def _geometry(material: Material, path: Path) -> Geometry:
    structure = material.structure
    species = tuple(_species(site) for site in structure)
    labels = {name: material.basis[element].label for name, element in zip(species, material.elements, strict=True)}
    orbital_files = {name: label for name, label in labels.items() if label}
    return Geometry(path, species, structure.lattice.matrix, structure.frac_coords, orbital_files)


def _counted_from(cells: np.ndarray, matrix: BlockMatrix) -> BlockMatrix:
    """The same blocks for atoms that were moved back by whole cells, (N, 3) int32."""
    pairs = matrix.pairs.copy()
    pairs[:, :3] += cells[pairs[:, 4]] - cells[pairs[:, 3]]
    return replace(matrix, pairs=pairs)
