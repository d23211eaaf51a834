"""Ranks under torchrun, without MPI: the operations of `parallel.World` over torch.distributed."""

import atexit
import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.distributed

from deeph_tracegrad.parallel import ConnectedWorld, World, team_of
from deeph_tracegrad.rendezvous import Meeting, connect


@dataclass(frozen=True)
class TorchWorld(ConnectedWorld):
    """The ranks of a process group of torch, whose CPU side is gloo; by default of all."""

    meeting: Meeting = field(kw_only=True)
    group: torch.distributed.ProcessGroup | None = None

    def send(self, value: Any) -> None:
        """To the main rank."""
        torch.distributed.send_object_list([value], group=self.group, group_dst=0)

    def receive(self, source: int) -> Any:
        """The next value that a rank sent, on the main rank."""
        box: list[Any] = [None]
        torch.distributed.recv_object_list(box, group=self.group, group_src=source)
        return box[0]

    def broadcast(self, value: Any) -> Any:
        """The main rank's value, on every rank."""
        box = [value]
        torch.distributed.broadcast_object_list(box, group=self.group, group_src=0, device=torch.device("cpu"))
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value in rank order, on every rank."""
        values: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(values, value, self.group)
        return values

    def summed(self, values: np.ndarray) -> np.ndarray:
        """The sum of an array over the ranks, on every rank."""
        total = torch.from_numpy(np.array(values))
        torch.distributed.all_reduce(total, group=self.group)
        return total.numpy()

    def barrier(self) -> None:
        """Wait for all ranks."""
        self.gather(None)

    def divided(self, teams: int) -> World:
        """The team that this rank belongs to when all ranks divide into some; they all must call it."""
        members: list[list[int]] = [[] for _ in range(teams)]
        for rank in range(self.size):
            members[team_of(rank, self.size, teams)].append(rank)
        group, _ = torch.distributed.new_subgroups_by_enumeration(members)
        return TorchWorld(group.rank(), group.size(), meeting=self.meeting, group=group)

    def abort(self, code: int) -> None:
        """Nothing: when a process ends with an error, torchrun ends the others."""


def torch_world() -> TorchWorld:
    """The ranks that torchrun started.

    Raises:
        LaunchError: they do not find each other.
    """
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    meeting = connect(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        rank,
        size,
        serve=rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True",
        prefix=f"deeph-tracegrad/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}",
    )
    meeting.join("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    atexit.register(torch.distributed.destroy_process_group)
    local_rank, local_size = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    return TorchWorld(rank, size, local_rank, local_size, meeting=meeting)
