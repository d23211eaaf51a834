"""The legacy DeepH folder format (DeepH-pack 1, DeepH-E3, xDeepH): text tables and one HDF5 dataset a block.

`lat.dat` and `site_positions.dat` hold vectors as columns (Å), `element.dat` atomic numbers, `orbital_types.dat` the
degrees of each atom's shells, `info.json` the spin and the Fermi level. In `overlaps.h5` and `hamiltonians.h5` each
block has the name "[R1, R2, R3, i, j]" with atoms from 1. Orbitals have OpenMX's order, whatever code they came from.

The format has no collinear spin. It is written as noncollinear, with complex blocks whose up-down parts are zero, and
our own key in info.json lets `read_deeph_legacy` take it apart again.

With local coordinates come `rc.h5` (3 x 3, columns are the axes of each pair's frame, see `legacy_frames.py`) and
`rh.h5` (the block between orbitals along those axes).

Shape letters: N atoms, E pairs, B flat block entries.
"""

import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from pymatgen.core import Element, Lattice, Structure

from deeph_tracegrad.atomic import atomic_path
from deeph_tracegrad.blocks import BlockMatrix, block_offsets
from deeph_tracegrad.deeph_info import OWN_KEY, OwnInfo, flag, number, own_info, read_json, read_own, shells, write_json
from deeph_tracegrad.deeph_matrices import (
    check_entries,
    check_pairs,
    open_matrix_file,
    read_dataset,
    read_matrices,
    stored_matrices,
)
from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.legacy_frames import legacy_frames
from deeph_tracegrad.local_blocks import to_local
from deeph_tracegrad.material import Material
from deeph_tracegrad.orbitals import Basis, OrbitalConvention, SpinMode
from deeph_tracegrad.text_tables import read_lines, read_table

OVERLAP = "overlaps.h5"
HAMILTONIAN = "hamiltonians.h5"
PREDICTION = "hamiltonians_pred.h5"
LOCAL_FRAMES = "rc.h5"
LOCAL_HAMILTONIAN = "rh.h5"

_BLOCK_NAME = re.compile(r"\[" + r",\s*".join([r"(-?\d{1,9})"] * 5) + r"\]", re.ASCII)


def read_deeph_legacy(path: Path | str) -> Material:
    """Read a folder of the legacy format, with hamiltonians.h5, else hamiltonians_pred.h5, else no Hamiltonian.

    H and S are symmetrised as by `read_deeph`. info.json may be missing, as after overlap-only runs: then the blocks
    tell the spin.

    Raises:
        ReadError: a file is missing, damaged, or contradicts another.
    """
    folder = Path(path)
    info_path = folder / "info.json"
    info = read_json(info_path) if info_path.exists() else {}
    structure = _read_structure(folder)
    elements = [site.specie.symbol for site in structure]
    own = read_own(info_path, info, len(structure))
    basis = _read_basis(folder / "orbital_types.dat", elements, own)
    orbitals = basis.num_orbitals(elements)

    name = next((name for name in (HAMILTONIAN, PREDICTION) if (folder / name).exists()), None)
    spinful = flag(info_path, info, "isspinful")
    if spinful is None:
        spinful = name is not None and _has_spin(folder / name, orbitals)
    matrices = read_matrices(
        folder / OVERLAP,
        None if name is None else folder / name,
        orbitals,
        spinful=spinful,
        stored_spin=own.spin,
        read=read_blocks,
    )
    orders = [b.order(OrbitalConvention.OPENMX, OrbitalConvention.DEEPH) for b in basis.bases]
    spinor_orders = [order.repeated(matrices.spin.components) for order in orders]
    species = basis.species(elements)
    return Material(
        structure,
        basis,
        matrices.spin,
        None if matrices.overlap is None else matrices.overlap.reordered(orders, species),
        tuple(matrix.reordered(spinor_orders, species) for matrix in matrices.hamiltonian),
        fermi_level=number(info_path, info, "fermi_level"),
        electrons=own.electrons,
        converged=own.converged,
        provenance=matrices.provenance(folder, "DeepH legacy", own.provenance),
    )


