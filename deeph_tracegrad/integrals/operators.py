"""Two-centre integrals as sums of (function of the distance) x (spherical harmonic of the direction).

With F_l(k) = √(2/π) ∫ r² R_l(r) j_l(kr) dr and d from the first atom to the second,

    <l1 m1 | l2 m2> (d) = Σ_L I_L(|d|) Σ_M C_L[m1, m2, M] Y_LM(d̂),   I_L(d) = ∫ k² F_l1(k) F_l2(k) j_L(kd) dk,
    C_L[m1, m2, M] = 4π (-1)^((l1-l2-L)/2) ∫ Y_l1m1 Y_l2m2 Y_LM

(O. F. Sankey, D. J. Niklewski, Phys. Rev. B 40, 3979 (1989), appendix; in OpenMX's manual "two-center integrals").
The other operators only change the powers of k, the degrees and C:
kinetic energy has k²/2 more; r on the first orbital makes one of r R_l and l ± 1; and a gradient by d turns j_L(kd) Y_L
into k (j_{L-1} [r̂ Y_L]_{L-1} - j_{L+1} [r̂ Y_L]_{L+1}), where [ ]_L is the part of degree L.

Shape letters: D Cartesian components, m1, m2, M components of the harmonics.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from deeph_tracegrad.integrals.angular import gaunt, times_direction


@dataclass(frozen=True, eq=False)
class Term:
    """One product: ∫ k^(2 + k_power) F1 F2 j_degree(kd) dk  times  Σ_M angular[..., M] Y_degree,M.

    first_degree, times_r: what F1 is made of: R_l, or r R_l, transformed with this degree.
    angular: (D, 2 l1 + 1, 2 l2 + 1, 2 degree + 1).
    """

    degree: int
    k_power: int
    first_degree: int
    times_r: bool
    angular: np.ndarray


Operator = Callable[[int, int], list[Term]]
"""The terms between shells of degrees l1 and l2."""


def overlap(first: int, second: int) -> list[Term]:
    """<1|2>, one component."""
    return [Term(degree, 0, first, False, coupling[None]) for degree, coupling in _couplings(first, second)]


def kinetic(first: int, second: int) -> list[Term]:
    """<1| -∇²/2 |2>, one component, Hartree."""
    return [Term(degree, 2, first, False, coupling[None] / 2) for degree, coupling in _couplings(first, second)]


def position(first: int, second: int) -> list[Term]:
    """<1| r - r1 |2> with the first atom at r1; x, y, z, bohr."""
    return [
        Term(degree, 0, raised, True, np.einsum("amn,nbM->ambM", times_direction(first, raised), coupling))
        for raised in (first - 1, first + 1)
        if raised >= 0
        for degree, coupling in _couplings(raised, second)
    ]


def gradient(first: int, second: int) -> list[Term]:
    """∂<1|2>/∂d, moving the second atom; x, y, z, 1/bohr. <1|∇|2> is its negative."""
    return [
        Term(shifted, 1, first, False, sign * np.einsum("mnM,aMN->amnN", coupling, times_direction(degree, shifted)))
        for degree, coupling in _couplings(first, second)
        for shifted, sign in ((degree - 1, 1.0), (degree + 1, -1.0))
        if shifted >= 0
    ]


def _couplings(first: int, second: int) -> Iterator[tuple[int, np.ndarray]]:
    """L and C_L of every degree to which two shells couple."""
    for degree in range(abs(first - second), first + second + 1, 2):
        sign = (-1) ** ((first - second - degree) // 2)
        yield degree, 4 * np.pi * sign * gaunt(first, second, degree)
