"""What the user sees while a command runs: lines and progress bars, from the main rank only."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from deeph_tracegrad.parallel import world

Item = TypeVar("Item")

out = Console(highlight=False, soft_wrap=True)
_bars: list[Progress] = []  # those that are shown
_hearers: list[Callable[[str], None]] = []  # of warnings
errors = Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str = "") -> None:
    """Print one line of results on the main rank; square brackets are text, not markup."""
    if world().is_main:
        out.print(text, markup=False)


def warn(text: str) -> None:
    """Print a warning to standard error, from whichever rank meets it."""
    errors.print(f"warning: {text}", markup=False, style="yellow")
    for hearer in _hearers:
        hearer(text)


@contextmanager
def warnings_heard(hearer: Callable[[str], None]) -> Iterator[None]:
    """Give the warnings also to a function while the block runs."""
    _hearers.append(hearer)
    try:
        yield
    finally:
        _hearers.remove(hearer)


def count(number: int, noun: str) -> str:
    """A number with its noun: 1 run, 2 runs."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def progress(items: Iterable[Item], total: int, label: str) -> Iterator[Item]:
    """The items, with a bar that shows count, elapsed and remaining time: main rank and terminal only."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    visible = world().is_main and errors.is_terminal
    with Progress(*columns, console=errors, disable=not visible, transient=True, speed_estimate_period=math.inf) as bar:
        _bars.append(bar)
        task = bar.add_task(label, total=total)
        bar.advance(task, 0)  # a start for the speed, so that the first item gives the time left
        try:
            yield from bar.track(items, total=total, task_id=task)
        finally:
            _bars.remove(bar)


def clear_bars() -> None:
    """Take away bars whose items an exception left; what is printed then would else vanish with them."""
    for bar in _bars:
        bar.stop()