def write_deeph_legacy(material: Material, folder: Path | str, *, local_coordinates: bool = False) -> None:
    """Write a folder of the legacy format; one that stands there is replaced as a whole.

    local_coordinates: also write rc.h5 and, where there is a Hamiltonian, rh.h5.

    Raises:
        MismatchError: the material has neither overlap nor Hamiltonian, or an atom has no frame (`legacy_frames`).
    """
    overlap, hamiltonian = stored_matrices(material)
    spinful = material.spin is not SpinMode.NONE
    if hamiltonian is not None and spinful:
        hamiltonian = hamiltonian.with_entries(hamiltonian.entries.astype(np.complex128))
    species = material.basis.species(material.elements)
    orders = [b.order(OrbitalConvention.DEEPH, OrbitalConvention.OPENMX) for b in material.basis.bases]
    spinor_orders = [order.repeated(2 if spinful else 1) for order in orders]
    matrices: dict[str, BlockMatrix] = {}
    if overlap is not None:
        matrices[OVERLAP] = overlap.reordered(orders, species)
    if hamiltonian is not None:
        matrices[HAMILTONIAN] = hamiltonian.reordered(spinor_orders, species)
    if local_coordinates:
        pairs = next(matrix.pairs for matrix in (hamiltonian, overlap) if matrix is not None)
        frames = legacy_frames(material.pair_vectors(pairs), pairs, species)
        axes = np.ascontiguousarray(frames.transpose(0, 2, 1))
        matrices[LOCAL_FRAMES] = BlockMatrix.of(pairs, axes.ravel(), np.full(len(species), 3))
        if hamiltonian is not None:
            spin = SpinMode.NONCOLLINEAR if spinful else SpinMode.NONE
            local = to_local(hamiltonian, hamiltonian.pairs, frames, material.basis, species, spin)
            matrices[LOCAL_HAMILTONIAN] = local.reordered(spinor_orders, species)
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        _write_tables(material, temporary)
        write_json(temporary / "info.json", _info(material))
        for name, matrix in matrices.items():
            _write_blocks(temporary / name, matrix)


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


def read_blocks(path: Path, sizes: np.ndarray, kinds: str) -> BlockMatrix:
    """A file of one dataset a block, pairs in the file's order; sizes: (N,) int, rows of each atom."""
    with open_matrix_file(path) as file:
        names = list(file)
        pairs = check_pairs(path, _pairs(path, names), len(sizes))
        shapes = np.stack([sizes[pairs[:, 3]], sizes[pairs[:, 4]]], axis=1).tolist()
        offsets = block_offsets(pairs, sizes)
        blocks = [
            read_dataset(path, file, name, kinds, tuple(shape)) for name, shape in zip(names, shapes, strict=True)
        ]
    entries = np.concatenate([np.zeros(0), *(block.ravel() for block in blocks)])
    return BlockMatrix(pairs, offsets, check_entries(path, entries), sizes)


def _pairs(path: Path, names: list[str]) -> np.ndarray:
    """Block names "[R1, R2, R3, i, j]", atoms from 1, as pairs with atoms from 0, (E, 5)."""
    matches = [_BLOCK_NAME.fullmatch(name) for name in names]
    if None in matches:
        raise ReadError(path, f"block names should look like '[0, 0, 0, 1, 1]', not {names[matches.index(None)]!r}")
    numbers = [[int(word) for word in match.groups()] for match in matches if match]
    return np.array(numbers, dtype=np.int64).reshape(-1, 5) - [0, 0, 0, 1, 1]


def _has_spin(path: Path, orbitals: np.ndarray) -> bool:
    """Whether the blocks are spinful, told by the size of the first."""
    with open_matrix_file(path) as file:
        name = next(iter(file), None)
        if name is None:
            return False
        pair = check_pairs(path, _pairs(path, [name]), len(orbitals))[0]
        return file[name].shape == (2 * orbitals[pair[3]], 2 * orbitals[pair[4]])


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


def _write_blocks(path: Path, matrix: BlockMatrix) -> None:
    """A file of one dataset a block, in the order of the pairs."""
    names = [str(pair) for pair in (matrix.pairs + np.array([0, 0, 0, 1, 1])).tolist()]
    with h5py.File(path, "w", track_order=True) as file:
        for place, name in enumerate(names):
            file.create_dataset(name, data=matrix.block(place))
