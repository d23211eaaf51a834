"""Ranks under mpirun. Without mpirun, or where no MPI library can be loaded, there is one rank and nothing changes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from mpi4py.MPI import Intracomm

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class World:
    """The ranks of this run.

    local_rank: this rank's number among the `local_size` ranks on the same machine.
    communicator: None where MPI is not to be had.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    communicator: "Intracomm | None" = None

    @property
    def is_main(self) -> bool:
        """Whether this rank speaks to the user and writes shared files."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """The items that this rank works on: every size-th one."""
        return items[self.rank :: self.size]

    def streamed(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """On the main rank the function of every item, in order, while the ranks share the work; nothing elsewhere."""
        for place, item in enumerate(items):
            owner = place % self.size
            if owner == self.rank:
                result = function(item)
                if self.is_main:
                    yield result
                elif self.communicator is not None:
                    self.communicator.send(result, 0, place)
            elif self.is_main and self.communicator is not None:
                yield self.communicator.recv(source=owner, tag=place)

    def broadcast(self, value: Any) -> Any:
        """The main rank's value, on every rank."""
        return value if self.communicator is None else self.communicator.bcast(value)

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value in rank order, on every rank."""
        return [value] if self.communicator is None else self.communicator.allgather(value)

    def summed(self, values: np.ndarray) -> np.ndarray:
        """The sum of an array over the ranks, on every rank."""
        if self.communicator is None:
            return values
        result = np.empty_like(values)
        self.communicator.Allreduce(np.ascontiguousarray(values), result)
        return result

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.communicator is not None:
            self.communicator.Barrier()

    def abort(self, code: int) -> None:
        """End every rank when one cannot go on, so that none waits for it."""
        if self.communicator is not None and self.size > 1:
            self.communicator.Abort(code)


@cache
def world() -> World:
    """The ranks of this run; MPI starts at the first call."""
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError):  # mpi4py raises RuntimeError where it finds no MPI library
        return World()
    everyone = MPI.COMM_WORLD
    machine = everyone.Split_type(MPI.COMM_TYPE_SHARED)
    return World(everyone.Get_rank(), everyone.Get_size(), machine.Get_rank(), machine.Get_size(), everyone)
