"""What the compiled kernels are told of a network, as integers; `source/` reads them in the same order."""

from collections.abc import Sequence

import numpy as np

from deeph_tracegrad.nn.layout import Irrep, Layout


def integers(values: Sequence[int]) -> np.ndarray:
    """A plan as the kernels read it."""
    return np.array(values, dtype=np.int64)


def layout_plan(layout: Layout) -> list[int]:
    """A layout: its sizes, its blocks, and each group with the places of its components."""
    blocks = [layout.block_start(order) for order in layout.orders]
    plan = [layout.dim, layout.channels, len(layout.orders), *blocks, *layout.block_sizes, len(layout.groups)]
    for irrep, count in layout.groups.items():
        plan += [irrep.degree, count, layout.starts[irrep], int(irrep.natural), *places(layout, irrep)]
    return plan


def places(layout: Layout, irrep: Irrep) -> list[int]:
    """Where the components m = 0, +1, -1, ... of an irrep's channels begin in a row."""
    return [layout.position(irrep, 0, order) for order in layout.orders[: irrep.size]]
