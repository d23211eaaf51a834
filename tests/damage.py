"""How a reader takes a damaged input: it refuses with its own error, naming the path, within a second of work."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from deeph_tracegrad.errors import ReadError


def outcome(reader: Callable[[Path], Any], path: Path) -> Any:
    """None if the reader refused, as it should, naming the path or a file in it; else what it read."""
    start, result, error = time.process_time(), None, None
    try:
        result = reader(path)
    except ReadError as caught:
        error = caught
    assert time.process_time() - start < 1.0
    if error is not None:
        assert path in (error.path, *error.path.parents)
        assert str(error.path) in str(error)
    return result


def cut(whole: bytes, seed: int, count: int = 200) -> Iterator[bytes]:
    """The file cut off at random places."""
    for length in np.random.default_rng(seed).integers(len(whole), size=count):
        yield whole[:length]


def flipped(whole: bytes, seed: int, count: int = 200) -> Iterator[bytes]:
    """The file with one random bit flipped."""
    rng = np.random.default_rng(seed)
    for place, bit in zip(rng.integers(len(whole), size=count), rng.integers(8, size=count), strict=True):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << bit
        yield bytes(damaged)
