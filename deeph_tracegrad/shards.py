"""Files that hold samples: one HDF5 file a shard, arrays of all its samples end to end.

`docs/formats.md` has the layout. Shape letters: n samples, N atoms, E edges, B flat block entries, C spin channels.
"""

import json
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Lock
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

# A chunk is read whole for its checksum: the rows of about one sample, but no fewer bytes and no more than these.
_SMALLEST_CHUNK, _LARGEST_CHUNK = 1 << 13, 1 << 18
_DATASETS = (
    "sample/label",
    "sample/metadata",
    "sample/cell",
    "sample/pointer",
    "atom/atomic_number",
    "atom/position",
    "edge/pair",
    "edge/frame",
    "block/hamiltonian",
)


class ShardWriter:
    """Appends samples to an open shard, one at a time."""

    def __init__(self, file: h5py.File, spin: SpinMode) -> None:
        self._file = file
        self._datasets: dict[str, h5py.Dataset] = {}
        self._block_dtype = block_dtype(spin)
        file.attrs.update(format=FORMAT, format_version=FORMAT_VERSION, spin=str(spin))
        self._ends = np.zeros((1, 3), dtype=np.int64)
        self._append("sample/pointer", self._ends)

    def append(self, sample: Sample) -> None:
        """Add one sample.

        Raises:
            MismatchError: it is not labelled.
        """
        if sample.blocks is None:
            raise MismatchError(f"{sample.label} has no Hamiltonian to store")
        text = h5py.string_dtype()
        self._append("sample/label", np.array([sample.label], dtype=text))
        self._append("sample/metadata", np.array([json.dumps(sample.metadata)], dtype=text))
        self._append("sample/cell", sample.cell[None].astype(np.float64))
        self._append("atom/atomic_number", sample.atomic_numbers.astype(np.int16))
        self._append("atom/position", sample.positions.astype(np.float64))
        self._append("edge/pair", sample.pairs.astype(np.int32))
        self._append("edge/frame", sample.frames.astype(np.float64))
        self._append("block/hamiltonian", sample.blocks.T.astype(self._block_dtype))
        self._ends += [len(sample.positions), len(sample.pairs), sample.blocks.shape[1]]
        self._append("sample/pointer", self._ends)

    def describe(self, index: dict[str, Any]) -> None:
        """Store the index of the shard's samples with it, from which an interrupted preprocess goes on."""
        self._file.attrs["index"] = json.dumps(index)

    def _append(self, name: str, rows: np.ndarray) -> None:
        dataset = self._datasets.get(name)
        if dataset is None:
            self._datasets[name] = self._file.create_dataset(
                name,
                data=rows,
                maxshape=(None, *rows.shape[1:]),
                chunks=(_chunk_rows(rows), *rows.shape[1:]),
                fletcher32=h5py.check_string_dtype(rows.dtype) is None,  # HDF5 has no checksums for text
            )
            return
        start = len(dataset)
        dataset.resize(start + len(rows), axis=0)
        dataset[start:] = rows


@contextmanager
def write_shard(path: Path, spin: SpinMode) -> Iterator[ShardWriter]:
    """A shard that appears under its name when the block ends, or not at all."""
    # from HDF5 1.10 on the tables of the chunks carry checksums too
    with atomic_path(path) as temporary, new_hdf5(temporary, libver="v110") as file:
        yield ShardWriter(file, spin)


