"""The radial functions of one element, as a basis file tabulates them.

Shape letters: F radial functions, n points of the file's grid.
"""

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np

from deeph_tracegrad.errors import MismatchError, ReadError
from deeph_tracegrad.orbitals import ElementBasis


class Quadrature(StrEnum):
    """How radial integrals are evaluated."""

    OPENMX = "openmx"  # on OpenMX's grids: equal to its overlaps, the errors of its quadrature included
    ABACUS = "abacus"  # on ABACUS's, likewise
    CONVERGED = "converged"


@dataclass(frozen=True, eq=False)
class RadialFunctions:
    """R_l(r) of every shell, the orbital being R_l(r) Y_lm.

    degrees: l of each function, ascending. cutoff: radius from which on all vanish, bohr.
    r: (n,) bohr, ascending. values: (F, n) bohr^-3/2.
    quadrature: by default that of the DFT code. bohr_angstrom, hartree_ev: the code's own constants.
    label: the code's name of the basis. valence_electrons: of the neutral atom, where the file tells.
    """

    source: Path
    element: str
    label: str
    degrees: tuple[int, ...]
    cutoff: float
    r: np.ndarray
    values: np.ndarray
    quadrature: Quadrature
    bohr_angstrom: float
    hartree_ev: float
    valence_electrons: float | None = None

    @property
    def basis(self) -> ElementBasis:
        """The same without the numbers.

        Raises:
            ReadError: the file's shells are beyond what is supported.
        """
        try:
            return ElementBasis(self.degrees, self.cutoff * self.bohr_angstrom, self.label, self.valence_electrons)
        except MismatchError as error:
            raise ReadError(self.source, str(error)) from None


def check_one_code(functions: Collection[RadialFunctions]) -> None:
    """Hold that these have the quadrature and the constants of one DFT code.

    Raises:
        MismatchError: they are of several.
    """
    if len({(own.quadrature, own.bohr_angstrom, own.hartree_ev) for own in functions}) > 1:
        files = ", ".join(own.source.name for own in functions)
        raise MismatchError(f"the basis files {files} are of different DFT codes; take all from one")
