"""What the matrix files of both DeepH formats have in common: which there are, checks, mending.

Shape letters: N atoms, E pairs.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deeph_tracegrad.blocks import BlockMatrix, union_pairs
from deeph_tracegrad.deeph_spin import join_spins, spin_channels, spin_mode
from deeph_tracegrad.errors import MismatchError, ReadError
from deeph_tracegrad.material import Material
from deeph_tracegrad.orbitals import SpinMode
from deeph_tracegrad.position import position_violation

# A matrix that is off by more, eV for H and Å for positions, is damaged or has its blocks under the wrong pairs.
VIOLATION_LIMITS = {"overlap": 0.01, "hamiltonian": 1.0, "density": 0.01, "position": 0.01}

MAX_CELL = 1000  # no orbital reaches over more cells

# From path, rows of each atom, allowed kinds of entries and number of matrices in the file to these as they are stored.
Reader = Callable[[Path, np.ndarray, str, int], tuple[BlockMatrix, ...]]


@dataclass(frozen=True)
class StoredMatrices:
    """The matrices of a folder in the orbital order of the file; all Hermitian but the position matrices.

    files: name of the file of each matrix; violations: its largest |A - A†| before, eV for H; of the position matrices
        as `position_violation` tells, Å.
    """

    spin: SpinMode
    overlap: BlockMatrix | None
    hamiltonian: tuple[BlockMatrix, ...]
    density: tuple[BlockMatrix, ...]
    position: tuple[BlockMatrix, ...]
    files: Mapping[str, str]
    violations: Mapping[str, float]

    def provenance(self, folder: Path, format_name: str, origin: Mapping[str, Any]) -> dict[str, Any]:
        """What a Material tells of its source.

        origin: the provenance of the Material that was written there, if this program wrote it.
        """
        own = {
            "source": str(folder),
            "code": format_name,
            "files": dict(self.files),
            "hermiticity_violation": dict(self.violations),
        }
        return own | ({"origin": dict(origin)} if origin else {})


def find_matrices(folder: Path, names: Mapping[str, Sequence[str]], wanted: Collection[str]) -> dict[str, Path]:
    """The files that there are of S, of H and of the other matrices wanted.

    names: what the file of each matrix may be called, the preferred name first.
    """
    found = {}
    for matrix in ("overlap", "hamiltonian", *wanted):
        name = next((name for name in names[matrix] if (folder / name).exists()), None)
        if name is not None:
            found[matrix] = folder / name
    return found


def read_matrices(
    folder: Path,
    paths: Mapping[str, Path],
    orbitals: np.ndarray,
    cell: np.ndarray,
    *,
    spinful: bool,
    stored_spin: SpinMode | None,
    read: Reader,
) -> StoredMatrices:
    """Read the matrices that have a path, check them, and symmetrise all but the position matrices.

    orbitals: (N,) int. cell: (3, 3) Å, lattice vectors are rows.
    stored_spin: the spin mode that this program wrote down; None in other programs' folders.

    Raises:
        ReadError: a file is damaged, or the matrices and the given spin contradict each other.
    """
    violations: dict[str, float] = {}
    overlap: BlockMatrix | None = None
    position: tuple[BlockMatrix, ...] = ()
    if path := paths.get("overlap"):
        (stored,) = read(path, orbitals, "f", 1)
        overlap, violations["overlap"] = mended(path, stored, VIOLATION_LIMITS["overlap"])
    packed = {
        matrix: read(paths[matrix], orbitals * (2 if spinful else 1), "fc", 1)[0]
        for matrix in ("hamiltonian", "density")
        if matrix in paths
    }
    telling = next(iter(packed), None)
    spin = spin_mode(
        folder if telling is None else paths[telling],
        spinful,
        None if telling is None else np.iscomplexobj(packed[telling].entries),
        stored_spin,
    )
    channels: dict[str, tuple[BlockMatrix, ...]] = {}
    for matrix, stored in packed.items():
        limit = None if "pred" in paths[matrix].name else VIOLATION_LIMITS[matrix]
        symmetric, violations[matrix] = mended(paths[matrix], stored, limit)
        channels[matrix] = spin_channels(paths[matrix], symmetric, spin)
    if path := paths.get("position"):
        position = read(path, orbitals, "f", 3)
        if overlap is not None:
            violations["position"] = _position_violation(path, position, overlap, cell)
    files = {matrix: path.name for matrix, path in paths.items()}
    hamiltonian, density = channels.get("hamiltonian", ()), channels.get("density", ())
    return StoredMatrices(spin, overlap, hamiltonian, density, position, files, violations)


def check_pairs(path: Path, pairs: np.ndarray, num_atoms: int) -> np.ndarray:
    """The pairs as int32, 0-based, once they are known to name atoms of the cell and cells nearby."""
    wrong = ((pairs[:, 3:] < 0) | (pairs[:, 3:] >= num_atoms)).any(axis=1) | (abs(pairs[:, :3]) > MAX_CELL).any(axis=1)
    if wrong.any():
        pair = pairs[np.flatnonzero(wrong)[0]].tolist()
        raise ReadError(path, f"the pair [R1, R2, R3, i, j] = {pair}, 0-based, is not possible with {num_atoms} atoms")
    return pairs.astype(np.int32)


def check_entries(path: Path, entries: np.ndarray) -> np.ndarray:
    """The entries in double precision, once they are known to be finite."""
    if not np.isfinite(entries).all():
        raise ReadError(path, "holds entries that are not finite")
    return entries.astype(np.complex128 if entries.dtype.kind == "c" else np.float64, copy=False)


def mended(path: Path, matrix: BlockMatrix, limit: float | None) -> tuple[BlockMatrix, float]:
    """(A + A†) / 2 and the largest |A - A†| before, an absent block counting as zero.

    limit: of that violation; None for predictions, which may be off by anything.

    Raises:
        ReadError: the violation is beyond the limit, or a pair is listed twice.
    """
    try:
        partnerless = matrix.reverse < 0
        symmetric, violation = matrix.symmetrised()
    except MismatchError as error:
        raise ReadError(path, str(error)) from error
    lone = abs(matrix.entries)[np.repeat(partnerless, np.diff(matrix.offsets))]
    violation = max(violation, float(lone.max(initial=0.0)))
    if limit is not None and violation > limit:
        raise ReadError(
            path,
            f"is not Hermitian: blocks (R, i, j) and (-R, j, i) differ by up to {violation:.3g}"
            + (f", {partnerless.sum()} of {len(matrix)} blocks have no partner" if partnerless.any() else ""),
        )
    return symmetric, violation


def _position_violation(path: Path, position: tuple[BlockMatrix, ...], overlap: BlockMatrix, cell: np.ndarray) -> float:
    try:
        violation = position_violation(position, overlap, cell)
    except MismatchError as error:
        raise ReadError(path, str(error)) from error
    if violation > VIOLATION_LIMITS["position"]:
        raise ReadError(path, f"blocks (R, i, j) and (-R, j, i) differ by up to {violation:.3g} Å more than R asks for")
    return violation


def stored_matrices(material: Material) -> dict[str, tuple[BlockMatrix, ...]]:
    """The matrices as they are written: on one list of pairs, zeros filled in, each with its spins in a single matrix.

    Returns those of "overlap", "hamiltonian", "density" (one each) and "position" (x, y and z) that the material has.
    """
    if material.overlap is None and not material.hamiltonian:
        raise MismatchError("there is neither an overlap nor a Hamiltonian to write")
    own = {
        "overlap": () if material.overlap is None else (material.overlap,),
        "hamiltonian": material.hamiltonian,
        "density": material.density,
        "position": material.position,
    }
    pairs = union_pairs(*(matrix.pairs for matrices in own.values() for matrix in matrices))
    stored = {name: tuple(matrix.on_pairs(pairs) for matrix in matrices) for name, matrices in own.items() if matrices}
    if material.spin is SpinMode.COLLINEAR:
        stored |= {name: (join_spins(*stored[name]),) for name in ("hamiltonian", "density") if name in stored}
    return stored
