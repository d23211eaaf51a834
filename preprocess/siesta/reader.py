"""From a SIESTA run to a Material.

Shape letters: Z stored elements of a matrix.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core import Element, Lattice, Structure

from deeph_tracegrad.blocks import BlockMatrix
from deeph_tracegrad.errors import MismatchError, ReadError
from deeph_tracegrad.material import Material
from deeph_tracegrad.orbitals import Basis, ElementBasis, OrbitalConvention, OrbitalOrder, SpinMode
from deeph_tracegrad.preprocess.siesta.checks import (
    check_electrons,
    check_fermi_levels,
    check_geometry,
    check_overlap,
)
from deeph_tracegrad.preprocess.siesta.netcdf_file import NetcdfFile, Species, find_netcdf, read_netcdf
from deeph_tracegrad.units import SIESTA_BOHR_ANGSTROM, SIESTA_RYDBERG_EV

SPIN_MODES = {1: SpinMode.NONE, 2: SpinMode.COLLINEAR}
MAX_VIOLATION = 1e-6  # of the largest element; real ones: 1e-9
MAX_ELEMENT_RYDBERG = 1e4


def read_siesta(path: Path, *, matrices: Collection[str] = ()) -> Material:
    """Read a SIESTA run: a folder that holds one LABEL.nc of `CDF.Save true`, or that file itself.

    H is there with `SaveHS true`. Whether the run converged is not told. SIESTA has no position matrix.

    matrices: "density" is read too where it is named here.

    Raises:
        ReadError: no file or several, or one that is damaged or not supported.
    """
    source = read_netcdf(_locate(Path(path)), density="density" in matrices)
    try:
        return _material(source)
    except MismatchError as error:
        raise ReadError(source.path, f"{error}; the file is damaged") from error


def _locate(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = find_netcdf(path)
    if not found:
        raise ReadError(path, "holds no .nc file of a run; run SIESTA with CDF.Save true and SaveHS true")
    if len(found) > 1:
        raise ReadError(path, f"holds several runs ({', '.join(file.name for file in found)}); leave one here")
    return found[0]


def _material(source: NetcdfFile) -> Material:
    elements = [_element(source.path, species) for species in source.species]
    basis = _basis(source, elements)
    check_geometry(source)
    spin = _spin(source)
    convert = _Conversion(source, basis, elements)
    overlap, violation = convert("overlap", source.overlap)
    check_overlap(source, overlap)
    violations, found = {"overlap": violation}, dict[str, tuple[BlockMatrix, ...]]()
    for name, channels, unit in [
        ("hamiltonian", source.hamiltonian, SIESTA_RYDBERG_EV),
        ("density", source.density, 1.0),
    ]:
        if channels is not None:
            converted = [convert(name, values) for values in channels]
            violations[name] = max(violation for _, violation in converted) * unit
            found[name] = tuple(matrix.with_entries(matrix.entries * unit) for matrix, _ in converted)
    check_electrons(source, overlap, found.get("density", ()))
    check_fermi_levels(source)
    structure = Structure(
        Lattice(source.cell * SIESTA_BOHR_ANGSTROM),
        elements,
        source.positions * SIESTA_BOHR_ANGSTROM,
        coords_are_cartesian=True,
        labels=[species.label for species in source.species],
    )
    return Material(
        structure,
        basis,
        spin,
        overlap,
        found.get("hamiltonian", ()),
        found.get("density", ()),
        fermi_level=float(source.fermi_levels[0]) * SIESTA_RYDBERG_EV if len(source.fermi_levels) == 1 else None,
        electrons=source.electrons,
        provenance=_provenance(source, violations),
    )


def _element(path: Path, species: Species) -> str:
    if species.atomic_number < 0:
        raise ReadError(path, f"{species.label} are ghost atoms: orbitals without a nucleus have no element")
    number, symbol = species.atomic_number, species.symbol
    if not Element.is_valid_symbol(symbol) or number != Element(symbol).Z:
        raise ReadError(path, f"the species {species.label} has the symbol {symbol!r} and the atomic number {number}")
    if not 0 <= species.electrons <= number:
        raise ReadError(path, f"an atom of {species.label} has {species.electrons:g} valence electrons of {number}")
    return symbol


def _basis(source: NetcdfFile, elements: list[str]) -> Basis:
    """The basis of each element, in the order of the atoms."""
    bases: dict[str, ElementBasis] = {}
    for element, species in zip(elements, source.species, strict=True):
        radius = species.reach * SIESTA_BOHR_ANGSTROM
        own = ElementBasis(tuple(sorted(species.degrees)), radius, valence_electrons=species.electrons)
        if bases.setdefault(element, own) != own:
            raise ReadError(
                source.path, f"{element} has different orbitals under different labels, which is not supported"
            )
    return Basis.of(bases)


def _spin(source: NetcdfFile) -> SpinMode:
    components = {len(channels) for channels in (source.hamiltonian, source.density) if channels is not None} or {1}
    if components <= {4, 8}:
        raise ReadError(
            source.path,
            "noncollinear runs of SIESTA are not supported, since there was no real one to check the reader with",
        )
    if len(components) > 1 or not components <= set(SPIN_MODES):
        raise ReadError(source.path, f"its matrices have {' and '.join(map(str, components))} spin components")
    return SPIN_MODES[components.pop()]


def _provenance(source: NetcdfFile, violations: dict[str, float]) -> dict[str, Any]:
    provenance: dict[str, Any] = {
        "source": str(source.path),
        "code": "SIESTA",
        "rydberg_eV": SIESTA_RYDBERG_EV,
        "bohr_angstrom": SIESTA_BOHR_ANGSTROM,
        "hermiticity_violation": violations,
    }
    if len(source.fermi_levels) > 1:
        levels = " and ".join(f"{level:.6f}" for level in source.fermi_levels * SIESTA_RYDBERG_EV)
        provenance["remarks"] = [f"the spin moment was fixed: the Fermi levels of up and down are {levels} eV"]
    return provenance


class _Conversion:
    """From the elements of a matrix to blocks in the project's order, symmetrised."""

    def __init__(self, source: NetcdfFile, basis: Basis, elements: list[str]) -> None:
        self.source = source
        self.sizes = basis.num_orbitals(elements)
        kinds = list(dict.fromkeys(source.species))
        self.kinds = np.array([kinds.index(species) for species in source.species])
        self.ascending = [OrbitalOrder.ascending(species.degrees) for species in kinds]
        self.species = basis.species(elements)
        self.orders = [own.order(OrbitalConvention.SIESTA, OrbitalConvention.DEEPH) for own in basis.bases]

    def __call__(self, name: str, values: np.ndarray) -> tuple[BlockMatrix, float]:
        """The matrix, and its largest violation of hermiticity before, both in the unit of the values, (Z,)."""
        source, largest = self.source, np.abs(values).max()
        if largest > MAX_ELEMENT_RYDBERG:
            raise ReadError(source.path, f"the {name} has an element of {largest:.2g}; the file is damaged")
        stored = BlockMatrix.scattered(
            source.cells, source.cell_numbers, source.rows, source.columns, values, self.sizes
        )
        ascending = stored.reordered(self.ascending, self.kinds)
        matrix, violation = ascending.reordered(self.orders, self.species).symmetrised()
        if len(matrix) > len(stored) or not violation <= MAX_VIOLATION * largest:
            raise ReadError(source.path, f"the {name} is not Hermitian, by {violation:.2g}; the file is damaged")
        return matrix, violation
