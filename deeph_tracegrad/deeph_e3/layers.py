"""In which order DeepH-E3 lists the channels, paths and outputs of its layers.

Source: `model.py`, `e3modules.py` and `utils.py` of DeepH-E3, commit f011d5f, and e3nn's `Gate`.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from deeph_tracegrad.deeph_e3.conventions import Convention
from deeph_tracegrad.errors import MismatchError
from deeph_tracegrad.nn.layout import Irrep, Layout
from deeph_tracegrad.nn.linear import SCALAR
from deeph_tracegrad.orbitals import SpinMode
from deeph_tracegrad.targets import Target

Channels = list[tuple[Irrep, int]]
"""The irreps of a layer in the order in which DeepH-E3 lists them, and the channels of each."""

_GROUP = re.compile(r"(?:(\d{1,6})x)?(\d{1,2})([eo])", re.ASCII)


def parse_channels(irreps: str) -> Channels:
    """From e3nn's notation.

    Raises:
        MismatchError: the text is no list of irreps.
    """
    groups = [_GROUP.fullmatch(part.strip()) for part in irreps.split("+")]
    if None in groups:
        raise MismatchError(f"{irreps[:80]!r} is no list of irreps such as '8x0e+4x1o'")
    parsed = [(int(group[1] or 1), int(group[2]), 1 if group[3] == "e" else -1) for group in groups if group]
    return [(Irrep.of(degree, parity), count) for count, degree, parity in parsed if count]


def channel_order(channels: Channels) -> Tensor:
    """Where each of our channels stands among theirs."""
    starts, start = {}, 0
    for irrep, count in channels:
        starts[irrep] = start
        start += count
    ours = Layout(channels).groups.items()
    return torch.cat([torch.arange(0), *(torch.arange(count) + starts[irrep] for irrep, count in ours)])


def total(channels: Channels) -> int:
    """Channels of all irreps."""
    return sum(count for _, count in channels)


class Path(NamedTuple):
    """One product of irreps. slot: the source it comes from."""

    slot: int
    first: Irrep
    harmonic: int
    last: Irrep


class Convolution:
    """Node i, node j and edge times Y, gated.

    sources: irreps of the three. wanted: irreps that are made if a path leads to them. degree: largest l of Y.

    Raises:
        MismatchError: no path leads to any.
    """

    def __init__(self, sources: Sequence[Channels], wanted: Channels, degree: int) -> None:
        self.sources, self.degree = sources, degree
        first = {irrep for source in sources for irrep, _ in source}
        made = [
            (last, count)
            for last, count in wanted
            if any(_coupled(irrep, harmonic, last) for irrep in first for harmonic in range(degree + 1))
        ]
        if not made:
            raise MismatchError("no path leads to any of the irreps of a layer")
        self.scalars = [group for group in made if group[0].degree == 0]
        self.gated = [group for group in made if group[0].degree > 0]

    @property
    def after(self) -> Channels:
        """The irreps behind the gate."""
        return [*self.scalars, *self.gated]

    @cached_property
    def before(self) -> Channels:
        """The irreps before it, as e3nn sorts them; a gate for each gated channel follows the scalars."""
        channels = Counter(dict(self.after))
        if gates := total(self.gated):
            channels[SCALAR] += gates
        return sorted(channels.items(), key=lambda group: (group[0].degree, _parity(group[0])))

    @property
    def scalar_order(self) -> Tensor:
        """Where each of our scalars before the gate stands among theirs."""
        scalars = dict(self.scalars).get(SCALAR, 0)
        return torch.cat([torch.arange(scalars), scalars + channel_order(self.gated)])

    @cached_property
    def paths(self) -> list[Path]:
        """Every path, in the order of its weights."""
        paths = [
            Path(slot, first, harmonic, last)
            for slot, source in enumerate(self.sources)
            for (first, _), harmonic, (last, _) in product(source, range(self.degree + 1), self.before)
        ]
        return [path for path in paths if _coupled(path.first, path.harmonic, path.last)]

    def our_paths(self) -> Iterator[Path]:
        """Every path, in the order of our weights."""
        known = set(self.paths)
        for slots in ((0, 1), (2,)):
            for first, last in product(Layout(self.sources[slots[0]]).groups, Layout(self.before).groups):
                for harmonic, slot in product(range(self.degree + 1), slots):
                    if (path := Path(slot, first, harmonic, last)) in known:
                        yield path


class Output(NamedTuple):
    """One irrep of a target's block; see `targets.py` for what couples to what."""

    target: Target
    imaginary: bool
    orbital_degree: int
    vector: bool
    degree: int

    @property
    def irrep(self) -> Irrep:
        """Degree and parity."""
        return Irrep.of(self.degree, self.target.parity)

    def sign(self, convention: Convention) -> float:
        """Sign of the w3j that make H of it."""
        orbital = convention.sign(self.target.l1, self.target.l2, self.orbital_degree)
        return orbital * (convention.sign(self.orbital_degree, 1, self.degree) if self.vector else 1.0)


def our_outputs(targets: Sequence[Target], spin: SpinMode) -> list[Output]:
    """The order of `TargetLayout`: target by target, with spinors first the real, then the imaginary parts."""
    return [
        output for target, imaginary in product(targets, _parts(spin)) for output in _block(target, imaginary, spin)
    ]


def their_outputs(targets: Sequence[Target], spin: SpinMode) -> list[Output]:
    """The order of DeepH-E3: with spinors all imaginary parts come last, and in each block all vector parts."""
    return [
        output
        for imaginary, target in product(_parts(spin), targets)
        for output in sorted(_block(target, imaginary, spin), key=lambda output: output.vector)
    ]


def _parts(spin: SpinMode) -> tuple[bool, ...]:
    """Whether imaginary."""
    return (False, True) if spin is SpinMode.NONCOLLINEAR else (False,)


def _block(target: Target, imaginary: bool, spin: SpinMode) -> Iterator[Output]:
    """The irreps of one block."""
    for orbital in range(abs(target.l1 - target.l2), target.l1 + target.l2 + 1):
        yield Output(target, imaginary, orbital, vector=False, degree=orbital)
        if spin is SpinMode.NONCOLLINEAR:
            for degree in range(abs(orbital - 1), orbital + 2):
                yield Output(target, imaginary, orbital, vector=True, degree=degree)


def _coupled(first: Irrep, harmonic: int, last: Irrep) -> bool:
    """Whether an irrep times Y_l2 contains another: triangle rule and parity."""
    triangle = abs(first.degree - last.degree) <= harmonic <= first.degree + last.degree
    return triangle and (first.degree + harmonic + last.degree) % 2 == (first.natural != last.natural)


def _parity(irrep: Irrep) -> int:
    """±1."""
    return (-1) ** (irrep.degree + (not irrep.natural))
