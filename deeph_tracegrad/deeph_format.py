"""The current DeepH folder format (DeepH-dock, DeepH-pack 2): POSCAR, info.json and one HDF5 file a matrix.

A matrix file holds `atom_pairs` (E, 5) rows [R1, R2, R3, i, j], 0-based in the POSCAR's order of atoms,
`chunk_shapes` (E, 2), `chunk_boundaries` (E+1,) and `entries` (B,), in eV (H) or 1 (S, density); the position matrices
x, y and z share a file with `entries` (3, B), in Å. Orbitals and spin are in the project's own order. All files of a
folder list the same pairs, so that a block which only one matrix has stands in the others as zeros, and is read so.

Shape letters: N atoms, E pairs, B flat block entries.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core import Element, Structure

from deeph_tracegrad.atomic import atomic_path
from deeph_tracegrad.blocks import BlockMatrix, block_offsets
from deeph_tracegrad.deeph_info import OWN_KEY, OwnInfo, flag, number, own_info, read_json, read_own, shells, write_json
from deeph_tracegrad.deeph_matrices import (
    check_entries,
    check_pairs,
    find_matrices,
    read_matrices,
    stored_matrices,
)
from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.hdf5_files import new_hdf5, open_hdf5, read_dataset
from deeph_tracegrad.material import Material
from deeph_tracegrad.orbitals import Basis, SpinMode
from deeph_tracegrad.poscar import read_poscar, write_poscar

OVERLAP = "overlap.h5"
HAMILTONIAN = "hamiltonian.h5"
PREDICTION = "hamiltonian_pred.h5"
DENSITY = "density_matrix.h5"
POSITION = "position_matrix.h5"

_NAMES = {
    "overlap": (OVERLAP,),
    "hamiltonian": (HAMILTONIAN, PREDICTION),
    "density": (DENSITY,),
    "position": (POSITION,),
}


def read_deeph(path: Path | str, hamiltonian_file: str | None = None, *, matrices: Collection[str] = ()) -> Material:
    """Read a folder of the current format.

    Spin: `spinful` with complex entries is noncollinear; with real entries it is collinear, as DeepH-dock writes it,
    and the up-down blocks must vanish. H, S and the density matrix are symmetrised; the largest violation goes into the
    provenance, and one beyond 1 eV (0.01 for S and the density) is an error, except in predictions.

    hamiltonian_file: the name of the Hamiltonian to read; by default hamiltonian.h5, else hamiltonian_pred.h5, else
        none. overlap.h5 may be missing.
    matrices: "density" and "position" are read too where they are named here and the folder has them.

    Raises:
        ReadError: a file is missing, damaged, or contradicts another.
    """
    folder = Path(path)
    info_path = folder / "info.json"
    info = read_json(info_path)
    structure = read_poscar(folder / "POSCAR")
    own = read_own(info_path, info, len(structure))
    structure = own.labelled(structure)
    basis = _read_basis(info_path, info, structure, own)
    orbitals = basis.num_orbitals([site.specie.symbol for site in structure])
    _check_counts(info_path, info, len(structure), int(orbitals.sum()))

    spinful = flag(info_path, info, "spinful")
    if spinful is None:
        raise ReadError(info_path, "lacks the key spinful")
    paths = find_matrices(folder, _NAMES, matrices)
    if hamiltonian_file is not None:
        paths["hamiltonian"] = folder / hamiltonian_file
    found = read_matrices(
        folder, paths, orbitals, structure.lattice.matrix, spinful=spinful, stored_spin=own.spin, read=_read_matrices
    )
    material = Material(
        structure,
        basis,
        found.spin,
        found.overlap,
        found.hamiltonian,
        found.density,
        found.position,
        fermi_level=number(info_path, info, "fermi_energy_eV"),
        electrons=number(info_path, info, "occupation"),
        converged=own.converged,
        provenance=found.provenance(folder, "DeepH", own.provenance),
    )
    return material if own.atom_order is None else material.permuted(np.argsort(own.atom_order))


def write_deeph(material: Material, folder: Path | str, hamiltonian_name: str = HAMILTONIAN) -> None:
    """Write all that the material holds as a folder of the current format; one that stands there is replaced.

    The POSCAR needs the atoms of one element together, in order of first appearance; where they are not, the original
    order is stored and `read_deeph` restores it. Collinear spin is written as real spinful blocks, like DeepH-dock's.

    Raises:
        MismatchError: the material has neither overlap nor Hamiltonian.
    """
    elements = material.elements
    firsts = list(dict.fromkeys(elements))
    order = np.argsort([firsts.index(element) for element in elements], kind="stable")
    ordered = np.array_equal(order, np.arange(len(order)))
    grouped = material if ordered else material.permuted(order)
    matrices = stored_matrices(grouped)
    names = {"overlap": OVERLAP, "hamiltonian": hamiltonian_name, "density": DENSITY, "position": POSITION}
    info: dict[str, Any] = {
        "atoms_quantity": len(elements),
        "orbits_quantity": material.num_orbitals,
        "orthogonal_basis": False,
        "spinful": material.spin is not SpinMode.NONE,
        "fermi_energy_eV": material.fermi_level,
        "elements_orbital_map": {element: list(basis.shells) for element, basis in material.basis.items()},
    }
    if material.electrons is not None:
        info["occupation"] = material.electrons
    info[OWN_KEY] = own_info(grouped, None if ordered else order)
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        write_poscar(grouped.structure, temporary / "POSCAR")
        write_json(temporary / "info.json", info)
        for matrix, stored in matrices.items():
            _write_matrices(temporary / names[matrix], stored)


def _read_basis(path: Path, info: dict[str, Any], structure: Structure, own: OwnInfo) -> Basis:
    """The basis from `elements_orbital_map`, whose order of keys is the order of the elements."""
    table = info.get("elements_orbital_map")
    if not isinstance(table, dict) or not all(Element.is_valid_symbol(element) for element in table):
        raise ReadError(path, "elements_orbital_map should give the shells of each element")
    missing = {site.specie.symbol for site in structure} - set(table)
    if missing:
        raise ReadError(path, f"elements_orbital_map lacks {', '.join(sorted(missing))}, which POSCAR has")
    return own.basis({element: shells(path, element, degrees) for element, degrees in table.items()})


def _check_counts(path: Path, info: dict[str, Any], num_atoms: int, num_orbitals: int) -> None:
    """Hold the counts in info.json against the structure and basis; refuse what changes the meaning of H."""
    for key, actual in [("atoms_quantity", num_atoms), ("orbits_quantity", num_orbitals)]:
        stated = number(path, info, key)
        if stated is None:
            raise ReadError(path, f"lacks the key {key}")
        if stated != actual:
            raise ReadError(path, f"{key} is {stated:g}, but POSCAR and elements_orbital_map make {actual}")
    if info.get("split_hkb") or info.get("hamiltonian_storage") not in (None, "full"):
        raise ReadError(
            path, "declares a Hamiltonian split over several files, which is not supported; write it in full"
        )


def _read_matrices(path: Path, sizes: np.ndarray, kinds: str, number: int) -> tuple[BlockMatrix, ...]:
    """The matrices of one file as stored; sizes: (N,) int, rows of each atom."""
    with open_hdf5(path) as file:
        pairs = check_pairs(path, read_dataset(path, file, "atom_pairs", "iu", (None, 5)), len(sizes))
        offsets = block_offsets(pairs, sizes)
        shapes = read_dataset(path, file, "chunk_shapes", "iu", (len(pairs), 2))
        if not np.array_equal(shapes, np.stack([sizes[pairs[:, 3]], sizes[pairs[:, 4]]], axis=1)):
            raise ReadError(path, "chunk_shapes do not follow from the orbitals in info.json")
        if not np.array_equal(read_dataset(path, file, "chunk_boundaries", "iu", (len(pairs) + 1,)), offsets):
            raise ReadError(path, "chunk_boundaries do not follow from chunk_shapes")
        length = int(offsets[-1])
        shape = (length,) if number == 1 else (number, length)
        entries = check_entries(path, read_dataset(path, file, "entries", kinds, shape))
    return tuple(BlockMatrix(pairs, offsets, part, sizes) for part in entries.reshape(number, length))


def _write_matrices(path: Path, matrices: Sequence[BlockMatrix]) -> None:
    """One file of matrices with the same pairs; checksums tell damaged entries when they are read."""
    first = matrices[0]
    rows, columns = first.sizes[first.pairs[:, 3]], first.sizes[first.pairs[:, 4]]
    entries = [matrix.entries for matrix in matrices]
    with new_hdf5(path) as file:
        file.create_dataset("atom_pairs", data=first.pairs.astype(np.int64), fletcher32=True)
        file.create_dataset("chunk_shapes", data=np.stack([rows, columns], axis=1))
        file.create_dataset("chunk_boundaries", data=first.offsets)
        file.create_dataset("entries", data=entries[0] if len(entries) == 1 else np.stack(entries), fletcher32=True)
