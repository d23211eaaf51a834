"""How exact the numbers of a training are, and whether they repeat."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from deeph_tracegrad.config import TrainingSettings
from deeph_tracegrad.errors import ConfigError

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


def require_fitting_products(settings: TrainingSettings) -> None:
    """Refuse what would make the products of a network in double precision less exact than single.

    Raises:
        ConfigError: saying what to set.
    """
    if settings.dtype == "float64" and settings.matrix_products != "full":
        raise ConfigError(
            f'training.matrix_products = "{settings.matrix_products}" is for training.dtype = "float32"; with '
            '"float64" leave it at "full"'
        )


@contextmanager
def deterministic(*, enabled: bool) -> Iterator[None]:
    """Let torch take only algorithms that repeat their results while the block runs; to be entered before CUDA starts.

    cuBLAS repeats its results if it has work space of a fixed size for each stream; torch checks this variable.
    """
    if not enabled:
        yield
        return
    before, workspace = torch.are_deterministic_algorithms_enabled(), os.environ.get(_WORKSPACE)
    os.environ.setdefault(_WORKSPACE, ":4096:8")
    torch.use_deterministic_algorithms(mode=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        if workspace is None:
            del os.environ[_WORKSPACE]


@contextmanager
def tf32(*, enabled: bool) -> Iterator[None]:
    """Let NVIDIA GPUs round the factors of float32 products to ten bits while the block runs."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = enabled
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
