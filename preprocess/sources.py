"""Runs with the state of their files, and how they are divided into shards."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from deeph_tracegrad.preprocess.runs import Run

# An interruption costs a worker the shard that it writes: so many runs, and more while their files are small, since
# a dataset of few files is opened and read faster.
_RUNS = 32
_MOST_RUNS = 1024
_BYTES = 1 << 28


@dataclass(frozen=True)
class Source:
    """A run as it was found.

    path: absolute. modified: newest modification time of its files, ns; a run that changed is read again.
    size: bytes of its files.
    """

    run: Run
    path: str
    modified: int
    size: int


def sources_of(runs: Sequence[Run]) -> list[Source]:
    """The runs with the state of their files; a folder that holds several is looked at once."""
    states = {folder: _state(folder) for folder in dict.fromkeys(run.folder for run in runs)}
    return [Source(run, str(run.path.resolve()), *states[run.folder]) for run in runs]


def divided(sources: Sequence[Source], workers: int) -> list[tuple[Source, ...]]:
    """What goes into a shard each: consecutive runs, so few that every worker gets some."""
    most = max(1, min(_MOST_RUNS, len(sources) // (4 * workers)))
    tasks: list[list[Source]] = []
    size = 0
    for source in sources:
        if not tasks or len(tasks[-1]) >= most or (len(tasks[-1]) >= _RUNS and size >= _BYTES):
            tasks.append([])
            size = 0
        tasks[-1].append(source)
        size += source.size
    return list(map(tuple, tasks))


def shard_name(sources: Sequence[Source]) -> str:
    """The same for the same, unchanged runs."""
    return sha256("\n".join(f"{source.path} {source.modified}" for source in sources).encode()).hexdigest()[:16]


def _state(folder: Path) -> tuple[int, int]:
    """Newest modification time of the files in a folder, ns, and their bytes; or of one file."""
    files = folder.rglob("*") if folder.is_dir() else [folder]
    states = [file.stat() for file in files if file.is_file()]
    return max((state.st_mtime_ns for state in states), default=0), sum(state.st_size for state in states)
