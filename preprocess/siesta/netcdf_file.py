"""The file LABEL.nc in which SIESTA keeps a whole run with `CDF.Save true`; netCDF 4, which is HDF5.

The matrices share one sparse pattern: row after row, with columns counted through an auxiliary supercell, whose cells R
are listed in `isc_off`. Names and units are those of SIESTA's module m_ncdf_siesta.

Shape letters: N atoms, U orbitals in the cell, Z stored elements of a matrix, nR cells of the supercell, C components.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.hdf5_files import open_hdf5, read_dataset


@dataclass(frozen=True)
class Species:
    """One kind of atoms.

    degrees: of each radial function, in the order of the file. reach, projector_reach: bohr, where its orbitals and
        its non-local projectors end.
    """

    label: str
    symbol: str
    atomic_number: int
    electrons: float
    degrees: tuple[int, ...]
    reach: float
    projector_reach: float

    @property
    def num_orbitals(self) -> int:
        """Orbitals of one atom, without spin."""
        return sum(2 * degree + 1 for degree in self.degrees)


@dataclass(frozen=True, eq=False)
class NetcdfFile:
    """What the file holds, in bohr and Ry.

    cell: (3, 3), rows. positions: (N, 3). species: of each atom.
    supercell: (3,) int, cells of the auxiliary supercell along each lattice vector.
    fermi_levels: (1,), or (2,) of up and down where the spin moment was fixed. electrons: in the cell.
    cells: (nR, 3) int, those of the supercell. cell_numbers: (Z,) int, which of them each element is in.
    rows, columns: (Z,) int, counted through the atoms.
    overlap: (Z,). hamiltonian, density: (C, Z); None where the file has none or it was not asked for.
    """

    path: Path
    cell: np.ndarray
    positions: np.ndarray
    species: tuple[Species, ...]
    supercell: np.ndarray
    fermi_levels: np.ndarray
    electrons: float
    cells: np.ndarray
    cell_numbers: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    overlap: np.ndarray
    hamiltonian: np.ndarray | None
    density: np.ndarray | None


def find_netcdf(folder: Path) -> list[Path]:
    """The files of whole runs right in a folder, sorted; told by their content from basis files and grids."""
    return sorted(path for path in folder.glob("*.nc") if _has_matrices(path))


def _has_matrices(path: Path) -> bool:
    try:
        with h5py.File(path) as file:
            return "SPARSE" in file and "BASIS" in file
    except (OSError, RuntimeError, ValueError):  # netCDF 3, damaged, or none at all
        return False


def read_netcdf(path: Path, *, density: bool) -> NetcdfFile:
    """Read the file; the density matrix only if it is asked for.

    Raises:
        ReadError: the file cannot be opened, lacks something or is damaged.
    """
    with open_hdf5(path) as file:
        positions = _numbers(path, file, "xa", (None, 3))
        species = _species_of_atoms(path, file, len(positions))
        ends = np.cumsum([kind.num_orbitals for kind in species])
        if not np.array_equal(_integers(path, file, "lasto", (len(positions),)), ends):
            raise ReadError(path, "the orbitals of its atoms are not those of their basis")
        supercell = _integers(path, file, "nsc", (3,))
        cells, cell_numbers, rows, columns = _pattern(path, file, int(ends[-1]), supercell)
        levels = _numbers(path, file, "Ef", (None,))
        if len(levels) not in {1, 2}:
            raise ReadError(path, f"Ef holds {len(levels)} Fermi levels; there can be one, or one for each spin")
        return NetcdfFile(
            path,
            _numbers(path, file, "cell", (3, 3)),
            positions,
            species,
            supercell,
            levels,
            float(_numbers(path, file, "Qtot", (1,))[0]),
            cells,
            cell_numbers,
            rows,
            columns,
            _numbers(path, file, "SPARSE/S", (len(rows),)),
            _numbers(path, file, "SPARSE/H", (None, len(rows))) if "H" in file["SPARSE"] else None,
            _numbers(path, file, "SPARSE/DM", (None, len(rows))) if density and "DM" in file["SPARSE"] else None,
        )


def _pattern(
    path: Path, file: h5py.File, num_orbitals: int, supercell: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The cells (nR, 3); and the cell, row and column of each stored element, (Z,) each."""
    offsets = _integers(path, file, "SPARSE/isc_off", (None, 3))
    counts = _integers(path, file, "SPARSE/n_col", (num_orbitals,))
    places = _integers(path, file, "SPARSE/list_col", (None,)) - 1
    if (abs(offsets) > supercell // 2).any() or len(np.unique(offsets, axis=0)) < len(offsets):
        raise ReadError(path, f"isc_off are not the cells of a supercell of {' x '.join(map(str, supercell))}")
    if (counts < 0).any() or (counts > len(places)).any() or counts.sum() != len(places):
        raise ReadError(path, "n_col are not the numbers of elements in the rows of list_col")
    if not len(places) or places.min() < 0 or places.max() >= num_orbitals * len(offsets):
        raise ReadError(path, "list_col names orbitals that are not in the supercell")
    cell_numbers, columns = np.divmod(places, num_orbitals)
    return offsets, cell_numbers, np.repeat(np.arange(num_orbitals), counts), columns


def _species_of_atoms(path: Path, file: h5py.File, num_atoms: int) -> tuple[Species, ...]:
    numbers = _integers(path, file, "BASIS/basis", (num_atoms,))
    species = {}
    for name, group in file["BASIS"].items():
        if isinstance(group, h5py.Group):
            species[int(_attribute(path, group, "ID", "iu"))] = _species(path, file, f"BASIS/{name}")
    missing = set(numbers.tolist()) - set(species)
    if missing or not num_atoms:
        raise ReadError(path, f"there is no basis of the species {', '.join(map(str, missing)) or 'of any atom'}")
    return tuple(species[number] for number in numbers.tolist())


def _species(path: Path, file: h5py.File, name: str) -> Species:
    group = file[name]
    degrees = _integers(path, file, f"{name}/orbnl_l", (None,))
    reaches = _numbers(path, file, f"{name}/cutoff", (len(degrees),))
    projectors = _numbers(path, file, f"{name}/kbcutoff", (None,)) if "kbcutoff" in group else np.zeros(0)
    if not len(degrees) or (degrees < 0).any():
        raise ReadError(path, f"{name} has no orbitals, or some of a degree below 0")
    if not ((reaches > 0).all() and (projectors >= 0).all()):
        raise ReadError(path, f"the orbitals and projectors of {name} should end somewhere")
    return Species(
        _attribute(path, group, "Label", "SUO").strip(),
        _attribute(path, group, "Element", "SUO").strip(),
        int(_attribute(path, group, "Atomic_number", "iu")),
        float(_attribute(path, group, "Valence_charge", "f")),
        tuple(degrees.tolist()),
        float(reaches.max()),
        float(projectors.max(initial=0.0)),
    )


def _attribute(path: Path, group: h5py.Group, name: str, kinds: str) -> Any:
    """A number, or a text; kinds: NumPy's letters of the allowed types."""
    value = np.asarray(group.attrs[name])
    single = value.reshape(-1)[0] if value.size == 1 else None
    if value.dtype.kind not in kinds or not isinstance(single, str | bytes | np.number):
        raise ReadError(path, f"the attribute {name} of {group.name} is {value.tolist()!r}")
    return single.decode("ascii", errors="replace") if isinstance(single, bytes) else single


def _integers(path: Path, file: h5py.File, name: str, shape: tuple[int | None, ...]) -> np.ndarray:
    return read_dataset(path, file, name, "iu", shape).astype(np.int64)


def _numbers(path: Path, file: h5py.File, name: str, shape: tuple[int | None, ...]) -> np.ndarray:
    numbers = read_dataset(path, file, name, "f", shape).astype(np.float64)
    if not np.isfinite(numbers).all():
        raise ReadError(path, f"{name} holds numbers that are not finite")
    return numbers
