"""The ranks of a run, started by mpirun, srun or torchrun. Without these there is one rank, and nothing changes."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from deeph_tracegrad.launchers import choose_mpi, launched_by_torchrun, require_company

if TYPE_CHECKING:
    from mpi4py.MPI import Intracomm

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class World:
    """The ranks of this run; this class alone, one rank.

    local_rank: this rank's number among the `local_size` ranks on the same machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this rank speaks to the user and writes shared files."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """The items that this rank works on: every size-th one."""
        return items[self.rank :: self.size]

    def mapped(self, function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """The function of every item, in order, on every rank, while the ranks share the work."""
        shares = self.gather([function(item) for item in self.share(items)])
        return [shares[place % self.size][place // self.size] for place in range(len(items))]

    def streamed(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """On the main rank the function of every item, in order, while the ranks share the work; nothing elsewhere."""
        yield from map(function, items)

    def broadcast(self, value: Any) -> Any:
        """The main rank's value, on every rank."""
        return value

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value in rank order, on every rank."""
        return [value]

    def summed(self, values: np.ndarray) -> np.ndarray:
        """The sum of an array over the ranks, on every rank."""
        return values

    def barrier(self) -> None:
        """Wait for all ranks."""

    def abort(self, code: int) -> None:
        """End every rank when one cannot go on, so that none waits for it."""

    def divided(self, teams: int) -> "World":  # noqa: ARG002
        """The team that this rank belongs to when all ranks divide into some; they all must call it."""
        return self


ALONE = World()


class ConnectedWorld(World, ABC):
    """Ranks that send each other values."""

    @abstractmethod
    def send(self, value: Any) -> None:
        """To the main rank."""

    @abstractmethod
    def receive(self, source: int) -> Any:
        """The next value that a rank sent, on the main rank."""

    @abstractmethod
    def divided(self, teams: int) -> World:
        """The team that this rank belongs to when all ranks divide into some; they all must call it."""

    def streamed(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """On the main rank the function of every item, in order, while the ranks share the work; nothing elsewhere."""
        for place, item in enumerate(items):
            owner = place % self.size
            if owner == self.rank:
                result = function(item)
                if self.is_main:
                    yield result
                else:
                    self.send(result)
            elif self.is_main:
                yield self.receive(owner)


@dataclass(frozen=True)
class MpiWorld(ConnectedWorld):
    """The ranks of an MPI communicator."""

    communicator: "Intracomm | Any" = None

    def send(self, value: Any) -> None:
        """To the main rank."""
        self.communicator.send(value, 0)

    def receive(self, source: int) -> Any:
        """The next value that a rank sent, on the main rank."""
        return self.communicator.recv(source=source)

    def broadcast(self, value: Any) -> Any:
        """The main rank's value, on every rank."""
        return self.communicator.bcast(value)

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value in rank order, on every rank."""
        return self.communicator.allgather(value)

    def summed(self, values: np.ndarray) -> np.ndarray:
        """The sum of an array over the ranks, on every rank."""
        result = np.empty_like(values)
        self.communicator.Allreduce(np.ascontiguousarray(values), result)
        return result

    def barrier(self) -> None:
        """Wait for all ranks."""
        self.communicator.Barrier()

    def divided(self, teams: int) -> World:
        """The team that this rank belongs to when all ranks divide into some; they all must call it."""
        team = self.communicator.Split(team_of(self.rank, self.size, teams), self.rank)
        return MpiWorld(team.Get_rank(), team.Get_size(), communicator=team)

    def abort(self, code: int) -> None:
        """End every rank when one cannot go on, so that none waits for it."""
        if self.size > 1:
            self.communicator.Abort(code)


def team_of(rank: int, ranks: int, teams: int) -> int:
    """The number of the team of a rank; consecutive ranks, as many in each as in the others or one more."""
    return rank * teams // ranks


@cache
def world() -> World:
    """The ranks of this run; MPI, or under torchrun torch, starts at the first call.

    Raises:
        LaunchError: processes that were started together do not find each other.
    """
    if launched_by_torchrun():
        from deeph_tracegrad.torchrun import torch_world

        return torch_world()
    choose_mpi()
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # mpi4py raises RuntimeError where it finds no MPI library
        require_company(str(error).partition("\n")[0])
        return World()
    everyone = MPI.COMM_WORLD
    if everyone.Get_size() == 1:
        require_company(MPI.Get_library_version().partition("\n")[0])
    machine = everyone.Split_type(MPI.COMM_TYPE_SHARED)
    return MpiWorld(everyone.Get_rank(), everyone.Get_size(), machine.Get_rank(), machine.Get_size(), everyone)


@cache
def team(teams: int) -> World:
    """This rank's team, when all ranks divide into so many; they all must call it."""
    everyone = world()
    if teams == 1:
        return everyone
    return everyone.divided(teams) if teams < everyone.size else ALONE
