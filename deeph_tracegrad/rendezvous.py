"""How the ranks of torch.distributed find each other, and who is missing where they do not."""

import re
import socket
import time
from dataclasses import dataclass
from datetime import timedelta

import torch.distributed
from torch.distributed import DistError, PrefixStore, Store, TCPStore

from deeph_tracegrad.errors import LaunchError, LostRankError

JOIN_SECONDS = 300.0
ANSWER_SECONDS = 3.0


@dataclass(frozen=True)
class Meeting:
    """A store that all ranks of a run reach, through which they tell of themselves. port: where it listens."""

    store: Store
    port: int
    rank: int
    size: int

    def join(self, backend: str) -> None:
        """Wait for all ranks and make them torch's process group.

        Raises:
            LaunchError: some did not come, or cannot be reached.
        """
        self.store.set(f"host/{self.rank}", socket.gethostname())
        try:
            self.store.wait([f"host/{rank}" for rank in range(self.size)], timedelta(seconds=JOIN_SECONDS))
        except RuntimeError as error:
            absent = ", ".join(str(rank) for rank in range(self.size) if not self.store.check([f"host/{rank}"]))
            raise LaunchError(
                f"{absent} of the ranks 0 to {self.size - 1} did not come within {JOIN_SECONDS:.0f} s: look for its "
                f"own message, and whether its machine reaches {socket.gethostname()} (a firewall, MASTER_ADDR)"
            ) from error
        try:
            torch.distributed.init_process_group(backend, store=self.store, rank=self.rank, world_size=self.size)
        except RuntimeError as error:
            raise LaunchError(
                f"rank {self.rank} on {socket.gethostname()} cannot connect to all other ranks ({_first_line(error)}): "
                "set GLOO_SOCKET_IFNAME (on GPUs also NCCL_SOCKET_IFNAME) to the network interface that joins the "
                "machines, as `ip address` names it, and let the host names stand for its addresses"
            ) from error

    def loss(self, error: RuntimeError) -> LostRankError | None:
        """What to tell of an error of torch.distributed; None if it is of something else. The others must ask too."""
        if not isinstance(error, DistError) and not re.search(r"gloo|nccl", str(error), re.IGNORECASE):
            return None
        return LostRankError(
            f"{self._silent()} ended, or can no longer be reached, so the others cannot go on: its own message, the "
            f"queue's log or the kernel's (out of memory) may tell why; here, {_first_line(error)}"
        )

    def _silent(self) -> str:
        """The ranks that do not answer when all others do."""
        try:
            self.store.set(f"alive/{self.rank}", "")
            time.sleep(ANSWER_SECONDS)
            silent = [rank for rank in range(self.size) if not self.store.check([f"alive/{rank}"])]
            names = [f"rank {rank} on {self.store.get(f'host/{rank}').decode()}" for rank in silent]
        except RuntimeError:
            names = ["rank 0"]  # the store is its own
        return ", ".join(names) or "a rank"


def connect(host: str, port: int, rank: int, size: int, *, serve: bool, prefix: str = "deeph-tracegrad") -> Meeting:
    """Reach the store at an address, or keep it there.

    port: 0 takes a free one.

    Raises:
        LaunchError: there is no way to it.
    """
    timeout = timedelta(seconds=JOIN_SECONDS)
    try:
        store = TCPStore(host, port, size, is_master=serve, timeout=timeout, wait_for_workers=False)
    except RuntimeError as error:
        trouble = "use" if serve else "reach"
        raise LaunchError(
            f"rank {rank} on {socket.gethostname()} cannot {trouble} {host}:{port}, where the ranks are to meet "
            f"({_first_line(error)}): set MASTER_ADDR to a name or address of the machine of rank 0 that the other "
            "machines reach, and under torchrun MASTER_PORT to a port that is free and that no firewall closes"
        ) from error
    return Meeting(PrefixStore(prefix, store), store.port, rank, size)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(". ")
