"""Several ranks that train one network: each has all weights and a share of every batch, and gradients are summed."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed
from torch import Tensor
from torch.distributed import TCPStore, Work

from deeph_tracegrad.config import TrainingSettings
from deeph_tracegrad.devices import select_device
from deeph_tracegrad.errors import ConfigError
from deeph_tracegrad.parallel import world


@dataclass(frozen=True)
class Ranks:
    """The ranks of this training, each with its device."""

    rank: int
    size: int
    device: torch.device

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


@contextmanager
def joined_ranks(settings: TrainingSettings) -> Iterator[Ranks]:
    """The ranks under mpirun, joined in a process group of torch (nccl on GPUs, gloo on CPUs) while the block runs.

    Raises:
        ConfigError: there is no such device, or more ranks on a machine than GPUs.
    """
    ranks = Ranks(world().rank, world().size, select_device(settings.device))
    if settings.threads:
        torch.set_num_threads(settings.threads)
    elif world().local_size > 1:
        torch.set_num_threads(max(1, torch.get_num_threads() // world().local_size))
    if ranks.device.type == "cuda":
        torch.cuda.set_device(ranks.device)
    if ranks.size == 1:
        yield ranks
        return
    if ranks.device.type == "cuda" and world().local_size > torch.cuda.device_count():
        raise ConfigError(
            f"{world().local_size} ranks on a machine with {torch.cuda.device_count()} GPUs: start as many ranks as "
            "GPUs, or set training.device=cpu"
        )
    torch.distributed.init_process_group(
        "nccl" if ranks.device.type == "cuda" else "gloo", store=_store(), rank=ranks.rank, world_size=ranks.size
    )
    try:
        yield ranks
    except KeyboardInterrupt:  # on all ranks alike
        torch.distributed.destroy_process_group()
        raise
    # not after an error: the others would complain of a lost connection before this rank has told its reason
    torch.distributed.destroy_process_group()


def _store() -> TCPStore:
    """Where the ranks find each other: a free port of the main rank's machine, told to the others through MPI."""
    host = "127.0.0.1" if world().local_size == world().size else socket.gethostname()
    if world().is_main:
        # without waiting: the others learn the port only after this
        store = TCPStore(host, 0, world().size, is_master=True, wait_for_workers=False)
        world().broadcast((host, store.port))
        return store
    host, port = world().broadcast(None)
    return TCPStore(host, port, world().size, is_master=False)
