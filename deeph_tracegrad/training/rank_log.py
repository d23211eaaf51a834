"""What each rank tells of itself, in a file of its own: where it runs, what it does and waits for, warnings, faults."""

import re
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.parallel import world

Item = TypeVar("Item")

_START_OR_FAULT = re.compile(r"^\d{4}-\d\d-\d\dT\S+ (started|failed): (.*)$", re.MULTILINE)


class RankLog:
    """The log of this rank in a folder; lines begin with the time, UTC, and are added to those of earlier runs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def started(self, text: str) -> None:
        """The first line of a run."""
        self.say(f"started: {text}")

    def say(self, text: str) -> None:
        """Another line."""
        self._folder.mkdir(exist_ok=True)
        with (self._folder / f"rank_{world().rank}.log").open("a", encoding="utf-8") as file:
            file.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {text}\n")

    def failed(self, error: Exception) -> None:
        """What ended this rank, with its traceback."""
        self.say(f"failed: {describe(error)}\n{''.join(traceback.format_exception(error)).rstrip()}")


@dataclass
class Interval:
    """What this rank did between two validations.

    edges: of its shares. seconds: that these took; samples, ranks: of these, waiting for samples to be read, and for
    other ranks where errors and gradients are summed.
    """

    edges: int = 0
    seconds: float = 0.0
    samples: float = 0.0
    ranks: float = 0.0

    def describe(self) -> str:
        """For the log."""
        return (
            f"{self.edges} edges in {self.seconds:.1f} s, of which {self.samples:.1f} s waiting for samples and "
            f"{self.ranks:.1f} s for other ranks"
        )

    def awaited(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items; the time until each comes is counted."""
        start = time.perf_counter()
        for item in items:
            self.samples += time.perf_counter() - start
            yield item
            start = time.perf_counter()

    @contextmanager
    def meeting(self) -> Iterator[None]:
        """Count the time of the block as waiting for other ranks."""
        start = time.perf_counter()
        yield
        self.ranks += time.perf_counter() - start


def describe(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {error}"


def faults_of_last_run(folder: Path) -> dict[str, list[int]]:
    """What ended ranks since they last started, and which ranks it ended.

    Raises:
        ReadError: a log is no text.
    """
    faults: dict[str, list[int]] = {}
    for path in folder.glob("rank_*.log"):
        try:
            found = _START_OR_FAULT.findall(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise ReadError(path, f"damaged log ({error})") from error
        number = path.stem.removeprefix("rank_")
        if found and found[-1][0] == "failed" and number.isdecimal():
            faults.setdefault(found[-1][1], []).append(int(number))
    return faults
