"""Which device a command computes on."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from deeph_tracegrad.errors import ConfigError, DeviceError
from deeph_tracegrad.parallel import world


def select_device(name: str) -> torch.device:
    """The device that a user means by cpu, cuda, cuda:N or auto (a GPU where there is one).

    Under mpirun the ranks of one machine take its GPUs in turn.

    Raises:
        ConfigError: the name is none of these, or there is no such GPU.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not count):
        return torch.device("cpu")
    if name in ("auto", "cuda") and count:
        return torch.device("cuda", world().local_rank % count)
    if name.startswith("cuda:") and name.removeprefix("cuda:").isdecimal():
        number = int(name.removeprefix("cuda:"))
        if number < count:
            return torch.device("cuda", number)
    if name == "cuda" or name.startswith("cuda:"):
        raise ConfigError(f"device {name}: torch {torch.__version__} sees {count} CUDA devices here; use auto or cpu")
    raise ConfigError(f"device {name}: expected cpu, cuda, cuda:N or auto")


@contextmanager
def enough_memory(advice: str) -> Iterator[None]:
    """Where memory does not suffice, say what to do.

    Raises:
        DeviceError: torch could not allocate what the block needs.
    """
    try:
        yield
    except RuntimeError as error:
        # for a CPU torch has no class of its own
        if not (isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)):
            raise
        raise DeviceError(f"the memory of the device does not suffice; {advice}") from error


def device_name(device: torch.device) -> str:
    """What a user calls it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
