"""The binary `.scfout` of OpenMX, field by field, in its own units and orbital order.

Layout: the writer SCF2File of OpenMX 3.4 to 3.9; all fields follow one another without markers or padding.

Shape letters: N atoms, E pairs (atom, neighbour), C cells, B flat block entries of one matrix, L lines.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.preprocess.openmx.binary import BinaryFields

INPUT_RECORD_BYTES = 256
MAX_POSITION_ORDER = 10
MAX_ORBITALS_PER_ATOM = 1000
MAX_CELL_INDEX = 10_000
LATTICE_TOLERANCE = 1e-8
MAX_SOLVER = 20
SPIN_SWITCHES = {0: "off", 1: "on", 3: "nc"}
VERSIONS = {0: "3.8 or before", 3: "3.9"}


@dataclass(frozen=True, eq=False)
class ScfOut:
    """What the file holds: Hartree and bohr, OpenMX's order of orbitals.

    version: of the format, 0 (OpenMX 3.8 and before) or 3 (3.9).
    spin_switch: 0 off, 1 collinear, 3 noncollinear.
    lattice: (3, 3) rows, bohr. positions: (N, 3) bohr, as the cell indices of the pairs count from.
    num_orbitals: (N,) int64, after contraction where orbitals were optimised.
    pairs: (E, 5) int32, rows [R1, R2, R3, i, j], 0-based, each atom's own neighbours together, itself first.
    hamiltonian: (1, 2 or 4, B) Hartree: H; up, down; or the real parts of uu, dd, ud and the imaginary part of ud.
    hamiltonian_imaginary: (0 or 3, B) Hartree: noncollinear only, imaginary parts of uu, dd, and more of ud's.
    overlap: (B,).
    first_moments: (N, 3) bohr, <a|r - x_i|a> of each atom's first orbital; zero by parity if it sits on the atom.
    position: (0 or 3, B) bohr, <a|r - x_i|b> along x, y, z, summed on OpenMX's grid, x_i the atom of orbital a.
    density: (0, 1, 2 or 4, B): of one spin; up, down; or real parts of uu, dd, ud and the imaginary part of ud.
    density_imaginary: (0 or 2, B): noncollinear only, imaginary parts of uu and dd. Version 0 lacks them, and without
        them there is no noncollinear density.
    solver: OpenMX's number of the eigenvalue solver (4 is NEGF).
    chemical_potential: Hartree. electrons: valence electrons in the cell.
    input_text: the input file of the run. appended_text: what a user appended to the file, often nothing.
    """

    path: Path
    version: int
    spin_switch: int
    lattice: np.ndarray
    positions: np.ndarray
    num_orbitals: np.ndarray
    pairs: np.ndarray
    hamiltonian: np.ndarray
    hamiltonian_imaginary: np.ndarray
    overlap: np.ndarray
    first_moments: np.ndarray
    position: np.ndarray
    density: np.ndarray
    density_imaginary: np.ndarray
    solver: int
    chemical_potential: float
    electrons: float
    input_text: str
    appended_text: str


def read_scfout(path: Path, matrices: Collection[str] = ()) -> ScfOut:
    """Read a `.scfout` of format version 0 or 3, of either byte order.

    matrices: those of `density` and `position` to be read too; they are passed over otherwise.

    Raises:
        ReadError: the file is missing, damaged, or of another kind.
    """
    if not path.is_file():
        raise ReadError(path, "there is no such file")
    try:
        # damaged files hold signalling NaNs and the like, which the checks find
        with path.open("rb") as stream, np.errstate(all="ignore"):
            return _read_fields(BinaryFields(stream, path), matrices)
    except OSError as error:
        raise ReadError(path, f"the file cannot be read: {error.strerror or error}") from error


def _read_fields(fields: BinaryFields, matrices: Collection[str]) -> ScfOut:
    num_atoms, version, spin_switch, num_cells = _read_header(fields)
    position_order = 1
    if version == 3:
        position_order = int(fields.read("i4", 1, name="the position order")[0])
        fields.require(1 <= position_order <= MAX_POSITION_ORDER, f"the position order is {position_order}")
    translations = fields.vectors(num_cells, "the cells' translations")
    cells = _read_cells(fields, num_cells)
    num_orbitals = fields.read("i4", num_atoms, name="the orbital counts").astype(np.int64)
    fields.require(
        ((num_orbitals > 0) & (num_orbitals <= MAX_ORBITALS_PER_ATOM)).all(),
        f"an atom has {num_orbitals.min()} or {num_orbitals.max()} orbitals",
    )
    pairs = _read_pairs(fields, num_atoms, cells)
    lattice = _read_lattice(fields, cells, translations)
    positions = fields.vectors(num_atoms, "the atoms' positions")

    lengths = num_orbitals[pairs[:, 3]] * num_orbitals[pairs[:, 4]]
    entries = int(lengths.sum())
    num_real, num_imaginary = spin_switch + 1, 3 if spin_switch == 3 else 0
    hamiltonian = fields.read("f8", num_real, entries, name="the Hamiltonian")
    imaginary = fields.read("f8", num_imaginary, entries, name="the Hamiltonian's imaginary part")
    overlap = fields.read("f8", entries, name="the overlap")
    own_blocks = np.flatnonzero(np.diff(pairs[:, 3], prepend=-1))
    own_entries = (np.cumsum(lengths) - lengths)[own_blocks]
    moments, position = _read_position(fields, entries, own_entries, position_order, "position" in matrices)
    if version == 3:
        fields.skip(3 * 8 * entries, "the momentum")
    density, density_imaginary = _read_density(fields, entries, spin_switch, version, "density" in matrices)

    solver = int(fields.read("i4", 1, name="the solver's number")[0])
    fields.require(0 <= solver <= MAX_SOLVER, f"the solver's number is {solver}")
    # chemical potential, temperature, dipoles of the cores (3) and of the background (3), electrons, total spin
    numbers = fields.read("f8", 10, name="the energies and dipoles")
    fields.require(np.isfinite(numbers).all(), "an energy or dipole is not finite")
    return ScfOut(
        path=fields.path,
        version=version,
        spin_switch=spin_switch,
        lattice=lattice,
        positions=positions,
        num_orbitals=num_orbitals,
        pairs=pairs,
        hamiltonian=hamiltonian,
        hamiltonian_imaginary=imaginary,
        overlap=overlap,
        first_moments=moments,
        position=position,
        density=density,
        density_imaginary=density_imaginary,
        solver=solver,
        chemical_potential=float(numbers[0]),
        electrons=float(numbers[8]),
        input_text=fields.text_records(INPUT_RECORD_BYTES),
        appended_text=fields.text_rest(),
    )


def _read_header(fields: BinaryFields) -> tuple[int, int, int, int]:
    """Atoms, format version, spin switch, cells; sets the byte order, which only these numbers tell."""
    fields.claim(24, "the header")
    raw = fields.stream.read(24)
    headers = {order: np.frombuffer(raw, f"{order}i4").tolist() for order in "<>"}
    # The second number packs spin + 4 * version. It is zero in both orders for version 0 without spin: then the
    # number of atoms decides, which in the wrong order is beyond 10^7.
    sane = {order: header for order, header in headers.items() if 0 <= header[1] <= 15 and header[0] > 0}
    fields.require(bool(sane), "the first numbers are not the header of a .scfout in either byte order")
    fields.byte_order = min(sane, key=lambda order: sane[order][0])
    num_atoms, word, *_, last_cell = sane[fields.byte_order]
    version, spin_switch = divmod(word, 4)
    if version not in VERSIONS:
        raise ReadError(
            fields.path,
            f"this is format version {version} of .scfout, written by development branches of OpenMX 3.7; "
            "versions 0 (OpenMX 3.8 and before) and 3 (3.9) can be read",
        )
    fields.require(spin_switch in SPIN_SWITCHES, f"the spin switch is {spin_switch}")
    fields.require(last_cell >= 0, f"the last cell's number is {last_cell}")
    return num_atoms, version, spin_switch, last_cell + 1


def _read_cells(fields: BinaryFields, num_cells: int) -> np.ndarray:
    """(C, 3) int32 indices of the cells, the origin first."""
    cells = fields.read("i4", num_cells, 4, name="the cells' indices")[:, 1:]
    fields.require((np.abs(cells.astype(np.int64)) <= MAX_CELL_INDEX).all(), "a cell's index is out of range")
    fields.require((cells[0] == 0).all(), "the first cell is not the origin")
    span = 2 * MAX_CELL_INDEX + 1
    keys = np.sort(cells @ np.array([span * span, span, 1]))
    fields.require((keys[1:] > keys[:-1]).all(), "a cell is listed twice")
    return cells


def _read_pairs(fields: BinaryFields, num_atoms: int, cells: np.ndarray) -> np.ndarray:
    """(E, 5) int32 rows [R1, R2, R3, i, j]."""
    num_neighbours = fields.read("i4", num_atoms, name="the neighbour counts").astype(np.int64) + 1
    fields.require((num_neighbours > 0).all(), f"an atom has {num_neighbours.min() - 1} neighbours")
    num_pairs = int(num_neighbours.sum())
    neighbours = fields.read("i4", num_pairs, name="the neighbour lists") - 1
    neighbour_cells = fields.read("i4", num_pairs, name="the neighbours' cells")
    fields.require(((neighbours >= 0) & (neighbours < num_atoms)).all(), "a neighbour is not one of the atoms")
    fields.require(
        ((neighbour_cells >= 0) & (neighbour_cells < len(cells))).all(), "a neighbour's cell is not one of the cells"
    )
    first = np.cumsum(num_neighbours) - num_neighbours
    fields.require(
        (neighbours[first] == np.arange(num_atoms)).all() and (neighbour_cells[first] == 0).all(),
        "the first neighbour of an atom is not the atom itself",
    )
    pairs = np.empty((num_pairs, 5), dtype=np.int32)
    pairs[:, :3] = cells[neighbour_cells]
    pairs[:, 3] = np.repeat(np.arange(num_atoms), num_neighbours)
    pairs[:, 4] = neighbours
    return pairs


def _read_lattice(fields: BinaryFields, cells: np.ndarray, translations: np.ndarray) -> np.ndarray:
    """(3, 3) bohr, held to the reciprocal lattice and to the cells' translations, which the file also has."""
    lattice = fields.vectors(3, "the lattice vectors")
    reciprocal = fields.vectors(3, "the reciprocal lattice vectors")
    # both are computed from the lattice, so that they agree to rounding
    identity = lattice @ reciprocal.T / (2 * np.pi)
    fields.require(
        (np.abs(identity - np.eye(3)) < LATTICE_TOLERANCE).all(),
        "the lattice and the reciprocal lattice do not fit each other",
    )
    fields.require(
        (np.abs(cells @ lattice - translations) < LATTICE_TOLERANCE * (1 + np.abs(translations))).all(),
        "the cells' translations do not follow from the lattice",
    )
    return lattice


