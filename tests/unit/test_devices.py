"""Names of devices."""

import pytest
import torch

from deeph_tracegrad.devices import select_device
from deeph_tracegrad.errors import ConfigError


def test_cpu() -> None:
    assert select_device("cpu") == torch.device("cpu")


def test_auto_takes_a_gpu_where_there_is_one() -> None:
    assert select_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "", "cuda:99"])
def test_others_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"device {name}: "):
        select_device(name)
