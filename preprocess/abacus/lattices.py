"""Lattices that ABACUS knows by name (`latname` in INPUT, LATTICE_PARAMETERS in STRU).

The vectors are rows in units of the lattice constant, in ABACUS' own orientation (its manual, section STRU).
"""

from collections.abc import Callable
from math import sqrt

Vectors = list[list[float]]


def _trigonal(cosine: float) -> Vectors:
    long, short = sqrt(1 + 2 * cosine) / sqrt(3), sqrt(1 - cosine)
    x, y = short / sqrt(2), -short / sqrt(6)
    return [[x, y, long], [0, -2 * y, long], [-x, y, long]]


def _triclinic(b: float, c: float, cos_ab: float, cos_ac: float, cos_bc: float) -> Vectors:
    sin_ab = sqrt(1 - cos_ab**2)
    y = (cos_bc - cos_ac * cos_ab) / sin_ab
    return [[1, 0, 0], [b * cos_ab, b * sin_ab, 0], [c * cos_ac, c * y, c * sqrt(1 - cos_ac**2 - y**2)]]


# By name: the number of parameters, and the vectors they give. b and c stand for b/a and c/a.
NAMED_LATTICES: dict[str, tuple[int, Callable[..., Vectors]]] = {
    "sc": (0, lambda: [[1, 0, 0], [0, 1, 0], [0, 0, 1]]),
    "fcc": (0, lambda: [[-0.5, 0, 0.5], [0, 0.5, 0.5], [-0.5, 0.5, 0]]),
    "bcc": (0, lambda: [[0.5, 0.5, 0.5], [-0.5, 0.5, 0.5], [-0.5, -0.5, 0.5]]),
    "hexagonal": (1, lambda c: [[1, 0, 0], [-0.5, sqrt(3) / 2, 0], [0, 0, c]]),
    "trigonal": (1, _trigonal),
    "st": (1, lambda c: [[1, 0, 0], [0, 1, 0], [0, 0, c]]),
    "bct": (1, lambda c: [[0.5, -0.5, c / 2], [0.5, 0.5, c / 2], [-0.5, -0.5, c / 2]]),
    "so": (2, lambda b, c: [[1, 0, 0], [0, b, 0], [0, 0, c]]),
    "baco": (2, lambda b, c: [[0.5, b / 2, 0], [-0.5, b / 2, 0], [0, 0, c]]),
    "fco": (2, lambda b, c: [[0.5, 0, c / 2], [0.5, b / 2, 0], [0, b / 2, c / 2]]),
    "bco": (2, lambda b, c: [[0.5, b / 2, c / 2], [-0.5, b / 2, c / 2], [-0.5, -b / 2, c / 2]]),
    "sm": (3, lambda b, c, cosine: [[1, 0, 0], [b * cosine, b * sqrt(1 - cosine**2), 0], [0, 0, c]]),
    "bacm": (3, lambda b, c, cosine: [[0.5, 0, -c / 2], [b * cosine, b * sqrt(1 - cosine**2), 0], [0.5, 0, c / 2]]),
    "triclinic": (5, _triclinic),
}
