"""From an ABACUS run folder to a Material."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pymatgen.core.structure import Structure

from deeph_tracegrad.blocks import BlockMatrix
from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.material import Material
from deeph_tracegrad.orbitals import SpinMode
from deeph_tracegrad.preprocess.abacus.basis import read_basis
from deeph_tracegrad.preprocess.abacus.cell_matrices import CellMatrices
from deeph_tracegrad.preprocess.abacus.csr import read_csr, read_position_csr, sections
from deeph_tracegrad.preprocess.abacus.folder import RunFolder, locate, step_path
from deeph_tracegrad.preprocess.abacus.further_matrices import density_matrix, position_matrix
from deeph_tracegrad.preprocess.abacus.geometry import Geometry, element_of, parse_csr_structure
from deeph_tracegrad.preprocess.abacus.layout import Layout
from deeph_tracegrad.preprocess.abacus.log import Log, read_log
from deeph_tracegrad.preprocess.abacus.structure import geometry_of_input, geometry_of_step
from deeph_tracegrad.units import ABACUS_BOHR_ANGSTROM, ABACUS_RYDBERG_EV

SPIN_MODES = {1: SpinMode.NONE, 2: SpinMode.COLLINEAR, 4: SpinMode.NONCOLLINEAR}
NEGLIGIBLE_OVERLAP = 1e-6
WITH_SYMMETRY_BY_DEFAULT = ("scf", "relax", "cell-relax")
SWITCHED_ON = ("1", "true", "t", ".true.")


@dataclass(frozen=True)
class _Run:
    """What the small files of a run tell. step: None where no atoms move. remarks: what the user should know."""

    folder: RunFolder
    log: Log
    step: int | None
    spin: SpinMode
    remarks: list[str]


def read_abacus(path: Path, step: int | None = None, matrices: Collection[str] = ()) -> Material:
    """Read a run of ABACUS with a basis of numerical atomic orbitals.

    H and S come from the files of `out_mat_hs2 1` (newer: `out_hsr 1` or `2`) or `calculation get_S` (then without H),
    geometry from STRU, with the atoms moved into the cell as ABACUS does, or from what it wrote of the step. Blocks
    that only H or only S has are kept.

    Args:
        path: the run folder, with STRU and OUT.*, or the OUT.* folder itself.
        step: the ionic step of a relaxation or molecular dynamics, counted from 0; by default the last with matrices.
        matrices: what to read besides, where the run has it: "density" (`out_dmr`), "position" (`out_mat_r`).

    Raises:
        ReadError: a file is missing, damaged, or does not belong to the others; or there is no such step.
    """
    run = _open(Path(path), step)
    overlap_path = run.folder.matrix("S", 0, run.step)
    if overlap_path is None:
        raise _without_overlap(run)
    overlap = read_csr(overlap_path, "S", run.step)
    hamiltonians = _channels(run, "H")
    for file, matrix in {**hamiltonians, overlap_path: overlap}.items():
        _check_extent(file, matrix, overlap)
        _check_whole(run, file, matrix)
    geometry = _geometry(run, overlap_path, overlap)
    elements = [element_of(geometry.path, label) for label in geometry.labels]
    basis = read_basis(run.folder, run.log, geometry)
    layout = Layout.of(basis, elements, run.spin)
    spinless, violation = layout.overlap(overlap_path, overlap)
    channels = [layout.hermitian(file, matrix, "H") for file, matrix in hamiltonians.items()]
    violations = {"overlap": violation}
    if channels:
        violations["hamiltonian"] = max(violation for _, violation in channels) * ABACUS_RYDBERG_EV
    told = run.log.at(run.step)
    material = Material(
        structure=Structure(geometry.lattice, elements, geometry.fractional, labels=list(geometry.labels)),
        basis=basis,
        spin=run.spin,
        overlap=spinless,
        hamiltonian=tuple(matrix.with_entries(matrix.entries * ABACUS_RYDBERG_EV) for matrix, _ in channels),
        fermi_level=told.fermi_level,
        electrons=_electrons(run),
        converged=told.converged,
        provenance={
            "source": str(path if step is None else step_path(Path(path), step)),
            "code": "ABACUS",
            "code_version": run.log.version,
            "files": [str(overlap_path), *map(str, hamiltonians)],
            "units": {"rydberg_eV": ABACUS_RYDBERG_EV, "bohr_angstrom": ABACUS_BOHR_ANGSTROM},
            "hermiticity_violation": violations,
            "remarks": run.remarks,
        },
    )
    if "density" in matrices:
        material = _with_density(material, run, layout, spinless)
    if "position" in matrices:
        material = _with_position(material, run, layout, spinless)
    return material


def _open(path: Path, step: int | None) -> _Run:
    folder = locate(path)
    remarks = []
    if step is None and (steps := folder.steps):
        step = steps[-1]
        if len(steps) > 1:
            remarks.append(
                f"of {len(steps)} ionic steps the last was read; {step_path(path, steps[0])} names the first"
            )
    log = read_log(folder.log)
    nspin = str(log.nspin) if log.nspin is not None else folder.parameters.get("nspin", "1")
    if not nspin.isdecimal() or int(nspin) not in SPIN_MODES:
        raise ReadError(log.path, f"nspin is {nspin}; it can be 1, 2 or 4")
    return _Run(folder, log, step, SPIN_MODES[int(nspin)], remarks)


def _without_overlap(run: _Run) -> ReadError:
    output = run.folder.output
    if run.folder.holds_archives():
        return ReadError(output, "holds its matrices as .npz, which is not read; run ABACUS with out_hsr 1 or 2")
    return ReadError(output, "holds no S(R); run ABACUS with out_mat_hs2 1 (or out_hsr 1, calculation get_S)")


def _channels(run: _Run, matrix: str) -> dict[Path, CellMatrices]:
    """The matrix of each spin channel, by its file; empty where the run has none."""
    up, down = (run.folder.matrix(matrix, spin, run.step) for spin in (0, 1))
    files = [file for file in (up, down) if file is not None]
    if (down is not None) != (up is not None and run.spin is SpinMode.COLLINEAR):
        found = ", ".join(file.name for file in files) or "none"
        raise ReadError(
            run.folder.output, f"the spin is {run.spin}, which does not go with its {matrix}(R) files: {found}"
        )
    return {file: read_csr(file, matrix, run.step) for file in files}


def _check_extent(path: Path, hamiltonian: CellMatrices, overlap: CellMatrices) -> None:
    """H reaches at least as far as S; where it does not, its file lost some cells."""
    cells = {tuple(cell) for cell in hamiltonian.cells.tolist()}
    lacking = np.array([tuple(cell) not in cells for cell in overlap.cells.tolist()])
    if (np.abs(overlap.values)[lacking[overlap.cell]] > NEGLIGIBLE_OVERLAP).any():
        cell = overlap.cells[lacking.argmax()].tolist()
        raise ReadError(path, f"has no entries for R = {cell}, where S(R) has some; the file is cut short")


def _check_whole(run: _Run, path: Path, matrix: CellMatrices) -> None:
    """A binary file does not tell that it is folded; and a run that moves no atoms should have one matrix a file."""
    if matrix.header.matrix is None and run.folder.parameters.get("gamma_only", "0").lower() in SWITCHED_ON:
        raise ReadError(path, "holds a matrix folded to the Γ point, not H(R); run ABACUS with gamma_only 0")
    count = len(sections(path, "H"))
    if run.step is None and count > 1:
        run.remarks.append(f"{path.name} holds {count} ionic steps; the last was read")


def _geometry(run: _Run, overlap_path: Path, overlap: CellMatrices) -> Geometry:
    text = overlap.header.structure
    header = None if text is None else parse_csr_structure(overlap_path, text)
    if run.step is None:
        return geometry_of_input(run.folder, run.log, header, run.remarks)
    return geometry_of_step(run.folder, run.log, run.step, header, run.remarks)


def _electrons(run: _Run) -> float | None:
    """The number that INPUT sets, or else that of the pseudopotentials."""
    try:
        given = float(run.folder.parameters.get("nelec", "0"))
        extra = float(run.folder.parameters.get("nelec_delta", "0"))
    except ValueError:
        raise ReadError(run.folder.inputs / "INPUT", "nelec and nelec_delta should be numbers") from None
    electrons = given or run.log.electrons
    return electrons if electrons is None else electrons + extra


def _with_density(material: Material, run: _Run, layout: Layout, overlap: BlockMatrix) -> Material:
    files = _channels(run, "DM")
    if not files:
        return material
    density, violation = density_matrix(files, layout, overlap, material.electrons)
    by_default = "1" if run.folder.calculation in WITH_SYMMETRY_BY_DEFAULT else "0"
    if run.folder.parameters.get("symmetry", by_default).replace("default", by_default) == "1":
        run.remarks.append(
            "with symmetry 1 ABACUS sums the density matrix over the irreducible k-points only; run with symmetry 0"
        )
    return _extended(replace(material, density=density), "density", list(files), violation)


def _with_position(material: Material, run: _Run, layout: Layout, overlap: BlockMatrix) -> Material:
    file = run.folder.matrix("r", 0, run.step)
    if file is None:
        return material
    position, violation = position_matrix(file, read_position_csr(file, run.step), layout, overlap, material.structure)
    return _extended(replace(material, position=position), "position", [file], violation)


def _extended(material: Material, matrix: str, files: list[Path], violation: float) -> Material:
    """With a further matrix in its provenance."""
    known = material.provenance
    further = {
        "files": [*known["files"], *map(str, files)],
        "hermiticity_violation": {**known["hermiticity_violation"], matrix: violation},
    }
    return replace(material, provenance={**known, **further})
