"""Which files or folders the patterns of a command line lead to, and what to call each of them."""

import glob
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from deeph_tracegrad.console import warn
from deeph_tracegrad.errors import ReadError

WILDCARDS = re.compile(r"[*?\[]")

Accepts = Callable[[Path, bool], bool]


@dataclass(frozen=True)
class Found:
    """A file or folder that a pattern leads to. label: its path from the folder that was searched, or its own name."""

    path: Path
    label: str


def search(patterns: Sequence[str], accepts: Accepts, accepted: str) -> list[Found]:
    """What the patterns lead to, each once, in natural order (run2 before run10) for each pattern.

    patterns: things wanted, folders to be searched for some at any depth, or globs of either.
    accepts: whether a path is wanted, told too whether a pattern names it; inside what is wanted nothing is searched.
    accepted: what is wanted, for the message.

    Raises:
        ReadError: a pattern leads to nothing.
    """
    found: dict[Path, Found] = {}
    for pattern in patterns:
        matches = list(_matches(pattern, accepts))
        if not matches:
            raise ReadError(pattern, f"{what_stands_at(Path(pattern))}Accepted are {accepted}")
        for match in matches:
            found.setdefault(match.path.resolve(), match)
    return list(found.values())


def distinct_labels(labels: Sequence[str], paths: Sequence[Path]) -> list[str]:
    """Labels that occur twice get more of their path in front. paths: absolute, one a label."""
    labels = list(labels)
    while twice := {label for label, count in Counter(labels).items() if count > 1}:
        for place, label in enumerate(labels):
            if label in twice:
                parts = min(label.count("/") + 2, len(paths[place].parts))
                labels[place] = "/".join(paths[place].parts[-parts:])
    return labels


def entries(folder: Path) -> list[Path]:
    """What a folder holds, in natural order.

    Raises:
        ReadError: it cannot be listed.
    """
    try:
        return sorted(folder.iterdir(), key=lambda entry: natural(entry.name))
    except OSError as error:
        raise ReadError(folder, f"cannot be listed: {error.strerror or error}") from error


def what_stands_at(path: Path) -> str:
    """A sentence on what is found where something else was wanted."""
    if WILDCARDS.search(str(path)) and not path.exists():
        return "nothing that it matches is or holds one. "
    if not path.exists():
        return "it does not exist. "
    if not path.is_dir():
        return "it is a file; name the folder of the run (predict takes structure files with --basis-dir). "
    names = [entry.name for entry in entries(path)]
    if not names:
        return "it is empty. "
    return f"it holds {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}. "


def natural(name: str) -> list[tuple[bool, int, str]]:
    """A key that sorts run2 before run10."""
    parts = re.split(r"(\d+)", name)
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]


def _matches(pattern: str, accepts: Accepts) -> Iterator[Found]:
    path = Path(pattern)
    if path.exists() or not WILDCARDS.search(pattern):
        yield from _below(path, path, accepts, set(), named=True)
        return
    fixed = next(place for place, part in enumerate(path.parts) if WILDCARDS.search(part))
    base = Path(*path.parts[:fixed])
    for match in sorted(glob.glob(pattern, recursive=True), key=natural):  # noqa: PTH207  Path.glob refuses absolute ones
        yield from _below(Path(match), base, accepts, set(), named=True)


def _below(path: Path, base: Path, accepts: Accepts, seen: set[Path], *, named: bool) -> Iterator[Found]:
    """The path, if it is wanted, or else what is wanted below it. seen: where links must not lead again."""
    try:
        if path.resolve() in seen:
            return
        seen.add(path.resolve())
        wanted = accepts(path, named)
        inside = [] if wanted or not path.is_dir() else entries(path)
    except (ReadError, OSError) as error:
        if path == base:
            raise
        reason = error.reason if isinstance(error, ReadError) else error.strerror
        warn(f"skipped {path}: {reason}")  # such as lost+found, which must not cost what lies beside it
        return
    if wanted:
        yield Found(path, path.resolve().name if path == base else path.relative_to(base).as_posix())
    for entry in inside:
        if not entry.name.startswith("."):
            yield from _below(entry, base, accepts, seen, named=False)
