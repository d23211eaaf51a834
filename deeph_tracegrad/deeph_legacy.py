"""The legacy DeepH folder format (DeepH-pack 1, DeepH-E3, xDeepH): text tables and one HDF5 dataset a block.

`lat.dat` and `site_positions.dat` hold vectors as columns (Å), `element.dat` atomic numbers, `orbital_types.dat` the
degrees of each atom's shells, `info.json` the spin and the Fermi level. In `overlaps.h5`, `hamiltonians.h5` and
`density_matrixs.h5` each block has the name "[R1, R2, R3, i, j]" with atoms from 1; in `positions.h5` (Å) the direction
follows, 1 to 3 for x, y, z. Orbitals have OpenMX's order, whatever code they came from.

The format has no collinear spin. It is written as noncollinear, with complex blocks whose up-down parts are zero, and
our own key in info.json lets `read_deeph_legacy` take it apart again.

With local coordinates come `rc.h5` (3 x 3, columns are the axes of each pair's frame, see `legacy_frames.py`) and
`rh.h5` (the block between orbitals along those axes).

Shape letters: N atoms, E pairs, B flat block entries.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core import Element, Lattice, Structure

from deeph_tracegrad.atomic import atomic_path
from deeph_tracegrad.blocks import BlockMatrix
from deeph_tracegrad.deeph_info import OWN_KEY, OwnInfo, flag, number, own_info, read_json, read_own, shells, write_json
from deeph_tracegrad.deeph_matrices import find_matrices, read_matrices, stored_matrices
from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.legacy_blocks import has_spin, read_blocks, write_blocks
from deeph_tracegrad.legacy_frames import legacy_frames
from deeph_tracegrad.local_blocks import to_local
from deeph_tracegrad.material import Material
from deeph_tracegrad.orbitals import Basis, OrbitalConvention, SpinMode
from deeph_tracegrad.text_tables import read_lines, read_table

OVERLAP = "overlaps.h5"
HAMILTONIAN = "hamiltonians.h5"
PREDICTION = "hamiltonians_pred.h5"
DENSITY = "density_matrixs.h5"
POSITION = "positions.h5"
LOCAL_FRAMES = "rc.h5"
LOCAL_HAMILTONIAN = "rh.h5"

_NAMES = {
    "overlap": (OVERLAP,),
    "hamiltonian": (HAMILTONIAN, PREDICTION),
    "density": (DENSITY, "density_matrices.h5"),  # as DeepH-pack names it, and as DeepH-dock does
    "position": (POSITION,),
}


def read_deeph_legacy(path: Path | str, *, matrices: Collection[str] = ()) -> Material:
    """Read a folder of the legacy format, with hamiltonians.h5, else hamiltonians_pred.h5, else no Hamiltonian.

    The matrices are symmetrised as by `read_deeph`. info.json may be missing, as after overlap-only runs: then the
    blocks tell the spin.

    matrices: "density" and "position" are read too where they are named here and the folder has them.

    Raises:
        ReadError: a file is missing, damaged, or contradicts another.
    """
    folder = Path(path)
    info_path = folder / "info.json"
    info = read_json(info_path) if info_path.exists() else {}
    structure = _read_structure(folder)
    elements = [site.specie.symbol for site in structure]
    own = read_own(info_path, info, len(structure))
    structure = own.labelled(structure)
    basis = _read_basis(folder / "orbital_types.dat", elements, own)
    orbitals = basis.num_orbitals(elements)

    paths = find_matrices(folder, _NAMES, matrices)
    spinful = flag(info_path, info, "isspinful")
    if spinful is None:
        spinful = "hamiltonian" in paths and has_spin(paths["hamiltonian"], orbitals)
    found = read_matrices(
        folder, paths, orbitals, structure.lattice.matrix, spinful=spinful, stored_spin=own.spin, read=read_blocks
    )
    convert = _Reordering(basis, elements, OrbitalConvention.OPENMX, OrbitalConvention.DEEPH)
    return Material(
        structure,
        basis,
        found.spin,
        None if found.overlap is None else convert(found.overlap),
        tuple(map(convert, found.hamiltonian)),
        tuple(map(convert, found.density)),
        tuple(map(convert, found.position)),
        fermi_level=number(info_path, info, "fermi_level"),
        electrons=own.electrons,
        converged=own.converged,
        provenance=found.provenance(folder, "DeepH legacy", own.provenance),
    )


def write_deeph_legacy(material: Material, folder: Path | str, *, local_coordinates: bool = False) -> None:
    """Write all that the material holds as a folder of the legacy format; one that stands there is replaced.

    local_coordinates: also write rc.h5 and, where there is a Hamiltonian, rh.h5.

    Raises:
        MismatchError: the material has neither overlap nor Hamiltonian, or an atom has no frame (`legacy_frames`).
    """
    names = {"overlap": OVERLAP, "hamiltonian": HAMILTONIAN, "density": DENSITY, "position": POSITION}
    convert = _Reordering(material.basis, material.elements, OrbitalConvention.DEEPH, OrbitalConvention.OPENMX)
    stored = stored_matrices(material)
    if material.spin is not SpinMode.NONE:
        stored |= {name: (_complex(*stored[name]),) for name in ("hamiltonian", "density") if name in stored}
    files = {names[name]: tuple(map(convert, matrices)) for name, matrices in stored.items()}
    if local_coordinates:
        files |= {name: (matrix,) for name, matrix in _local(material, stored, convert).items()}
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        _write_tables(material, temporary)
        write_json(temporary / "info.json", _info(material))
        for name, matrices in files.items():
            write_blocks(temporary / name, matrices)


def _read_structure(folder: Path) -> Structure:
    """The structure from lat.dat, site_positions.dat and element.dat."""
    path = folder / "element.dat"
    words = " ".join(read_lines(path)).split()
    if not words or not all(word.isdecimal() and word.isascii() and 0 < int(word[:4]) <= 118 for word in words):
        raise ReadError(path, "should hold the atomic number of each atom")
    cell = _columns(folder / "lat.dat", 3)
    if abs(np.linalg.det(cell)) < 1e-3:
        raise ReadError(folder / "lat.dat", "the lattice vectors span no volume")
    reciprocal_path = folder / "rlat.dat"
    if reciprocal_path.exists():
        reciprocal = _columns(reciprocal_path, 3)
        if not np.allclose(cell @ reciprocal.T, 2 * np.pi * np.eye(3), atol=1e-3):
            raise ReadError(reciprocal_path, "are not the reciprocal vectors of those in lat.dat")
    positions = _columns(folder / "site_positions.dat", len(words))
    elements = [Element.from_Z(int(word)) for word in words]
    return Structure(Lattice(cell), elements, positions, coords_are_cartesian=True)


def _columns(path: Path, count: int) -> np.ndarray:
    """The `count` vectors that stand as columns of a table with three rows, (count, 3)."""
    table = read_table(path)
    if table.shape != (3, count):
        raise ReadError(path, f"should have 3 rows of {count} numbers, not {table.shape[0]} of {table.shape[1]}")
    return np.ascontiguousarray(table.T)


def _read_basis(path: Path, elements: list[str], own: OwnInfo) -> Basis:
    """The basis from the shells of each atom, which must be the same for all atoms of an element."""
    rows = [line.split() for line in read_lines(path) if line.strip()]
    if len(rows) != len(elements):
        raise ReadError(path, f"should have a line for each of the {len(elements)} atoms; it has {len(rows)}")
    found: dict[str, tuple[int, ...]] = {}
    for element, row in zip(elements, rows, strict=True):
        if not all(word.isascii() and word.isdecimal() for word in row):
            raise ReadError(path, f"should hold the degrees of each atom's shells: {' '.join(row)!r}")
        degrees = shells(path, element, [int(word[:4]) for word in row])
        if found.setdefault(element, degrees) != degrees:
            raise ReadError(path, f"gives the atoms of {element} different shells, which is not supported")
    order = [element for element in own.bases if element in found] + list(found)
    return own.basis({element: found[element] for element in order})


class _Reordering:
    """Matrices between these atoms from one orbital convention to another; spinful ones are told by their size."""

    def __init__(
        self, basis: Basis, elements: Sequence[str], source: OrbitalConvention, target: OrbitalConvention
    ) -> None:
        self.kinds = basis.species(elements)
        self.orbitals = basis.num_orbitals(elements)
        self.orders = [element.order(source, target) for element in basis.bases]

    def __call__(self, matrix: BlockMatrix) -> BlockMatrix:
        components = int(matrix.sizes[0] // self.orbitals[0])
        return matrix.reordered([order.repeated(components) for order in self.orders], self.kinds)


def _complex(matrix: BlockMatrix) -> BlockMatrix:
    return matrix.with_entries(matrix.entries.astype(np.complex128))


def _local(
    material: Material, stored: Mapping[str, tuple[BlockMatrix, ...]], convert: _Reordering
) -> dict[str, BlockMatrix]:
    """What stands in rc.h5 and, where there is a Hamiltonian, in rh.h5."""
    pairs = next(iter(stored.values()))[0].pairs
    frames = legacy_frames(material.pair_vectors(pairs), pairs, convert.kinds)
    axes = np.ascontiguousarray(frames.transpose(0, 2, 1))
    files = {LOCAL_FRAMES: BlockMatrix.of(pairs, axes.ravel(), np.full(len(convert.kinds), 3))}
    if "hamiltonian" in stored:
        spin = SpinMode.NONE if material.spin is SpinMode.NONE else SpinMode.NONCOLLINEAR
        local = to_local(stored["hamiltonian"][0], pairs, frames, material.basis, convert.kinds, spin)
        files[LOCAL_HAMILTONIAN] = convert(local)
    return files


def _write_tables(material: Material, folder: Path) -> None:
    """The text files."""
    structure = material.structure
    tables = {
        "lat.dat": structure.lattice.matrix.T,
        "rlat.dat": structure.lattice.reciprocal_lattice.matrix.T,
        "site_positions.dat": structure.cart_coords.T,
        "element.dat": np.array([[site.specie.Z] for site in structure]),
    }
    for name, table in tables.items():
        _write_lines(folder / name, table.tolist())
    _write_lines(folder / "orbital_types.dat", [material.basis[element].shells for element in material.elements])


def _write_lines(path: Path, rows: list[Any]) -> None:
    path.write_text("".join(" ".join(map(repr, row)) + "\n" for row in rows), encoding="utf-8")


def _info(material: Material) -> dict[str, Any]:
    """The content of info.json."""
    info: dict[str, Any] = {
        "isspinful": material.spin is not SpinMode.NONE,
        "isorthogonal": False,
        "nsites": len(material.structure),
        "norbits": material.num_orbitals,
        OWN_KEY: own_info(material) | {"electrons": material.electrons},
    }
    if material.fermi_level is not None:
        info["fermi_level"] = material.fermi_level
    return info
