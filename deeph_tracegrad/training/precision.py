"""How exact the matrix products of a training are."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from deeph_tracegrad.config import TrainingSettings
from deeph_tracegrad.errors import ConfigError


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
def tf32(*, enabled: bool) -> Iterator[None]:
    """Let NVIDIA GPUs round the factors of float32 products to ten bits while the block runs."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = enabled
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
