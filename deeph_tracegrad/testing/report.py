"""What the checks measure, and how it is shown."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from deeph_tracegrad.blocks import BlockMatrix, union_pairs

ROUNDING = "0 to rounding"


class Result(NamedTuple):
    """One measured number.

    unit: empty where it has none. expected: what a sound model or dataset gives, in words.
    """

    value: float
    unit: str
    expected: str


class Report(dict[str, Result]):
    """Results by the names of their checks; printed, it is a table."""

    def __str__(self) -> str:
        """One line a check."""
        rows = [(name, f"{result.value:.2e} {result.unit}", result.expected) for name, result in self.items()]
        rows = [("check", "measured", "expected"), *rows]
        name, value = (max(len(row[column]) for row in rows) for column in (0, 1))
        return "\n".join(f"{row[0]:{name}}  {row[1]:{value}}  {row[2]}".rstrip() for row in rows)


def largest_difference(one: Sequence[BlockMatrix], other: Sequence[BlockMatrix]) -> float:
    """The largest |A - B| over all channels of two Hamiltonians, eV; a block that one of them lacks is zero there."""
    found = []
    for left, right in zip(one, other, strict=True):
        pairs = union_pairs(left.pairs, right.pairs)
        found.append(np.abs(left.on_pairs(pairs).entries - right.on_pairs(pairs).entries).max(initial=0.0))
    return float(np.max(found, initial=0.0))


def hermiticity(hamiltonian: Sequence[BlockMatrix]) -> float:
    """The largest |H - H†| over all channels, eV; a block without its partner counts in full."""
    return largest_difference(hamiltonian, [matrix.adjoint() for matrix in hamiltonian])
