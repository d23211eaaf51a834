"""Files that torch wrote, read so that they run no code and that damage is noticed."""

import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from deeph_tracegrad.errors import ReadError

_ZIP_START = b"PK\x03\x04"


def read_torch_file(path: Path, kind: str) -> Any:
    """What the file holds: tensors, numbers, text, and containers of them.

    kind: what it should be, for messages, such as `checkpoint of deeph-tracegrad`.

    Raises:
        ReadError: it is missing, something else, cut off or damaged, or holds what could run code.
    """
    if not path.is_file():
        raise ReadError(path, f"no such {kind}")
    try:
        with path.open("rb") as file:
            start = file.read(len(_ZIP_START))
    except OSError as error:
        raise ReadError(path, f"cannot be opened: {error.strerror or error}") from error
    if not zipfile.is_zipfile(path):
        raise ReadError(path, f"damaged {kind}: its end is missing" if start == _ZIP_START else f"no {kind}")
    try:
        with zipfile.ZipFile(path) as archive:  # torch writes checksums, but does not read them
            damaged = archive.testzip()
        content = None if damaged else torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise ReadError(path, f"no {kind}: it holds objects that could run code, so it was not loaded") from error
    except Exception as error:  # zipfile and torch raise a dozen kinds for a file that is damaged or something else
        raise ReadError(path, f"no {kind}, or a damaged one") from error
    if damaged:
        raise ReadError(path, f"damaged {kind}: {damaged} in it does not have its checksum")
    return content
