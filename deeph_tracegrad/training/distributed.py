"""Several ranks that train one network: each has all weights and a share of every batch, and gradients are summed.

A share is some structures of the batch, or, where ranks work in groups, a part of the edges of some structures.
"""

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed import ProcessGroup, Work

from deeph_tracegrad.config import Config
from deeph_tracegrad.console import count
from deeph_tracegrad.devices import select_device
from deeph_tracegrad.errors import ConfigError, LaunchError, PreemptionError
from deeph_tracegrad.parallel import world
from deeph_tracegrad.rendezvous import Meeting, connect
from deeph_tracegrad.torchrun import TorchWorld
from deeph_tracegrad.training.batches import share


@dataclass(frozen=True)
class Ranks:
    """The ranks of this training, each with its device. meeting: None where there is one rank.

    parts: the size of the groups of consecutive ranks that share each structure; group: this rank's, if there are any.
    """

    rank: int
    size: int
    device: torch.device
    meeting: Meeting | None = None
    parts: int = 1
    group: ProcessGroup | None = None

    @property
    def part(self) -> int:
        """Which part of a structure this rank has."""
        return self.rank % self.parts

    def describe(self) -> str:
        """How many there are."""
        groups = f" in groups of {self.parts}" if self.parts > 1 else ""
        return f"{count(self.size, 'rank')}{groups}"

    def share(self, batch: Sequence[int], edge_counts: np.ndarray) -> list[int]:
        """The samples of a batch that this rank, or its group, computes."""
        return share(batch, edge_counts, self.rank // self.parts, self.size // self.parts)

    def group_sum(self, values: Tensor) -> Tensor:
        """The sum over this rank's group, on every rank of it; the gradient is the sum of their gradients."""
        return values if self.group is None else _GroupSum.apply(values, self.group)

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all ranks, on every rank, in place."""
        if self.size > 1:
            torch.distributed.all_reduce(values)
        return values

    def begin_sum(self, values: Tensor) -> Work:
        """The same, but goes on beside what follows; `values` are whole after the `wait` of what it returns."""
        return torch.distributed.all_reduce(values, async_op=True)

    def of_main(self, values: Tensor) -> Tensor:
        """The main rank's values, on every rank, in place."""
        if self.size > 1:
            torch.distributed.broadcast(values, 0)
        return values


class _GroupSum(torch.autograd.Function):
    """Each rank differentiates its own copy of what follows, so the gradient of a term is that of all copies."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group = group
        return _summed(values, group)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _summed(gradient, ctx.group), None


def _summed(values: Tensor, group: ProcessGroup) -> Tensor:
    total = values.clone(memory_format=torch.contiguous_format)
    torch.distributed.all_reduce(total, group=group)
    return total


@contextmanager
def joined_ranks(config: Config) -> Iterator[Ranks]:
    """The ranks of this run, joined in a process group of torch (nccl on GPUs, gloo on CPUs) while the block runs.

    Raises:
        ConfigError: there is no such device, more ranks on a machine than GPUs, or ranks that make no whole groups.
        LaunchError: the ranks do not find or reach each other.
    """
    settings, parts = config.training, config.parallel.graph
    if world().size % parts:
        raise ConfigError(
            f"parallel.graph = {parts} needs a multiple of {parts} ranks, and there {_are(world().size)}: start "
            f"{-(-world().size // parts) * parts}, or set parallel.graph=1"
        )
    device = select_device(settings.device)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    elif world().local_size > 1:
        torch.set_num_threads(max(1, torch.get_num_threads() // world().local_size))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world().size == 1:
        yield Ranks(0, 1, device)
        return
    if device.type == "cuda":
        _require_own_gpu(device)
    meeting = _joined("nccl" if device.type == "cuda" else "gloo")
    try:
        group = torch.distributed.new_subgroups(parts)[0] if parts > 1 else None
        yield Ranks(world().rank, world().size, device, meeting, parts, group)
    except (KeyboardInterrupt, PreemptionError):  # on all ranks alike
        _leave()
        raise
    # not after an error: the others would complain of a lost connection before this rank has told its reason
    _leave()


@contextmanager
def lost_ranks_named(ranks: Ranks) -> Iterator[None]:
    """Say which rank is gone where torch says that a connection is.

    Raises:
        LostRankError: one ended while the block ran.
    """
    try:
        yield
    except RuntimeError as error:
        if ranks.meeting and (loss := ranks.meeting.loss(error)):
            raise loss from error
        raise


def _joined(backend: str) -> Meeting:
    """Join torch's process group; the main rank tells the others through MPI where. Under torchrun it is there."""
    ranks = world()
    if isinstance(ranks, TorchWorld):
        return ranks.meeting
    if ranks.is_main:
        host = _address()
        meeting = connect(host, 0, ranks.rank, ranks.size, serve=True)
        ranks.broadcast((host, meeting.port))
    else:
        host, port = ranks.broadcast(None)
        meeting = connect(host, port, ranks.rank, ranks.size, serve=False)
    meeting.join(backend)
    return meeting


def _require_own_gpu(device: torch.device) -> None:
    """Refuse two ranks on one GPU; by its identity, since a queue may show each rank only its own, as number 0."""
    cards = world().gather((socket.gethostname(), str(torch.cuda.get_device_properties(device).uuid)))
    if len(set(cards)) < len(cards):
        raise ConfigError(
            f"{len(cards)} ranks share {len(set(cards))} GPUs: start one rank a GPU, or set training.device=cpu"
        )


def _are(ranks: int) -> str:
    return "is 1" if ranks == 1 else f"are {ranks}"


def _leave() -> None:
    if not isinstance(world(), TorchWorld):
        torch.distributed.destroy_process_group()


def _address() -> str:
    """Where the other ranks reach the main rank's machine.

    Raises:
        LaunchError: its name leads other machines to themselves, or nowhere.
    """
    if world().local_size == world().size:
        return "127.0.0.1"
    if "MASTER_ADDR" in os.environ:
        return os.environ["MASTER_ADDR"]
    name = socket.gethostname()
    try:
        addresses = {str(entry[4][0]) for entry in socket.getaddrinfo(name, None)}
    except OSError:
        addresses = set()
    if all(address == "::1" or address.startswith("127.") for address in addresses):
        raise LaunchError(
            f"the host name {name} of rank 0 stands for {', '.join(sorted(addresses)) or 'no address'}, where other "
            "machines do not reach it: set MASTER_ADDR to an address that they reach (of the interface that joins "
            "them, as `ip address` shows it), or mend /etc/hosts"
        )
    return name
