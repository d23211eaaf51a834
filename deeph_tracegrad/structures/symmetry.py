"""Symmetry operations as files of crystallography write them, and the places to which they map an atom.

Shape letters: O operations, I images of an atom. Coordinates are fractional.
"""

import re
from fractions import Fraction
from pathlib import Path

import numpy as np

from deeph_tracegrad.errors import ReadError

Row = tuple[int, int, int]
Operation = tuple[tuple[Row, Row, Row], tuple[float, float, float]]

IDENTITY: Operation = (((1, 0, 0), (0, 1, 0), (0, 0, 1)), (0.0, 0.0, 0.0))

SAME_PLACE = 0.1  # Å, within which two images of an atom are one: coordinates may have two digits

TERM = re.compile(r"([+-]?)(?:([xyz])|(\d{1,3})/(\d{1,3})|(\d{0,3}\.?\d{1,9}))")


def operation(text: str, path: Path) -> Operation:
    """Rotation and translation of an operation such as '-y, x-y, z+1/3'.

    path: the file that has it, for the message.

    Raises:
        ReadError: it is no such operation, or maps the lattice to another one.
    """
    components = [_component(part) for part in re.sub(r"\s", "", text.lower()).split(",")]
    known = [component for component in components if component is not None]
    if len(components) == len(known) == 3:
        rotation, translation = zip(*known, strict=True)
        if abs(round(np.linalg.det(rotation))) == 1:
            return rotation, translation
    raise ReadError(path, f"{text[:40]!r} is no symmetry operation such as '-y, x-y, z+1/3'")


def orbit(position: np.ndarray, rotations: np.ndarray, translations: np.ndarray, cell: np.ndarray) -> np.ndarray | None:
    """The different images of a position in one cell, (I, 3), itself first; None if O is no multiple of their number.

    A position that operations map onto itself within SAME_PLACE is first moved to the mean of those images.

    position: (3,). rotations, translations: (O, 3, 3) and (O, 3), the identity first. cell: (3, 3) lattice vectors as
    rows, Å.
    """

    def distance(difference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The shortest equivalents of differences (..., 3), and their lengths in Å."""
        shortest = difference - np.round(difference)
        return shortest, np.linalg.norm(shortest @ cell, axis=-1)

    shift, length = distance(rotations @ position + translations - position)
    on_itself = length < SAME_PLACE
    position = position + shift[on_itself].mean(axis=0)
    images = rotations @ position + translations
    same = distance(images[:, None] - images[None])[1] < SAME_PLACE
    first = ~np.tril(same, -1).any(axis=1)
    return images[first] if first.sum() * on_itself.sum() == len(images) else None


def _component(text: str) -> tuple[Row, float] | None:
    """The coefficients of x, y and z and the constant of one component; None if it is none."""
    coefficients, constant, place = [0, 0, 0], Fraction(0), 0
    while place < len(text):
        term = TERM.match(text, place)
        if term is None or (place and not term[1]) or (term[4] and not int(term[4])):
            return None
        sign = -1 if term[1] == "-" else 1
        if term[2]:
            coefficients["xyz".index(term[2])] += sign
        else:
            constant += sign * (Fraction(int(term[3]), int(term[4])) if term[3] else Fraction(term[5]))
        place = term.end()
    return (coefficients[0], coefficients[1], coefficients[2]), float(constant)
