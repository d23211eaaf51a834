"""A binary file taken field by field, never more of it than it still holds."""

import os
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np

from deeph_tracegrad.errors import ReadError

MAX_LENGTH_BOHR = 1e6


class BinaryFields:
    """The fields of a `.scfout`, one after another. left: the bytes not taken yet."""

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        self.stream, self.path = stream, path
        self.left = os.fstat(stream.fileno()).st_size
        self.byte_order = "<"

    def require(self, holds: bool | np.bool_, reason: str) -> None:
        """Refuse the file unless the condition holds.

        Raises:
            ReadError: it does not hold.
        """
        if not holds:
            raise ReadError(self.path, f"{reason}; the file is damaged or not an OpenMX .scfout")

    def claim(self, size: int, name: str) -> None:
        """Take `size` bytes off what is left."""
        self.require(size <= self.left, f"{name} would take {size} bytes where only {self.left} are left")
        self.left -= size

    def read(self, kind: str, *shape: int, name: str) -> np.ndarray:
        """The next array, in native byte order; kind: `i4` or `f8`."""
        self.claim(prod(shape) * np.dtype(kind).itemsize, name)
        return self._take(kind, prod(shape), name).reshape(shape)

    def vectors(self, count: int, name: str) -> np.ndarray:
        """The next (count, 3) lengths, which the file keeps as (count, 4) with an unset first column."""
        vectors = self.read("f8", count, 4, name=name)[:, 1:]
        self.require((np.abs(vectors) < MAX_LENGTH_BOHR).all(), f"{name} are not finite lengths")
        return vectors

    def pick(self, places: np.ndarray, count: int, name: str) -> np.ndarray:
        """Only these of the next `count` doubles; places: (K,) int. The others are not read."""
        size = np.dtype("f8").itemsize
        self.claim(count * size, name)
        begin, picked = self.stream.tell(), np.empty(len(places))
        for number, place in enumerate(places.tolist()):
            self.stream.seek(begin + place * size)
            picked[number] = self._take("f8", 1, name)[0]
        self.stream.seek(begin + count * size)
        return picked

    def skip(self, size: int, name: str) -> None:
        """Pass over the next `size` bytes."""
        self.claim(size, name)
        self.stream.seek(size, os.SEEK_CUR)

    def _take(self, kind: str, count: int, name: str) -> np.ndarray:
        stored = np.dtype(self.byte_order + kind)
        flat = np.fromfile(self.stream, stored, count)
        self.require(len(flat) == count, f"the file ended inside {name}")
        return flat.astype(stored.newbyteorder("="), copy=False)
