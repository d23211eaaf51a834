"""Local frames of bonds, and how harmonics and spinors turn into them.

A rotation is a matrix whose rows are the local axes: x_local = R x_global. Real harmonics are in the order m = -l..l
(`orbitals.py`), so Y_l(R x) = D_l(R) Y_l(x), and coefficients of those harmonics turn the same way.

The functions take NumPy arrays or torch tensors and return the same kind, with the same dtype and device.

Shape letters: E edges.
"""

from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

# Rows' signs of a frame seen from the bond's other end: frame(-d) = REVERSAL[:, None] * frame(d).
REVERSAL = np.array([1.0, -1.0, -1.0])


def edge_frames(vectors: np.ndarray) -> np.ndarray:
    """The local frame of each edge, (E, 3, 3), rows are the axes.

    The third axis is along the bond. The gauge about the bond: the second axis is z × d, hence horizontal, and y for a
    bond along z. On-site edges keep the global frame. The frame of -d is that of d with the last two axes reversed.

    vectors: (E, 3), from atom i to atom j; zero for on-site edges.
    """
    length = np.linalg.norm(vectors, axis=1)
    bond = length > 0
    third = vectors / np.where(bond, length, 1.0)[:, None]
    horizontal = np.hypot(third[:, 0], third[:, 1])
    # Below this the direction of z × d is rounding noise, and two runs of one structure would get different gauges.
    polar = horizontal < 1e-12
    safe = np.where(polar, 1.0, horizontal)
    second = np.stack([-third[:, 1] / safe, third[:, 0] / safe, np.zeros_like(safe)], axis=1)
    second[polar] = np.stack([np.zeros(polar.sum()), np.copysign(1.0, third[polar, 2]), np.zeros(polar.sum())], axis=1)
    third[polar] = [0.0, 0.0, 1.0] * np.copysign(1.0, third[polar, 2])[:, None]
    frames = np.stack([np.cross(second, third), second, third], axis=1)
    frames[~bond] = np.eye(3)
    return frames


def rotation_matrices(degree: int, rotations: Any, angles: tuple[Any, Any, Any] | None = None) -> Any:
    """D_l(R) for real harmonics, (E, 2l+1, 2l+1).

    Uses R = Rz(a) Ry(b) Rz(c) and Ry(b) = J Rz(b) J, J the half turn about (y + z)/√2: turns about z only mix ±m, and
    D_l(J) is one constant matrix (Pinchon and Hoggan, J. Phys. A 40, 1597 (2007)).

    rotations: (E, 3, 3), proper. angles: their `euler_angles`, if they are known already.
    """
    xp = _namespace(rotations)
    if degree == 0:
        return xp.ones_like(rotations[:, :1, :1])
    if degree == 1:  # the harmonics y, z, x are the axes themselves
        return rotations[:, [1, 2, 0]][:, :, [1, 2, 0]]
    first, middle, last = euler_angles(rotations) if angles is None else angles
    orders = _like(np.arange(-degree, degree + 1.0), rotations)
    swap = _like(half_turn(degree), rotations)

    def turned(matrix: Any, angle: Any) -> Any:  # matrix @ D(Rz(angle))
        phase = angle[:, None, None] * orders
        return matrix * xp.cos(phase) + xp.flip(matrix, (-1,)) * xp.sin(phase)

    matrix = turned(swap, middle) @ swap
    # D(Rz(a)) M is the transpose of Mᵀ D(Rz(-a))
    matrix = turned(matrix.swapaxes(-1, -2), -first).swapaxes(-1, -2)
    return turned(matrix, last)


def spin_rotation(rotations: np.ndarray) -> np.ndarray:
    """u(R), (E, 2, 2) complex: u (B·σ) u† = (R B)·σ. Its sign is arbitrary and cancels in u H u†.

    rotations: (E, 3, 3), proper.
    """
    first, middle, last = euler_angles(rotations)
    cosine, sine = np.cos(middle / 2), np.sin(middle / 2)
    plus, minus = np.exp(-0.5j * (first + last)), np.exp(-0.5j * (first - last))
    return np.stack(
        [np.stack([plus * cosine, -minus * sine], axis=-1), np.stack([minus.conj() * sine, plus.conj() * cosine], -1)],
        axis=-2,
    )


def euler_angles(rotations: Any) -> tuple[Any, Any, Any]:
    """Angles a, b, c, each (E,), with R = Rz(a) Ry(b) Rz(c); stable also where b is near 0 or π."""
    xp = _namespace(rotations)
    middle = xp.arctan2(xp.hypot(rotations[:, 0, 2], rotations[:, 1, 2]), rotations[:, 2, 2])
    first = xp.arctan2(rotations[:, 1, 2], rotations[:, 0, 2])
    # what is left of R after the first two turns is Rz(c): read c off its second row
    cosine, sine = xp.cos(first), xp.sin(first)
    last = xp.arctan2(
        cosine * rotations[:, 1, 0] - sine * rotations[:, 0, 0],
        cosine * rotations[:, 1, 1] - sine * rotations[:, 0, 1],
    )
    return first, middle, last


@cache
def half_turn(degree: int) -> np.ndarray:
    """D_l of the half turn about (y + z)/√2: x -> -x, y <-> z."""
    from scipy.linalg import expm

    m = np.arange(-degree, degree + 1)
    raising = np.diag(np.sqrt(degree * (degree + 1) - m[:-1] * (m[:-1] + 1.0)), -1)
    momentum_y, momentum_z = (raising - raising.T) / 2j, np.diag(m.astype(float))
    turn = expm(1j * np.pi * (momentum_y + momentum_z) / np.sqrt(2.0))
    to_real = _real_from_complex(degree)
    return np.ascontiguousarray((to_real @ turn.T @ to_real.conj().T).real)


def _real_from_complex(degree: int) -> np.ndarray:
    """Real harmonics (without Condon-Shortley sign) from complex ones (with it), rows and columns m = -l..l."""
    matrix = np.zeros((2 * degree + 1, 2 * degree + 1), dtype=complex)
    matrix[degree, degree] = 1.0
    for m in range(1, degree + 1):
        matrix[degree + m, [degree + m, degree - m]] = np.array([(-1) ** m, 1.0]) / np.sqrt(2.0)
        matrix[degree - m, [degree + m, degree - m]] = np.array([(-1) ** m, -1.0]) / (1j * np.sqrt(2.0))
    return matrix


def _namespace(array: Any) -> ModuleType:
    """The library that the array belongs to; torch is only imported by those who use it."""
    if isinstance(array, np.ndarray):
        return np
    import torch

    return torch


def _like(constant: np.ndarray, array: Any) -> Any:
    """A constant as an array of the same library, dtype and device."""
    if isinstance(array, np.ndarray):
        return constant.astype(array.dtype)
    return array.new_tensor(constant)
