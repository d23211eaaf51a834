"""Arrays that take a second to make and are made of the same files again and again: kept in the user's cache folder."""

import zipfile
from collections.abc import Callable
from contextlib import suppress

import numpy as np

from deeph_tracegrad.atomic import atomic_path
from deeph_tracegrad.cache_folder import cache_folder
from deeph_tracegrad.errors import WriteError


def kept(name: str, make: Callable[[], np.ndarray]) -> np.ndarray:
    """The array of this name, which must tell everything that it depends on; made if it is not there or damaged."""
    folder = cache_folder()
    if folder is None:
        return make()
    path = folder / "integrals" / f"{name}.npz"
    with (
        suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile),
        np.load(path, allow_pickle=False) as file,
    ):
        return file["array"]
    array = make()
    with suppress(WriteError), atomic_path(path) as temporary:  # a full disk costs time only
        np.savez(temporary, array=array)
    return array
