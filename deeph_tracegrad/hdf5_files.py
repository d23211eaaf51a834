"""HDF5 files, read so that a damaged one ends in a ReadError, and written so that a full disk ends in an OSError."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from deeph_tracegrad.errors import MismatchError, ReadError

MAX_COMPRESSION = 1100  # more than what HDF5's filters can reach


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file to read; whatever is wrong with it is a ReadError."""
    if not path.is_file():
        raise ReadError(path, "the file is missing")
    try:
        with h5py.File(path) as file:
            yield file
    except MismatchError as error:
        raise ReadError(path, str(error)) from error
    except KeyError as error:
        raise ReadError(path, f"lacks something that it should have ({error})") from error
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise ReadError(path, f"is no HDF5 file, or a damaged one ({error})") from error


@contextmanager
def new_hdf5(path: Path, *, track_order: bool = False, libver: str | None = None) -> Iterator[h5py.File]:
    """A new HDF5 file to write, which may remember the order of its datasets; libver: as of h5py.

    It is made in memory and takes as much there as on the disk, because the HDF5 library may crash the process where
    the system refuses to write.

    Raises:
        OSError: the system refuses to write: no space, a quota.
    """
    image = io.BytesIO()
    with h5py.File(image, "w", track_order=track_order, libver=libver) as file:
        yield file
    path.write_bytes(image.getbuffer())


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
