"""Results of a long calculation, kept in a folder beside its output until that is written.

One that was interrupted goes on from them. A file holds what one rank finished in some time: a line with the checksum
of the rest, then JSON, a list of results. Each has its kind, its origin (all that decides it) and its content. Files
are named after their checksum, so ranks never write to the same one, and their number may change.
"""

import hashlib
import json
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from deeph_tracegrad.atomic import atomic_path
from deeph_tracegrad.console import count, say, warn
from deeph_tracegrad.errors import InterruptionError, ReadError, WriteError
from deeph_tracegrad.material import Material
from deeph_tracegrad.parallel import world

KEEP_SECONDS = 10.0  # of work that are worth a file; what takes less leaves none
FORMAT = "deeph-tracegrad kept results, format 1, checksum "
PREFIX = "results-"

Origin = Mapping[str, str]


class KeptResults:
    """What an interrupted calculation left in a folder, and what this one adds; without a folder nothing is kept."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._started = self._saved = time.monotonic()
        self._pending: list[dict[str, Any]] = []
        self._asked: list[tuple[str, Origin]] = []
        self._writable = folder is not None

    def find(self, kind: str, origin: Origin) -> list[Any]:
        """Contents of this kind and origin, the same on every rank; all ranks must call it together."""
        self._asked.append((kind, origin))
        return [one["content"] for one in self._left if (one["kind"], one["origin"]) == (kind, origin)]

    def explain_unused(self, kind: str, origin: Origin) -> None:
        """Say why results of this kind that earlier calculations left are not those of this origin."""
        others = [
            one["origin"] for one in self._left if one["kind"] == kind and (kind, one["origin"]) not in self._asked
        ]
        changed = {key for other in others for key in {*origin, *other} if origin.get(key) != other.get(key)}
        if others:
            what = ", another ".join(sorted(changed))
            say(f"not used      {count(len(others), kind)} in {self.folder}: another {what}")

    def add(self, kind: str, origin: Origin, content: Any) -> None:
        """Keep a result, JSON, when the next file is due."""
        if not self._writable:
            return
        self._pending.append({"kind": kind, "origin": dict(origin), "content": content})
        if time.monotonic() - self._saved >= KEEP_SECONDS:
            self.save()

    def save(self) -> None:
        """Write what is pending, unless the calculation has only begun. A full disk costs the file alone."""
        if self.folder is None or not self._pending or time.monotonic() - self._started < KEEP_SECONDS:
            return
        try:
            write_results(self.folder, self._pending)
        except WriteError as error:
            warn(f"{error}; finished results are not kept from here on")
            self._writable = False
        self._pending, self._saved = [], time.monotonic()

    def remove(self) -> None:
        """Take the folder away with all that was kept in it."""
        if self.folder is None or not world().is_main:
            return
        with suppress(OSError):
            for file in self.folder.iterdir():
                if PREFIX in file.name:  # also what was left of one that was being written
                    file.unlink()
            self.folder.rmdir()

    @property
    def advice(self) -> str:
        """How to go on after an interruption."""
        if self.folder is None or not any(self.folder.glob(f"{PREFIX}*")):
            return "interrupted; nothing was finished that is worth keeping"
        return f"interrupted; what was finished is kept in {self.folder}, and the same command goes on from there"

    @cached_property
    def _left(self) -> list[dict[str, Any]]:
        """What earlier calculations left."""
        results = []
        for file in sorted(self.folder.glob(f"{PREFIX}*.json")) if self.folder is not None and world().is_main else ():
            try:
                results += read_results(file)
            except ReadError as error:
                warn(f"{error}; it is not used")
        return world().broadcast(results)


@contextmanager
def kept_results(folder: Path) -> Iterator[KeptResults]:
    """Results that are kept in a folder if the block ends early; when it ends well, the folder goes.

    Raises:
        InterruptionError: Ctrl-C, or SIGTERM (the end of a queue's time), came while the block ran.
    """
    kept = KeptResults(folder)
    with _sigterm_as_ctrl_c():
        try:
            yield kept
        except KeyboardInterrupt:
            kept.save()
            raise InterruptionError(kept.advice) from None
        except Exception:
            kept.save()
            raise
    kept.remove()


def write_results(folder: Path, results: list[dict[str, Any]]) -> None:
    """Add a file to a folder of kept results.

    Raises:
        WriteError: the system refuses.
    """
    body = json.dumps(results).encode()
    checksum = _checksum(body)
    with atomic_path(folder / f"{PREFIX}{checksum}.json") as temporary:
        temporary.write_bytes(f"{FORMAT}{checksum}\n".encode() + body)


def read_results(path: Path) -> list[dict[str, Any]]:
    """The results in a file of `write_results`.

    Raises:
        ReadError: it cannot be read, is damaged, or of another version.
    """
    try:
        header, _, body = path.read_bytes().partition(b"\n")
    except OSError as error:
        raise ReadError(path, f"cannot be read ({error.strerror or error})") from error
    if header != f"{FORMAT}{_checksum(body)}".encode():
        raise ReadError(path, "is damaged, or was kept by another version")
    return json.loads(body)


def fingerprint(material: Material) -> str:
    """What identifies all of a material that bands and the Fermi level depend on."""
    matrices = [matrix for matrix in (*material.hamiltonian, material.overlap) if matrix is not None]
    arrays = [material.structure.lattice.matrix, material.structure.frac_coords]
    arrays += [array for matrix in matrices for array in (matrix.pairs, matrix.sizes, matrix.entries)]
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    digest.update(repr((material.elements, str(material.spin), material.electrons, material.fermi_level)).encode())
    return digest.hexdigest()


def _checksum(body: bytes) -> str:
    return hashlib.blake2b(body, digest_size=16).hexdigest()


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  a handler's signature
        raise KeyboardInterrupt

    earlier = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)
