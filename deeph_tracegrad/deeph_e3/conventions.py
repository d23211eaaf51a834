"""What versions of e3nn disagree about, told from the Wigner-3j tables that a DeepH-E3 state dict holds.

| e3nn | tables | signs | in a tensor product, equal variance for |
| --- | --- | --- | --- |
| up to 0.3 | `_compiled_main_out`, times √(2 l3 + 1) | earlier | each path |
| 0.4.2 to 0.4.4 | `_compiled_main_left_right`, of unit norm | earlier | each channel of each path |
| from 0.5 | `_compiled_main_left_right`, of unit norm | today's | each channel of each path |

e3nn 0.4.0 and 0.4.1 store what 0.3 does and normalise like 0.4.2. No state dict tells them from 0.3; DeepH-E3 asks for
0.3.5.
Sources: `o3/_tensor_product/_codegen.py` and `o3/_wigner.py` of those versions, and the changelog of e3nn.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from e3nn import o3
from torch import Tensor

from deeph_tracegrad.errors import MismatchError

# Sorted degrees up to 8 of the w3j that changed their sign with e3nn 0.5; all have an odd sum
_FLIPPED = frozenset(
    [(1, degree, degree) for degree in range(2, 9)]
    + [(3, 4, 6), (3, 5, 7), (3, 6, 8), (4, 4, 5), (4, 5, 6), (4, 6, 7), (4, 7, 8)]
    + [(5, 5, 5), (5, 6, 6), (5, 7, 7), (5, 8, 8)]
)
_LARGEST_DEGREE = 8

_TABLE = re.compile(r"\._compiled_main_(out|right|left_right)\._w3j_(\d{1,2})_(\d{1,2})_(\d{1,2})$")
_TOLERANCE = 1e-5  # tables may be in single precision


@dataclass(frozen=True)
class Convention:
    """How a version of e3nn computes a tensor product.

    earlier_signs: of w3j, before e3nn 0.5. equal_paths: variance counted by path, before e3nn 0.4.
    """

    e3nn: str
    earlier_signs: bool
    equal_paths: bool

    def sign(self, *degrees: int) -> float:
        """Sign of its w3j(l1, l2, l3) relative to the installed e3nn's.

        Raises:
            MismatchError: a degree beyond those of which the signs are known.
        """
        if not self.earlier_signs:
            return 1.0
        if max(degrees) > _LARGEST_DEGREE:
            raise MismatchError(
                f"it couples degrees {degrees}, and the signs of e3nn {self.e3nn} are known up to {_LARGEST_DEGREE}"
            )
        return -1.0 if tuple(sorted(degrees)) in _FLIPPED else 1.0


E3NN_03 = Convention("0.3", earlier_signs=True, equal_paths=True)
E3NN_04 = Convention("0.4", earlier_signs=True, equal_paths=False)
E3NN_05 = Convention("0.5 or newer", earlier_signs=False, equal_paths=False)


def detect_convention(official: Mapping[str, Tensor]) -> Convention:
    """The convention that a state dict was trained under.

    Raises:
        MismatchError: it holds no coupling tables, they belong to no known version, or they fit several.
    """
    tables = [table for name, tensor in official.items() for table in _table(name, tensor)]
    if not tables:
        raise MismatchError("it holds no coupling tables (_w3j_), so the e3nn it was trained with cannot be told")
    if any(table.place == "out" for table in tables):
        candidates, scaled = [E3NN_03], True
    else:
        candidates, scaled = [E3NN_04, E3NN_05], False
    fitting = [
        convention for convention in candidates if all(table.fits(convention, scaled=scaled) for table in tables)
    ]
    if not fitting:
        raise MismatchError("its coupling tables (_w3j_) are those of no version of e3nn that this program knows")
    if len(fitting) > 1:
        raise MismatchError("its coupling tables (_w3j_) are too few to tell the e3nn it was trained with")
    return fitting[0]


class _Table(NamedTuple):
    """A stored w3j. place: the function that uses it: out, right or left_right."""

    place: str
    degrees: tuple[int, int, int]
    values: Tensor

    def fits(self, convention: Convention, *, scaled: bool) -> bool:
        """Whether a version of e3nn stores this; scaled: by √(2 l3 + 1)."""
        low, high = abs(self.degrees[0] - self.degrees[1]), self.degrees[0] + self.degrees[1]
        if max(self.degrees) > _LARGEST_DEGREE or not low <= self.degrees[2] <= high:
            return False
        expected = o3.wigner_3j(*self.degrees, dtype=torch.float64) * convention.sign(*self.degrees)
        if scaled:
            expected = expected * (2 * self.degrees[2] + 1) ** 0.5
        return self.values.shape == expected.shape and torch.allclose(
            self.values.to(expected), expected, rtol=0.0, atol=_TOLERANCE
        )


def _table(name: str, values: Tensor) -> Iterator[_Table]:
    """The tensor of this name, if it is a table."""
    if found := _TABLE.search(name):
        first, second, third = map(int, found.groups()[1:])
        yield _Table(found[1], (first, second, third), values)
