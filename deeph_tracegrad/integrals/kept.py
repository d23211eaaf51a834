"""Arrays that take a second to make and are made of the same files again and again: kept in the user's cache folder."""

import hashlib
import io
from collections.abc import Callable
from contextlib import suppress

import numpy as np

from deeph_tracegrad.atomic import atomic_path
from deeph_tracegrad.cache_folder import cache_folder
from deeph_tracegrad.errors import WriteError

_DIGEST = hashlib.sha256().digest_size


def kept(name: str, make: Callable[[], np.ndarray]) -> np.ndarray:
    """The array of this name, which must tell everything that it depends on; made if it is not there or damaged.

    The file holds a checksum and then the array as NumPy writes it.
    """
    folder = cache_folder()
    if folder is None:
        return make()
    path = folder / "integrals" / f"{name}.array"
    with suppress(OSError):
        content = path.read_bytes()
        if content[:_DIGEST] == hashlib.sha256(content[_DIGEST:]).digest():
            return np.load(io.BytesIO(content[_DIGEST:]), allow_pickle=False)
    array = make()
    written = io.BytesIO()
    np.save(written, array, allow_pickle=False)
    with suppress(WriteError), atomic_path(path) as temporary:  # a full disk costs time only
        temporary.write_bytes(hashlib.sha256(written.getvalue()).digest() + written.getvalue())
    return array
