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

    def text_records(self, size: int) -> str:
        """The lines of a file, after their number, each in a record of `size` bytes.

        A record is what C's fgets read: up to size - 1 characters, ended by the newline and NUL.
        """
        count = int(self.read("i4", 1, name="the number of input lines")[0])
        self.require(count > 0, f"the number of input lines is {count}")
        self.claim(count * size, "the input file")
        text = self.stream.read(count * size)
        records = [text[start : start + size] for start in range(0, len(text), size)]
        self.require(all(b"\0" in record for record in records), "a line of the input file has no end")
        lines = [record[: record.index(b"\0")] for record in records]
        # a newline can only be the last character
        self.require(not any(b"\n" in line[:-1] for line in lines), "a line of the input file has two ends")
        return b"".join(lines).decode("utf-8", errors="replace")

    def text_rest(self) -> str:
        """All that is left, which must be text."""
        rest = self.stream.read()
        self.require(b"\0" not in rest, f"{len(rest)} bytes follow the last field and are not text")
        return rest.decode("utf-8", errors="replace")

    def _take(self, kind: str, count: int, name: str) -> np.ndarray:
        stored = np.dtype(self.byte_order + kind)
        flat = np.fromfile(self.stream, stored, count)
        self.require(len(flat) == count, f"the file ended inside {name}")
        return flat.astype(stored.newbyteorder("="), copy=False)
