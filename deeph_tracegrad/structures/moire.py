"""Commensurate twisted bilayers of a hexagonal monolayer.

A lattice point x a₁ + y a₂, with a₁ and a₂ at 60°, is the number x + y ζ with ζ = exp(iπ/3), in units of |a₁|. Layers
turned by θ against each other share a lattice if exp(iθ) is the quotient of two lattice points at equal distance. With
M = m + n ζ and M' = n + m ζ

    exp(iθ) = M / M',   cos θ = (m² + 4mn + n²) / (2(m² + mn + n²)),   |M|² = |M'|² = m² + mn + n².

M in the lower layer and M' in the upper one then span the shared lattice, of |M|² cells of each layer. A factor that
both have is divided out: a whole number or, when m - n is a multiple of 3, the number 1 + ζ with |1 + ζ|² = 3.
Lopes dos Santos, Peres, Castro Neto, Phys. Rev. Lett. 99 (2007) 256802 and Phys. Rev. B 86 (2012) 155449, section II.

Shape letters: N atoms of the monolayer, T cells of a layer in the shared cell.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pymatgen.core import Lattice, Structure

from deeph_tracegrad.atomic import atomic_path, check_writable
from deeph_tracegrad.console import say
from deeph_tracegrad.errors import ConfigError, MismatchError, WriteError
from deeph_tracegrad.poscar import read_poscar, write_poscar
from deeph_tracegrad.structures.reader import read_structure, reader_for

LARGEST = 1_000_000  # atoms
TOLERANCE = 1e-3  # Å, of a monolayer's lattice vectors

LatticePoint = tuple[int, int]  # x and y of x + y ζ


@dataclass(frozen=True)
class Twist:
    """A commensurate twist. lower, upper: the point in each layer's own lattice that ends the shared cell's vector."""

    lower: LatticePoint
    upper: LatticePoint

    @classmethod
    def of(cls, m: int, n: int) -> "Twist":
        """The twist by (m, n), with the smallest cell.

        Raises:
            ConfigError: m or n is negative, or both are 0.
        """
        factor = math.gcd(m, n)
        if min(m, n) < 0 or factor == 0:
            raise ConfigError(f"({m}, {n}) is no twist: it takes two whole numbers from 0 up, one of them not 0")
        m, n = m // factor, n // factor
        if (m - n) % 3:
            return cls((m, n), (n, m))
        return cls(((2 * m + n) // 3, (n - m) // 3), ((2 * n + m) // 3, (m - n) // 3))  # divided by 1 + ζ

    @property
    def angle(self) -> float:
        """By which the upper layer is turned counter-clockwise against the lower one, degrees."""
        (x, y), (u, v) = self.lower, self.upper
        return math.degrees(math.atan2(math.sqrt(3) * (y * u - x * v), 2 * (x * u + y * v) + x * v + y * u))

    @property
    def cells(self) -> int:
        """Cells of each layer in the shared cell."""
        x, y = self.lower
        return x * x + x * y + y * y


def graphene(lattice_constant: float = 2.46) -> Structure:
    """A layer of graphene with the centre of a hexagon at the origin. lattice_constant: Å."""
    return Structure(Lattice.hexagonal(lattice_constant, 10.0), ["C", "C"], [[1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.5]])


def twisted_bilayer(monolayer: Structure, twist: Twist, *, distance: float = 3.35, vacuum: float = 20.0) -> Structure:
    """Two equal layers, turned about the axis through the monolayer's origin, in their smallest common cell.

    The cell is hexagonal (120°), its third vector along z. Atoms stand by element, then by layer.

    monolayer: any with a hexagonal lattice. distance: in z between the nearest atoms of the layers, Å. vacuum: empty
    space above and below together, Å.

    Raises:
        MismatchError: the monolayer's lattice is not hexagonal.
        ConfigError: there would be more than LARGEST atoms.
    """
    number = 2 * twist.cells * len(monolayer)
    if number > LARGEST:
        raise ConfigError(
            f"a twist of {twist.angle:.4g}° has {number} atoms, more than {LARGEST}; choose a smaller cell"
        )
    in_plane, height = _layer(monolayer)
    thickness = height.max()
    edge = monolayer.lattice.a * math.sqrt(twist.cells)
    top = 2 * thickness + distance + vacuum
    layers = [
        (_fractions(in_plane, point), (height + vacuum / 2 + shift) / top)
        for point, shift in [(twist.lower, 0.0), (twist.upper, thickness + distance)]
    ]
    elements = [site.specie.symbol for site in monolayer]
    species, labels, positions = [], [], []
    for element in dict.fromkeys(elements):
        for fractions, heights in layers:
            for atom in (atom for atom, symbol in enumerate(elements) if symbol == element):
                species += [element] * twist.cells
                labels += [monolayer[atom].label] * twist.cells
                positions.append(np.column_stack([fractions[atom], np.full(twist.cells, heights[atom])]))
    cell = [[edge, 0, 0], [-edge / 2, edge * math.sqrt(3) / 2, 0], [0, 0, top]]
    return Structure(Lattice(cell), species, np.concatenate(positions), labels=labels)


def write_twisted_bilayer(m: int, n: int, out: Path, monolayer: Path | None, distance: float, vacuum: float) -> None:
    """Write the bilayer twisted by (m, n) as a POSCAR and say what it is. monolayer: a file; graphene without one.

    Raises:
        ConfigError: (m, n) is no twist, or one of too many atoms.
        ReadError: the monolayer cannot be read.
        MismatchError: its lattice is not hexagonal.
        WriteError: the file exists or cannot be written, or its name is that of another format.
    """
    if reader_for(out) is not read_poscar:
        raise WriteError(f"{out}: a POSCAR is written; call it POSCAR or NAME.vasp")
    if out.exists():
        raise WriteError(f"{out}: exists; give another name")
    check_writable(out)
    twist = Twist.of(m, n)
    layer = graphene() if monolayer is None else read_structure(monolayer)
    try:
        bilayer = twisted_bilayer(layer, twist, distance=distance, vacuum=vacuum)
    except MismatchError as error:
        raise MismatchError(f"{monolayer}: {error}") from error
    with atomic_path(out) as temporary:
        write_poscar(bilayer, temporary)
    a, _, c = bilayer.lattice.abc
    say(
        f"{out}: {bilayer.formula}, {len(bilayer)} atoms, twisted by {twist.angle:.4f}°, "
        f"a = b = {a:.4f} Å, c = {c:.4f} Å"
    )


def _layer(monolayer: Structure) -> tuple[np.ndarray, np.ndarray]:
    """The atoms' x and y in the lattice of 1 and ζ, (N, 2), and how high they are above the lowest one, (N,) Å.

    Raises:
        MismatchError: the lattice is not hexagonal.
    """
    first, second, third = monolayer.lattice.matrix
    normal = np.cross(first, second)
    normal *= np.sign(normal @ third) / np.linalg.norm(normal)
    length = np.linalg.norm(first)
    along, across = second @ first / length**2, second @ np.cross(normal, first) / length**2
    point = np.array([along - across / math.sqrt(3), 2 * across / math.sqrt(3)])
    nearest = np.round(point)
    skew = np.linalg.norm(third - (third @ normal) * normal)
    if np.abs(point - nearest).max() * length > TOLERANCE or abs(nearest[1]) != 1 or skew > TOLERANCE:
        a, b, c, *angles = monolayer.lattice.parameters
        raise MismatchError(
            "a monolayer with a hexagonal lattice is needed (a = b, γ = 60° or 120°, c perpendicular), not one with "
            f"a, b, c = {a:.4f}, {b:.4f}, {c:.4f} Å and α, β, γ = {', '.join(f'{angle:.3f}' for angle in angles)}°"
        )
    fractions = monolayer.frac_coords
    in_plane = np.column_stack([fractions[:, 0] + fractions[:, 1] * nearest[0], fractions[:, 1] * nearest[1]])
    # the layer may lie across a face of its cell: it begins above the largest gap
    height = np.sort(fractions[:, 2] % 1)
    gap = np.diff(height, append=height[0] + 1).argmax()
    return in_plane, (fractions[:, 2] % 1 - height[(gap + 1) % len(height)]) % 1 * abs(third @ normal)


def _fractions(in_plane: np.ndarray, point: LatticePoint) -> np.ndarray:
    """Each atom, in each of the T cells, in the vectors to a lattice point and to the one at 120° to it, (N, T, 2).

    in_plane: (N, 2) in the lattice of 1 and ζ.
    """
    x, y = point
    vectors = np.array([[x, y], [-x - y, x]])
    inverse = np.array([[x, -y], [x + y, x]])  # times the number of cells
    number = x * x + x * y + y * y
    corners = np.array([[0, 0], vectors[0], vectors[1], vectors.sum(axis=0)])
    ranges = [np.arange(low, high + 1) for low, high in zip(corners.min(axis=0), corners.max(axis=0), strict=True)]
    points = np.stack(np.meshgrid(*ranges, indexing="ij"), axis=-1).reshape(-1, 2)
    place = points @ inverse
    inside = points[((place >= 0) & (place < number)).all(axis=1)]
    return (in_plane[:, None] + inside) @ inverse / number
