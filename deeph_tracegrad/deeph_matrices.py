"""What the matrix files of both DeepH formats have in common: opening, mending, and the packing of spin.

A spinful block is (2 n_i, 2 n_j), spin-major: uu ud / du dd. With collinear spin ud and du vanish.

Shape letters: E pairs, B flat block entries, k pairs of one shape.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from deeph_tracegrad.blocks import BlockMatrix, union_pairs
from deeph_tracegrad.errors import MismatchError, ReadError
from deeph_tracegrad.material import Material
from deeph_tracegrad.orbitals import SpinMode

# A matrix that is off by more, 1 for S and eV for H, is damaged or has its blocks under the wrong pairs.
OVERLAP_VIOLATION_LIMIT = 0.01
HAMILTONIAN_VIOLATION_LIMIT = 1.0

MAX_CELL = 1000  # no orbital reaches over more cells
MAX_COMPRESSION = 1100  # more than what HDF5's filters can reach


@dataclass(frozen=True)
class StoredMatrices:
    """The matrices of a folder, Hermitian, in the orbital order of the file.

    files: name of the file of each matrix; violations: its largest |A - A†| before, eV for H.
    """

    spin: SpinMode
    overlap: BlockMatrix | None
    hamiltonian: tuple[BlockMatrix, ...]
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


def read_matrices(
    overlap_path: Path,
    hamiltonian_path: Path | None,
    orbitals: np.ndarray,
    *,
    spinful: bool,
    stored_spin: SpinMode | None,
    read: Callable[[Path, np.ndarray, str], BlockMatrix],
) -> StoredMatrices:
    """Read S, if its file exists, and H, if there is one, and check and symmetrise them.

    orbitals: (N,) int. stored_spin: the spin mode that this program wrote down; None in other programs' folders.
    read: from path, rows of each atom and allowed kinds of entries to the matrix as it is stored.

    Raises:
        ReadError: a file is damaged, or H and the given spin contradict each other.
    """
    files: dict[str, str] = {}
    violations: dict[str, float] = {}
    overlap = None
    if overlap_path.exists():
        overlap, violations["overlap"] = mended(
            overlap_path, read(overlap_path, orbitals, "f"), OVERLAP_VIOLATION_LIMIT
        )
        files["overlap"] = overlap_path.name
    if hamiltonian_path is None:
        return StoredMatrices(
            _spin_mode(overlap_path.parent, spinful, None, stored_spin), overlap, (), files, violations
        )
    stored = read(hamiltonian_path, orbitals * (2 if spinful else 1), "fc")
    spin = _spin_mode(hamiltonian_path, spinful, np.iscomplexobj(stored.entries), stored_spin)
    limit = None if "pred" in hamiltonian_path.name else HAMILTONIAN_VIOLATION_LIMIT
    symmetric, violations["hamiltonian"] = mended(hamiltonian_path, stored, limit)
    files["hamiltonian"] = hamiltonian_path.name
    if spin is SpinMode.COLLINEAR:
        return StoredMatrices(spin, overlap, split_spins(hamiltonian_path, symmetric), files, violations)
    if spin is SpinMode.NONCOLLINEAR:
        symmetric = symmetric.with_entries(symmetric.entries.astype(np.complex128, copy=False))
    return StoredMatrices(spin, overlap, (symmetric,), files, violations)


@contextmanager
def open_matrix_file(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file to read; whatever is wrong with it is a ReadError."""
    if not path.is_file():
        raise ReadError(path, "the file is missing")
    try:
        with h5py.File(path) as file:
            yield file
    except MismatchError as error:
        raise ReadError(path, str(error)) from error
    except KeyError as error:
        raise ReadError(
            path, f"lacks what a DeepH matrix file has: {error.args[0] if error.args else error}"
        ) from error
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise ReadError(path, f"is no HDF5 file, or a damaged one ({error})") from error


