"""Names of devices."""

import pytest
import torch

from deeph_tracegrad.devices import enough_memory, select_device
from deeph_tracegrad.errors import ConfigError, DeviceError


def test_cpu() -> None:
    assert select_device("cpu") == torch.device("cpu")


def test_auto_takes_a_gpu_where_there_is_one() -> None:
    assert select_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "", "cuda:99"])
def test_others_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"device {name}: "):
        select_device(name)


def test_memory_that_does_not_suffice_gives_the_advice() -> None:
    with pytest.raises(DeviceError, match="does not suffice; ask for less"), enough_memory("ask for less"):
        torch.empty(1 << 60)
    with pytest.raises(DeviceError, match="ask for less"), enough_memory("ask for less"):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="size mismatch"), enough_memory("ask for less"):
        raise RuntimeError("size mismatch")
