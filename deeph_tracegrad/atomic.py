"""Outputs appear whole or not at all: written under a temporary name beside the target, then renamed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deeph_tracegrad.errors import WriteError


@contextmanager
def atomic_path(target: Path | str) -> Iterator[Path]:
    """A temporary path to write a file or folder to; it becomes `target` when the block ends without an exception.

    The temporary name starts with a dot and keeps the target's suffix. A folder that stands at `target` is replaced.

    Raises:
        WriteError: the system refuses: no permission, no space, or something of another kind stands there.
    """
    target = Path(target)
    temporary = target.with_name(f".{target.stem}.{os.getpid()}.part{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if temporary.is_dir() and target.is_dir():
            shutil.rmtree(target)
        temporary.replace(target)
    except OSError as error:
        raise WriteError(f"{target}: cannot be written ({error.strerror or error})") from error
    finally:
        with suppress(OSError):
            if temporary.is_dir():
                shutil.rmtree(temporary)
            else:
                temporary.unlink()


def check_writable(target: Path) -> None:
    """Whether `atomic_path` can be expected to write this file, for the time before a long calculation.

    Raises:
        WriteError: a folder stands there, or its own folder cannot be written or made.
    """
    if target.is_dir():
        raise WriteError(f"{target}: is a folder; give another name")
    nearest = next(parent for parent in target.absolute().parents if parent.exists())
    if not nearest.is_dir():
        raise WriteError(f"{target}: cannot be written, {nearest} is a file")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise WriteError(f"{target}: cannot be written, there is no permission in {nearest}")