def read_dataset(path: Path, file: h5py.File, name: str, kinds: str, shape: tuple[int | None, ...]) -> np.ndarray:
    """One dataset, checked before it is read: a damaged header must not ask for all memory.

    kinds: NumPy's letters of the allowed types; shape: None where any length will do.
    """
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset):
        raise ReadError(path, f"{name} should be a dataset")
    fits = len(dataset.shape or ()) == len(shape) and all(
        wanted in (None, length) for wanted, length in zip(shape, dataset.shape, strict=True)
    )
    if dataset.dtype.kind not in kinds or not fits:
        wanted = " x ".join("any" if length is None else str(length) for length in shape)
        raise ReadError(
            path, f"{name} is {dataset.dtype} {dataset.shape}; expected {wanted} of type {' or '.join(kinds)}"
        )
    if dataset.nbytes > MAX_COMPRESSION * path.stat().st_size:
        raise ReadError(path, f"{name} claims {dataset.nbytes} bytes, more than the file can hold")
    return dataset[()]


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


def _spin_mode(path: Path, spinful: bool, complex_entries: bool | None, stored: SpinMode | None) -> SpinMode:
    """The spin mode: ours where stored, else collinear for real spinful blocks and noncollinear for complex ones.

    complex_entries: None where there is no Hamiltonian.
    """
    if not spinful:
        mode = SpinMode.NONE
    elif stored not in (None, SpinMode.NONE):
        mode = stored
    else:
        mode = SpinMode.COLLINEAR if complex_entries is False else SpinMode.NONCOLLINEAR
    if stored not in (None, mode):
        raise ReadError(path, f"says spinful = {spinful} in one place and spin {stored} in another")
    if mode is SpinMode.NONE and complex_entries:
        raise ReadError(path, "says that H has no spin, but the Hamiltonian is complex")
    return mode


def stored_matrices(material: Material) -> tuple[BlockMatrix | None, BlockMatrix | None]:
    """S and H as they are written: on one list of pairs, zeros filled in, and H as a single matrix."""
    channels = [matrix for matrix in (material.overlap, *material.hamiltonian) if matrix is not None]
    if not channels:
        raise MismatchError("there is neither an overlap nor a Hamiltonian to write")
    pairs = union_pairs(*(matrix.pairs for matrix in channels))
    overlap = None if material.overlap is None else material.overlap.on_pairs(pairs)
    hamiltonian = [matrix.on_pairs(pairs) for matrix in material.hamiltonian]
    if material.spin is SpinMode.COLLINEAR and hamiltonian:
        return overlap, join_spins(*hamiltonian)
    return overlap, hamiltonian[0] if hamiltonian else None


def join_spins(up: BlockMatrix, down: BlockMatrix) -> BlockMatrix:
    """Real spinful blocks with the channels, which have the same pairs, on their diagonals."""
    joined = BlockMatrix.of(up.pairs, np.zeros(4 * len(up.entries)), 2 * up.sizes)
    for (rows, columns), members, places in joined.stacks():
        stack = np.zeros((len(members), 2, rows // 2, 2, columns // 2))
        start = up.offsets[members, None] + np.arange(rows * columns // 4)
        for component, channel in enumerate((up, down)):
            stack[:, component, :, component] = channel.entries[start].reshape(-1, rows // 2, columns // 2)
        joined.entries[places] = stack.reshape(len(members), -1)
    return joined


def split_spins(path: Path, matrix: BlockMatrix) -> tuple[BlockMatrix, BlockMatrix]:
    """The up and down channels, real, of spinful blocks whose other parts vanish.

    Raises:
        ReadError: the up-down blocks do not vanish.
    """
    sizes = matrix.sizes // 2
    channels = [BlockMatrix.of(matrix.pairs, np.zeros(len(matrix.entries) // 4), sizes) for _ in range(2)]
    for (rows, columns), members, places in matrix.stacks():
        stack = matrix.entries[places].reshape(-1, 2, rows // 2, 2, columns // 2)
        if stack[:, 0, :, 1].any() or stack[:, 1, :, 0].any() or np.imag(stack).any():
            raise ReadError(path, "should be collinear, but its up-down blocks or imaginary parts are not zero")
        for component, channel in enumerate(channels):
            start = channel.offsets[members, None]
            block = stack[:, component, :, component].real.reshape(len(members), -1)
            channel.entries[start + np.arange(rows * columns // 4)] = block
    return channels[0], channels[1]