class Shard:
    """A shard open for reading, until it is closed.

    Raises:
        ReadError: the file is damaged, or no shard, or of a newer format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with _damage_told(path), ExitStack() as stack:
            # without a cache of chunks, which many open shards would fill with what is not read again
            self._file = stack.enter_context(h5py.File(path, "r", rdcc_nbytes=0, rdcc_nslots=1))
            attributes = self._file.attrs
            check_format(path, attributes.get("format"), attributes.get("format_version"), FORMAT, FORMAT_VERSION)
            self._datasets = {name: self._file[name] for name in _DATASETS}
            stack.pop_all()

    def close(self) -> None:
        """Nothing can be read afterwards."""
        self._file.close()

    @property
    def index(self) -> dict[str, Any]:
        """What the writer told about the samples."""
        with _damage_told(self.path):
            return dict(json.loads(self._file.attrs["index"]))

    def sample(self, place: int, *, described: bool = True) -> Sample:
        """The sample at one place.

        described: with label and metadata; they take HDF5 as long as half of the arrays.

        Raises:
            ReadError: the file is damaged, or has no such place.
        """
        with _damage_told(self.path):
            (atom, edge, entry), (atom_end, edge_end, entry_end) = self._rows("sample/pointer", place, place + 2)
            positions = self._rows("atom/position", atom, atom_end)
            (cell,) = self._rows("sample/cell", place, place + 1)
            pairs = self._rows("edge/pair", edge, edge_end)
            return Sample(
                label=self._datasets["sample/label"].asstr()[place] if described else "",
                atomic_numbers=self._rows("atom/atomic_number", atom, atom_end).astype(np.int64),
                positions=positions,
                cell=cell,
                pairs=pairs,
                vectors=pair_vectors(positions, cell, pairs),
                frames=self._rows("edge/frame", edge, edge_end),
                blocks=np.ascontiguousarray(self._rows("block/hamiltonian", entry, entry_end).T),
                metadata=json.loads(self._datasets["sample/metadata"].asstr()[place]) if described else {},
            )

    def _rows(self, name: str, start: int, end: int) -> np.ndarray:
        rows: np.ndarray = self._datasets[name][start:end]
        if len(rows) != end - start:
            raise ValueError(f"{name} has no rows {start} to {end}")
        return rows


class OpenShards:
    """The shards of a folder; those that were read last stay open, since opening one takes longer than a sample."""

    LIMIT = 128
    """How many stay open: few against the 1024 files that systems allow a process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shards: OrderedDict[str, Shard] = OrderedDict()  # the one read last at the end
        self._lock = Lock()

    def __reduce__(self) -> "tuple[type[OpenShards], tuple[Path]]":
        """Another process opens them for itself."""
        return OpenShards, (self._folder,)

    def sample(self, shard: str, place: int, *, described: bool = True) -> Sample:
        """The sample at one place of a shard; described: with label and metadata.

        Raises:
            ReadError: the shard is damaged, missing, no shard, or of a newer format.
        """
        with self._lock:
            reader = self._shards.pop(shard, None) or Shard(self._folder / shard)
            try:
                sample = reader.sample(place, described=described)
            except ReadError:
                reader.close()  # HDF5 would give a mended file's reader what it knows of this one
                raise
            self._shards[shard] = reader
            if len(self._shards) > self.LIMIT:
                self._shards.popitem(last=False)  # `close` would look through the objects of all open files
            return sample


def check_format(path: Path, found: Any, version: Any, expected: str, newest: int) -> None:
    """Refuse a file of another kind or from a newer program.

    Raises:
        ReadError: naming both.
    """
    if found != expected:
        raise ReadError(path, f"not a {expected}; its format entry is {found!r}")
    if not isinstance(version, int | np.integer) or version > newest:
        raise ReadError(path, f"{expected} of format version {version}; this program reads up to {newest}: update it")


@contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    """Whatever HDF5 and h5py find wrong with a shard, as a ReadError."""
    try:
        yield
    except (OSError, LookupError, ValueError, RuntimeError, TypeError, AttributeError) as error:
        raise ReadError(path, f"damaged shard ({error}); delete it and run preprocess again") from error


def _chunk_rows(rows: np.ndarray) -> int:
    """How many rows are read in one go, from those of the first sample."""
    row = rows.dtype.itemsize * int(np.prod(rows.shape[1:]))
    return max(1, min(max(len(rows), _SMALLEST_CHUNK // row), _LARGEST_CHUNK // row))
