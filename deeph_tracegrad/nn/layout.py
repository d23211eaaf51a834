"""How features with irreps lie in memory: order-major.

A feature is one row: for m = 0, +1, -1, +2, -2, ... a block of that component of every channel with l >= |m|. Channels
are sorted by degree, so the channels of a block are the last ones of the m = 0 block, whatever m is. In an edge's frame
a rotation about the bond and the tensor product with Y(bond) only mix +m with -m: each block is one matrix product.

Channels are natural (parity (-1)^l) or pseudo. In an edge's frame, features of pseudo irreps are stored turned by a
quarter in the (+m, -m) plane: p'_{+m} = -p_{-m}, p'_{-m} = p_{+m}. Products that couple natural and pseudo channels mix
+m with -m antisymmetrically; turned so, +m mixes with +m alone, by the same matrix as -m with -m.

Shape letters: R rows (atoms or edges), F features of a row, C channels, c channels of one group.
"""

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from e3nn import o3
from torch import Tensor

from deeph_tracegrad.errors import ConfigError

LARGEST_DEGREE = 16
"""The highest l of features: what the compiled kernels have room for, and far beyond what pairs of h shells need."""


class Irrep(NamedTuple):
    """A degree and whether its parity is (-1)^l."""

    degree: int
    natural: bool

    @classmethod
    def of(cls, degree: int, parity: int) -> "Irrep":
        """From degree and parity ±1."""
        return cls(degree, parity == (-1) ** degree)

    @property
    def order(self) -> tuple[int, bool]:
        """What channels are sorted by: degree, natural parity first."""
        return self.degree, not self.natural

    @property
    def size(self) -> int:
        """Components."""
        return 2 * self.degree + 1

    def __str__(self) -> str:
        """Like e3nn: 1o."""
        return f"{self.degree}{'eo'[(self.degree + (not self.natural)) % 2]}"


class Layout:
    """The channels of a feature and where their components stand.

    groups: channels of each irrep, sorted by degree, natural ones first.

    Raises:
        ConfigError: a degree is too high.
    """

    def __init__(self, channels: Iterable[tuple[Irrep, int]]) -> None:
        merged: dict[Irrep, int] = {}
        for irrep, count in channels:
            merged[irrep] = merged.get(irrep, 0) + count
        self.groups = {irrep: merged[irrep] for irrep in sorted(merged, key=lambda irrep: irrep.order) if merged[irrep]}
        if self.degree > LARGEST_DEGREE:
            raise ConfigError(f"irreps of degree {self.degree} are beyond the supported l = {LARGEST_DEGREE}")
        starts = torch.tensor([0, *self.groups.values()]).cumsum(0).tolist()
        self.starts = dict(zip(self.groups, starts, strict=False))  # first channel of each group
        self.channels = starts[-1]

    @classmethod
    def parse(cls, irreps: str) -> "Layout":
        """From e3nn's notation: 64x0e+32x1o.

        Raises:
            ConfigError: the text is no such list.
        """
        try:
            parsed = o3.Irreps(irreps)
        except ValueError as error:
            raise ConfigError(f"{irreps!r} is no list of irreps such as '64x0e+32x1o+16x2e'") from error
        return cls((Irrep.of(irrep.l, irrep.p), count) for count, irrep in parsed)

    def __eq__(self, other: object) -> bool:
        """Whether the channels are the same."""
        return isinstance(other, Layout) and self.groups == other.groups

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        """e3nn's notation."""
        return "+".join(f"{count}x{irrep}" for irrep, count in self.groups.items())

    @cached_property
    def degree(self) -> int:
        """Largest l."""
        return max((irrep.degree for irrep in self.groups), default=0)

    @cached_property
    def orders(self) -> list[int]:
        """M of each block."""
        return [0, *(sign * m for m in range(1, self.degree + 1) for sign in (1, -1))]

    @cached_property
    def doubled(self) -> "Layout":
        """Each group with twice the channels."""
        return Layout((irrep, 2 * count) for irrep, count in self.groups.items())

    def first_channel(self, order: int) -> int:
        """The first channel with l >= |m|."""
        return min((self.starts[irrep] for irrep in self.groups if irrep.degree >= abs(order)), default=self.channels)

    @cached_property
    def block_sizes(self) -> list[int]:
        """Features of each block, in the order of `orders`."""
        return [self.channels - self.first_channel(order) for order in self.orders]

    @cached_property
    def dim(self) -> int:
        """Features F of a row."""
        return sum(self.block_sizes)

    def block_start(self, order: int) -> int:
        """Where the block of this m begins in a row."""
        return sum(self.block_sizes[: self.orders.index(order)])

    def position(self, irrep: Irrep, channel: int, order: int) -> int:
        """Where the component m of a channel of this irrep stands in a row."""
        return self.block_start(order) + self.starts[irrep] + channel - self.first_channel(order)

    def places(self, irrep: Irrep) -> list[int]:
        """Where the components m = 0, +1, -1, ... of an irrep's channels begin in a row."""
        return [self.position(irrep, 0, order) for order in self.orders[: irrep.size]]

    @cached_property
    def channel_of(self) -> Tensor:
        """The channel of each feature, (F,)."""
        return torch.cat([torch.arange(self.first_channel(order), self.channels) for order in self.orders])

    @cached_property
    def plan(self) -> np.ndarray:
        """All that as integers, as the compiled kernels read it."""
        return self.plan_of_first(self.channels)

    def plan_of_first(self, most: int) -> np.ndarray:
        """The plan of a kernel that takes this many channels of each irrep at most, the first ones."""
        starts = [self.block_start(order) for order in self.orders]
        numbers = [self.dim, self.channels, len(self.orders), *starts, *self.block_sizes, len(self.groups)]
        for irrep, count in self.groups.items():
            numbers += [irrep.degree, min(count, most), self.starts[irrep], int(irrep.natural), *self.places(irrep)]
        return np.array(numbers, dtype=np.int64)

    def by_irrep(self, features: Tensor) -> list[Tensor]:
        """(R, F) -> for each group (R, 2l+1, c), the components in the order m = 0, +1, -1, ..."""
        blocks = [
            dict(zip(present, block.split([self.groups[irrep] for irrep in present], dim=1), strict=True))
            for block, present in zip(features.split(self.block_sizes, dim=1), self._present, strict=True)
        ]
        return [torch.stack([blocks[row][irrep] for row in range(irrep.size)], dim=1) for irrep in self.groups]

    def from_irreps(self, parts: Sequence[Tensor]) -> Tensor:
        """The inverse of `by_irrep`."""
        rows = dict(zip(self.groups, (part.unbind(1) for part in parts), strict=True))
        return torch.cat([rows[irrep][row] for row, present in enumerate(self._present) for irrep in present], dim=1)

    @cached_property
    def _present(self) -> list[list[Irrep]]:
        """The irreps of each block."""
        return [[irrep for irrep in self.groups if irrep.degree >= abs(order)] for order in self.orders]
