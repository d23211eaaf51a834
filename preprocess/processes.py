"""The same work on many runs, shared by the MPI ranks or else by processes."""

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from deeph_tracegrad.console import progress
from deeph_tracegrad.errors import WorkerError
from deeph_tracegrad.parallel import world

Task = TypeVar("Task")
Result = TypeVar("Result")


def performed(
    work: Callable[[Task], Result], tasks: Sequence[Task], workers: int | None, label: str
) -> Iterator[Result]:
    """The results, in the order of the tasks and the same on every rank.

    workers: processes where there is one rank; by default one a core. label: of the progress bar.

    Raises:
        WorkerError: the system ended a process.
    """
    workers = min(workers or os.cpu_count() or 1, len(tasks))

    def counted(results: Iterable[Result], total: int) -> Iterator[Result]:
        return progress(results, total, label)

    if world().size > 1:
        mine = world().share(tasks)
        parts = world().gather(list(counted(map(work, mine), len(mine))))
        yield from (parts[place % len(parts)][place // len(parts)] for place in range(len(tasks)))
    elif workers > 1:
        # spawn: a fork would copy the threads of MPI and BLAS in an unknown state
        try:
            with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
                yield from counted(pool.map(work, tasks), len(tasks))
        except BrokenProcessPool:
            raise WorkerError(
                "a worker process was killed, most likely for want of memory; start the command again with fewer "
                "--workers"
            ) from None
    else:
        yield from counted(map(work, tasks), len(tasks))
