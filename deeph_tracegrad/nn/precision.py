"""What stays in full precision where a training takes bfloat16 in matrix products."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

Function = TypeVar("Function", bound=Callable[..., Any])


def full_precision(function: Function) -> Function:
    """The function with torch's autocast off; tensors that autocast has made bfloat16 come to it as float32."""

    @wraps(function)
    def full(*arguments: Any) -> Any:
        device = next(each.device.type for each in arguments if isinstance(each, Tensor))
        if not torch.is_autocast_enabled(device):
            return function(*arguments)
        with torch.autocast(device, enabled=False):
            return function(*map(_single, arguments))

    return cast("Function", full)


def _single(argument: Any) -> Any:
    return argument.float() if isinstance(argument, Tensor) and argument.dtype == torch.bfloat16 else argument
