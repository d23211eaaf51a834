"""From an ABACUS run folder to a Material."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core.structure import Structure

from deeph_tracegrad.blocks import BlockMatrix
from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.material import Material
from deeph_tracegrad.orbitals import Basis, ElementBasis, OrbitalConvention, OrbitalOrder, SpinMode
from deeph_tracegrad.preprocess.abacus.csr import CellMatrices, read_csr
from deeph_tracegrad.preprocess.abacus.folder import RunFolder, locate
from deeph_tracegrad.preprocess.abacus.geometry import Geometry, element_of, parse_csr_structure
from deeph_tracegrad.preprocess.abacus.input_file import read_input
from deeph_tracegrad.preprocess.abacus.log import Log, read_log
from deeph_tracegrad.preprocess.abacus.orbital_file import element_basis, read_orbital_header
from deeph_tracegrad.preprocess.abacus.stru import read_stru
from deeph_tracegrad.units import ABACUS_BOHR_ANGSTROM, ABACUS_RYDBERG_EV

SPIN_MODES = {1: SpinMode.NONE, 2: SpinMode.COLLINEAR, 4: SpinMode.NONCOLLINEAR}
MOVING_CALCULATIONS = ("relax", "cell-relax", "md")
# Of the largest entry. The files hold both H(R) and H(-R), to six or more digits; a damaged number stands out.
LARGEST_VIOLATION = 1e-5
# Beyond what normalised orbitals and any atom can have: such a number was damaged.
LARGEST_ENTRY = {"S": 10.0, "H": 1e5}
NEGLIGIBLE_OVERLAP = 1e-6


@dataclass(frozen=True)
class _Sources:
    """The small files of a run, read. remarks: what the user should know, for the provenance."""

    folder: RunFolder
    parameters: Mapping[str, str]
    log: Log
    remarks: list[str]


def read_abacus(path: Path) -> Material:
    """Read a run of ABACUS with a basis of numerical atomic orbitals.

    The matrices come from the text files of `out_mat_hs2 1` or `calculation get_S` (then without H), geometry from
    STRU, with the atoms moved into the cell as ABACUS does. Blocks that only H or only S has are kept.

    Args:
        path: the run folder, with STRU and OUT.*, or the OUT.* folder itself.

    Raises:
        ReadError: a file is missing, damaged, or does not belong to the others.
    """
    folder = locate(Path(path))
    input_path = folder.input_file("INPUT")
    sources = _Sources(folder, read_input(input_path) if input_path else {}, read_log(folder.log()), [])
    spin = _spin_mode(sources)
    overlap_path = folder.overlap()
    if overlap_path is None:
        raise ReadError(folder.output, "holds no S(R); run ABACUS with out_mat_hs2 1 (or out_hsr 1, calculation get_S)")
    overlap = read_csr(overlap_path, "S")
    hamiltonians = {file: read_csr(file, "H") for file in _hamiltonian_files(folder, spin)}
    geometry = _geometry(sources, overlap_path, overlap)
    elements = [element_of(geometry.path, label) for label in geometry.labels]
    basis = _basis(sources, geometry)
    layout = _Layout.of(basis, elements, spin)
    for file, matrix in hamiltonians.items():
        _check_extent(file, matrix, overlap)
    for file, matrix in (*hamiltonians.items(), (overlap_path, overlap)):
        if matrix.header.steps > 1:
            sources.remarks.append(f"{file.name} holds {matrix.header.steps} ionic steps; the last was read")
    channels = [layout.blocks(file, matrix) for file, matrix in hamiltonians.items()]
    spinless, overlap_violation = layout.overlap(overlap_path, overlap)
    violations = {"overlap": overlap_violation}
    if channels:
        violations["hamiltonian"] = max(violation for _, violation in channels) * ABACUS_RYDBERG_EV
    return Material(
        structure=Structure(geometry.lattice, elements, geometry.fractional),
        basis=basis,
        spin=spin,
        overlap=spinless,
        hamiltonian=tuple(matrix.with_entries(matrix.entries * ABACUS_RYDBERG_EV) for matrix, _ in channels),
        fermi_level=sources.log.fermi_level,
        electrons=_electrons(sources),
        converged=sources.log.converged,
        provenance=_provenance(path, sources, [overlap_path, *hamiltonians], violations),
    )


def _spin_mode(sources: _Sources) -> SpinMode:
    log = sources.log
    nspin = str(log.nspin) if log.nspin is not None else sources.parameters.get("nspin", "1")
    if not nspin.isdecimal() or int(nspin) not in SPIN_MODES:
        raise ReadError(log.path, f"nspin is {nspin}; it can be 1, 2 or 4")
    return SPIN_MODES[int(nspin)]


def _hamiltonian_files(folder: RunFolder, spin: SpinMode) -> list[Path]:
    """One for each spin channel; none where the run has only S."""
    up, down = folder.hamiltonian(0), folder.hamiltonian(1)
    if (down is not None) != (up is not None and spin is SpinMode.COLLINEAR):
        found = ", ".join(file.name for file in (up, down) if file) or "none"
        raise ReadError(folder.output, f"the spin is {spin}, which does not go with its H(R) files: {found}")
    return [file for file in (up, down) if file is not None]


def _geometry(sources: _Sources, overlap_path: Path, overlap: CellMatrices) -> Geometry:
    """The exact structure, each atom in the periodic image that the matrices count from."""
    header = overlap.header.structure
    as_run = parse_csr_structure(overlap_path, header) if header is not None else sources.log.geometry
    calculation = sources.parameters.get("calculation", "scf")
    stru = sources.folder.input_file(sources.parameters.get("stru_file", "STRU"))
    if calculation in MOVING_CALCULATIONS:
        if header is None or as_run is None:
            raise ReadError(
                sources.folder.inputs,
                f"is a '{calculation}' calculation, and nothing tells which structure its matrices belong to; "
                "run an scf calculation on the structure wanted",
            )
        sources.remarks.append(f"the structure is that of the last step, from {overlap_path.name}")
        return as_run
    if stru is not None:
        exact = read_stru(stru, sources.parameters.get("latname", "none"))
        return exact.placed_like(as_run) if as_run is not None else exact.wrapped()
    if as_run is None:
        raise ReadError(sources.folder.inputs, "holds no STRU, and the log does not give the structure either")
    sources.remarks.append(f"without STRU the structure comes from {as_run.path.name}, which has few digits")
    return as_run


def _basis(sources: _Sources, geometry: Geometry) -> Basis:
    """The basis of each element, from the .orb files where they are at hand, else from the log."""
    log, bases = sources.log, dict[str, ElementBasis]()
    counts = {kind.label: kind.count for kind in log.types}
    if any(geometry.labels.count(label) != counts.get(label) for label in set(geometry.labels)) or sum(
        counts.values()
    ) != len(geometry.labels):
        raise ReadError(geometry.path, f"its atoms are not those of {log.path}: {counts}")
    for kind in log.types:
        if not kind.count:
            continue
        element = element_of(log.path, kind.label)
        basis = _label_basis(sources, kind.label, kind.shells, geometry.orbital_files.get(kind.label))
        if bases.setdefault(element, basis) != basis:
            one, other = (f"{found.name} ({found.label})" for found in (bases[element], basis))
            raise ReadError(
                log.path,
                f"{element} atoms have different orbitals under different labels, {one} and {other}, which is not "
                "supported",
            )
    return Basis.of(bases)


def _label_basis(sources: _Sources, label: str, shells: tuple[int, ...], orbital_file: str | None) -> ElementBasis:
    if orbital_file is not None:
        folder = sources.folder.inputs / sources.parameters.get("orbital_dir", ".")
        for path in (folder / orbital_file, sources.folder.inputs / Path(orbital_file).name):
            if path.is_file():
                basis = read_orbital_header(path)
                if basis.shells != shells:
                    raise ReadError(path, f"has other shells than {sources.log.path} tells for {label}")
                return basis
    return element_basis(sources.log.path, shells, None, orbital_file and Path(orbital_file).name)


def _check_extent(path: Path, hamiltonian: CellMatrices, overlap: CellMatrices) -> None:
    """H reaches at least as far as S; where it does not, its file lost some cells."""
    cells = {tuple(cell) for cell in hamiltonian.cells.tolist()}
    lacking = np.array([tuple(cell) not in cells for cell in overlap.cells.tolist()])
    if (np.abs(overlap.values)[lacking[overlap.cell]] > NEGLIGIBLE_OVERLAP).any():
        cell = overlap.cells[lacking.argmax()].tolist()
        raise ReadError(path, f"has no entries for R = {cell}, where S(R) has some; the file is cut short")


@dataclass(frozen=True)
class _Layout:
    """How the rows of the files map to atoms and orbitals.

    kinds: (N,) place of each atom's element in the basis. orbitals: (N,) orbitals of each atom.
    orders: from the file's order to the project's, for each element, without spin.
    """

    kinds: np.ndarray
    orbitals: np.ndarray
    orders: Sequence[OrbitalOrder]
    spin: SpinMode

    @classmethod
    def of(cls, basis: Basis, elements: Sequence[str], spin: SpinMode) -> "_Layout":
        orders = [element.order(OrbitalConvention.ABACUS, OrbitalConvention.DEEPH) for element in basis.values()]
        return cls(basis.species(elements), basis.num_orbitals(elements), orders, spin)

    def blocks(self, path: Path, matrix: CellMatrices) -> tuple[BlockMatrix, float]:
        """The matrix in the project's order, spin-major, symmetrised; and the largest violation that it had."""
        components = self.spin.components
        if matrix.header.dimension != components * self.orbitals.sum():
            raise ReadError(
                path,
                f"has {matrix.header.dimension} rows; spin {self.spin} and the basis make "
                f"{components * self.orbitals.sum()}",
            )
        if np.iscomplexobj(matrix.values) != (components == 2):
            raise ReadError(path, f"its numbers are {matrix.values.dtype}, which does not go with spin {self.spin}")
        orders = [_spin_major(order, components) for order in self.orders]
        blocks, violation = matrix.to_blocks(components * self.orbitals).reordered(orders, self.kinds).symmetrised()
        largest = np.abs(matrix.values).max()
        if largest > LARGEST_ENTRY[matrix.header.matrix]:
            raise ReadError(path, f"has an entry of {largest:.2g}, which no {matrix.header.matrix}(R) can have")
        if not violation <= LARGEST_VIOLATION * largest:
            raise ReadError(
                path,
                f"is not Hermitian: A(R) and A(-R)† differ by {violation:.2g}, with entries up to {largest:.2g}; "
                "the file is damaged",
            )
        return blocks, violation

    def overlap(self, path: Path, matrix: CellMatrices) -> tuple[BlockMatrix, float]:
        """S without spin. A run with spinors writes it twice, for up and for down."""
        blocks, violation = self.blocks(path, matrix)
        if self.spin is not SpinMode.NONCOLLINEAR:
            return blocks, violation
        spinless = BlockMatrix.of(blocks.pairs, np.zeros(len(blocks.entries) // 4), self.orbitals)
        excess = 0.0
        for ((row, column), _, source), (_, _, target) in zip(
            blocks.stacks(self.kinds), spinless.stacks(self.kinds), strict=True
        ):
            rows, columns = self.orders[row].index.size, self.orders[column].index.size
            stack = blocks.entries[source].reshape(-1, 2, rows, 2, columns)
            up = stack[:, 0, :, 0].real.copy()
            spinless.entries[target] = up.reshape(len(up), -1)
            stack[:, 0, :, 0] -= up
            stack[:, 1, :, 1] -= up
            excess = max(excess, float(np.abs(stack).max(initial=0.0)))
        if not excess <= LARGEST_VIOLATION:
            raise ReadError(path, f"the overlap depends on spin (by {excess:.2g}), which it never does; it is damaged")
        return spinless, violation


def _spin_major(order: OrbitalOrder, components: int) -> OrbitalOrder:
    """The order for rows that count spin fastest, to rows that count it slowest."""
    index = np.concatenate([components * order.index + spin for spin in range(components)])
    return OrbitalOrder(index, np.tile(order.sign, components))


def _electrons(sources: _Sources) -> float | None:
    """The number that INPUT sets, or else that of the pseudopotentials."""
    try:
        given = float(sources.parameters.get("nelec", "0"))
        extra = float(sources.parameters.get("nelec_delta", "0"))
    except ValueError:
        raise ReadError(sources.folder.inputs / "INPUT", "nelec and nelec_delta should be numbers") from None
    electrons = given or sources.log.electrons
    return electrons if electrons is None else electrons + extra


def _provenance(
    path: Path, sources: _Sources, files: Sequence[Path], violations: Mapping[str, float]
) -> dict[str, Any]:
    return {
        "source": str(path),
        "code": "ABACUS",
        "code_version": sources.log.version,
        "files": [str(file) for file in files],
        "units": {"rydberg_eV": ABACUS_RYDBERG_EV, "bohr_angstrom": ABACUS_BOHR_ANGSTROM},
        "hermiticity_violation": dict(violations),
        "remarks": list(sources.remarks),
    }
