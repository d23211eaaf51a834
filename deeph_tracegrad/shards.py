"""Files that hold samples: one HDF5 file a shard, arrays of all its samples end to end.

`docs/formats.md` has the layout. Shape letters: n samples, N atoms, E edges, B flat block entries, C spin channels.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from deeph_tracegrad.atomic import atomic_path
from deeph_tracegrad.errors import MismatchError, ReadError
from deeph_tracegrad.hdf5_files import new_hdf5
from deeph_tracegrad.material import pair_vectors
from deeph_tracegrad.orbitals import SpinMode
from deeph_tracegrad.samples import Sample, block_dtype

FORMAT = "deeph-tracegrad shard"
FORMAT_VERSION = 1

_CHUNK_BYTES = 1 << 18


class ShardWriter:
    """Appends samples to an open shard, one at a time."""

    def __init__(self, file: h5py.File, spin: SpinMode) -> None:
        self._file = file
        file.attrs.update(format=FORMAT, format_version=FORMAT_VERSION, spin=str(spin))
        self._datasets = {
            "sample/label": _growing(file, "sample/label", (), h5py.string_dtype()),
            "sample/metadata": _growing(file, "sample/metadata", (), h5py.string_dtype()),
            "sample/cell": _growing(file, "sample/cell", (3, 3), np.float64),
            "sample/pointer": _growing(file, "sample/pointer", (3,), np.int64),
            "atom/atomic_number": _growing(file, "atom/atomic_number", (), np.int16),
            "atom/position": _growing(file, "atom/position", (3,), np.float64),
            "edge/pair": _growing(file, "edge/pair", (5,), np.int32),
            "edge/frame": _growing(file, "edge/frame", (3, 3), np.float64),
            "block/hamiltonian": _growing(file, "block/hamiltonian", (spin.channels,), block_dtype(spin)),
        }
        _append(self._datasets["sample/pointer"], np.zeros((1, 3)))

    def append(self, sample: Sample) -> None:
        """Add one sample.

        Raises:
            MismatchError: it is not labelled.
        """
        if sample.blocks is None:
            raise MismatchError(f"{sample.label} has no Hamiltonian to store")
        _append(self._datasets["sample/label"], np.array([sample.label], dtype=object))
        _append(self._datasets["sample/metadata"], np.array([json.dumps(sample.metadata)], dtype=object))
        _append(self._datasets["sample/cell"], sample.cell[None])
        _append(self._datasets["atom/atomic_number"], sample.atomic_numbers)
        _append(self._datasets["atom/position"], sample.positions)
        _append(self._datasets["edge/pair"], sample.pairs)
        _append(self._datasets["edge/frame"], sample.frames)
        _append(self._datasets["block/hamiltonian"], sample.blocks.T)
        ends = [len(self._datasets[name]) for name in ("atom/atomic_number", "edge/pair", "block/hamiltonian")]
        _append(self._datasets["sample/pointer"], np.array([ends]))

    def describe(self, index: dict[str, Any]) -> None:
        """Store the index of the shard's samples with it, from which an interrupted preprocess goes on."""
        self._file.attrs["index"] = json.dumps(index)


@contextmanager
def write_shard(path: Path, spin: SpinMode) -> Iterator[ShardWriter]:
    """A shard that appears under its name when the block ends, or not at all."""
    with atomic_path(path) as temporary, new_hdf5(temporary) as file:
        yield ShardWriter(file, spin)


def read_sample(file: h5py.File, place: int) -> Sample:
    """The sample at one place of an open shard."""
    (atom, edge, entry), (atom_end, edge_end, entry_end) = file["sample/pointer"][place : place + 2]
    positions = file["atom/position"][atom:atom_end]
    cell = file["sample/cell"][place]
    pairs = file["edge/pair"][edge:edge_end]
    return Sample(
        label=file["sample/label"].asstr()[place],
        atomic_numbers=file["atom/atomic_number"][atom:atom_end].astype(np.int64),
        positions=positions,
        cell=cell,
        pairs=pairs,
        vectors=pair_vectors(positions, cell, pairs),
        frames=file["edge/frame"][edge:edge_end],
        blocks=np.ascontiguousarray(file["block/hamiltonian"][entry:entry_end].T),
        metadata=json.loads(file["sample/metadata"].asstr()[place]),
    )


@contextmanager
def open_shard(path: Path) -> Iterator[h5py.File]:
    """A shard open for reading.

    Raises:
        ReadError: the file is damaged, or no shard, or of a newer format.
    """
    try:
        with h5py.File(path, "r") as file:
            check_format(path, file.attrs.get("format"), file.attrs.get("format_version"), FORMAT, FORMAT_VERSION)
            yield file
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise ReadError(path, f"damaged shard ({error}); delete it and run preprocess again") from error


def check_format(path: Path, found: Any, version: Any, expected: str, newest: int) -> None:
    """Refuse a file of another kind or from a newer program.

    Raises:
        ReadError: naming both.
    """
    if found != expected:
        raise ReadError(path, f"not a {expected}; its format entry is {found!r}")
    if not isinstance(version, int | np.integer) or version > newest:
        raise ReadError(path, f"{expected} of format version {version}; this program reads up to {newest}: update it")


def _growing(file: h5py.File, name: str, shape: tuple[int, ...], dtype: Any) -> h5py.Dataset:
    rows = max(1, _CHUNK_BYTES // (8 * max(1, int(np.prod(shape)))))
    return file.create_dataset(
        name,
        (0, *shape),
        dtype,
        maxshape=(None, *shape),
        chunks=(rows, *shape),
        fletcher32=h5py.check_string_dtype(np.dtype(dtype)) is None,  # HDF5 has no checksums for text
    )


def _append(dataset: h5py.Dataset, rows: np.ndarray) -> None:
    start = len(dataset)
    dataset.resize(start + len(rows), axis=0)
    dataset[start:] = rows