def _read_position(
    fields: BinaryFields, entries: int, places: np.ndarray, order: int, wanted: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The entries at `places` (N, 3) and, if wanted, all (3, B); else (0, B). Higher powers of r are passed over."""
    name = "the position matrix"
    matrix = np.empty((3 if wanted else 0, entries))
    moments = np.empty((len(places), 3))
    for direction in range(3):
        if wanted:
            matrix[direction] = fields.read("f8", entries, name=name)
            moments[:, direction] = matrix[direction, places]
        else:
            moments[:, direction] = fields.pick(places, entries, name)
        fields.skip((order - 1) * 8 * entries, name)
    return moments, matrix


def _read_density(
    fields: BinaryFields, entries: int, spin_switch: int, version: int, wanted: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The density matrix and its imaginary part, as ScfOut has them; both (0, B) if not wanted."""
    name = "the density matrix"
    real, imaginary = spin_switch + 1, 2 if version == 3 else 0  # the latter are zero without noncollinear spin
    if not wanted or (spin_switch == 3 and not imaginary):
        fields.skip((real + imaginary) * 8 * entries, name)
        return np.empty((0, entries)), np.empty((0, entries))
    density = fields.read("f8", real, entries, name=name)
    if spin_switch == 3:
        return density, fields.read("f8", imaginary, entries, name=name)
    fields.skip(imaginary * 8 * entries, name)
    return density, np.empty((0, entries))
