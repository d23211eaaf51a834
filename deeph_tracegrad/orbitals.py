"""Shells, bases and orbital conventions: the only place that permutes or signs orbitals.

Inside the project a shell of degree l holds its 2l+1 real harmonics in the order m = -l..l without Condon-Shortley
sign (p: y, z, x; d: xy, yz, z², xz, x²-y²), which is the order of the current DeepH format.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum

import numpy as np

from deeph_tracegrad.errors import MismatchError

MAX_DEGREE = 4
SHELL_LETTERS = "spdfg"


class SpinMode(StrEnum):
    """How H depends on spin; S never does."""

    NONE = "none"  # one real H
    COLLINEAR = "collinear"  # H_up and H_down, both real
    NONCOLLINEAR = "noncollinear"  # one complex H, spin-major inside an atom pair: uu ud / du dd

    @property
    def channels(self) -> int:
        """Number of block matrices that make up H."""
        return 2 if self is SpinMode.COLLINEAR else 1

    @property
    def components(self) -> int:
        """Rows that one orbital takes in a block of H."""
        return 2 if self is SpinMode.NONCOLLINEAR else 1


class OrbitalConvention(Enum):
    """Order and sign of the real harmonics inside one shell, as a code writes them."""

    DEEPH = "deeph"
    OPENMX = "openmx"  # also every file of the legacy DeepH format
    ABACUS = "abacus"
    SIESTA = "siesta"

    def magnetic_numbers(self, degree: int) -> list[int]:
        """The m of each position in a shell of this degree."""
        if self in {OrbitalConvention.DEEPH, OrbitalConvention.SIESTA}:
            return list(range(-degree, degree + 1))
        if self is OrbitalConvention.OPENMX and degree == 1:
            return [1, -1, 0]
        if self is OrbitalConvention.OPENMX and degree == 2:
            return [0, 2, -2, 1, -1]
        return [0] + [sign * m for m in range(1, degree + 1) for sign in (1, -1)]

    def sign(self, magnetic_number: int) -> int:
        """Sign of the code's harmonic relative to the project's."""
        return (-1) ** magnetic_number if self in {OrbitalConvention.ABACUS, OrbitalConvention.SIESTA} else 1


@dataclass(frozen=True)
class OrbitalOrder:
    """A signed permutation of one atom's orbitals: `new = sign * old[index]`."""

    index: np.ndarray  # (n,) int
    sign: np.ndarray  # (n,) +-1.0

    @classmethod
    def ascending(cls, degrees: Sequence[int]) -> "OrbitalOrder":
        """From shells of these degrees, in any order, to ascending ones; shells of one degree stay in their order."""
        sizes = [2 * degree + 1 for degree in degrees]
        starts = np.cumsum([0, *sizes])
        shells = sorted(range(len(sizes)), key=lambda shell: degrees[shell])
        index = np.concatenate([starts[shell] + np.arange(sizes[shell]) for shell in shells])
        return cls(index, np.ones(len(index)))

    @property
    def inverse(self) -> "OrbitalOrder":
        """From the new order back to the old one."""
        place = np.argsort(self.index)
        return OrbitalOrder(place, self.sign[place])

    def repeated(self, times: int) -> "OrbitalOrder":
        """The same order for each of `times` consecutive copies of the orbitals (spin components)."""
        size = len(self.index)
        index = np.concatenate([self.index + copy * size for copy in range(times)])
        return OrbitalOrder(index, np.tile(self.sign, times))


@dataclass(frozen=True)
class ElementBasis:
    """The shells of one element.

    shells: degree l of every radial function, ascending.
    cutoff_radius: radius beyond which all of them vanish, in Å; None where the source does not tell.
    label: the DFT code's own name of the basis (`C6.0-s2p2d1`, an .orb file name); None where unknown.
    valence_electrons: of the neutral atom, as its pseudopotential leaves them; None where the source does not tell.
    """

    shells: tuple[int, ...]
    cutoff_radius: float | None = None
    label: str | None = None
    valence_electrons: float | None = None

    def __post_init__(self) -> None:
        if not self.shells or list(self.shells) != sorted(self.shells):
            raise MismatchError(f"shells must be a non-empty ascending list of degrees, not {list(self.shells)}")
        if not all(0 <= degree <= MAX_DEGREE for degree in self.shells):
            raise MismatchError(f"shells {list(self.shells)} go beyond the supported degrees 0..{MAX_DEGREE} (s..g)")

    @property
    def num_orbitals(self) -> int:
        """Number of orbitals of one atom, without spin."""
        return sum(2 * degree + 1 for degree in self.shells)

    @property
    def shell_starts(self) -> list[int]:
        """Position of each shell's first orbital."""
        sizes = [2 * degree + 1 for degree in self.shells]
        return [sum(sizes[:shell]) for shell in range(len(sizes))]

    @property
    def name(self) -> str:
        """The shells in chemists' notation: s2p2d1."""
        return "".join(
            f"{letter}{self.shells.count(degree)}"
            for degree, letter in enumerate(SHELL_LETTERS)
            if degree in self.shells
        )

    def difference(self, other: "ElementBasis") -> tuple[str, str, str] | None:
        """What tells two bases of one element apart, this one's and the other's: shells, or labels if both have one."""
        if self.shells != other.shells:
            return "shells", self.name, other.name
        if self.label and other.label and self.label != other.label:
            return "basis", self.label, other.label
        return None

    def completed(self, other: "ElementBasis") -> "ElementBasis":
        """This basis, with what it does not tell taken from the other."""
        own = {name: value for name, value in vars(self).items() if value is not None}
        return ElementBasis(**vars(other) | own)

    def order(self, source: OrbitalConvention, target: OrbitalConvention) -> OrbitalOrder:
        """How an atom's orbitals in the convention `target` follow from those in `source`."""
        index, sign = [], []
        for start, degree in zip(self.shell_starts, self.shells, strict=True):
            position = {m: place for place, m in enumerate(source.magnetic_numbers(degree))}
            for m in target.magnetic_numbers(degree):
                index.append(start + position[m])
                sign.append(source.sign(m) * target.sign(m))
        return OrbitalOrder(np.array(index), np.array(sign, dtype=float))


@dataclass(frozen=True)
class Basis(Mapping[str, ElementBasis]):
    """The basis of each element of a calculation or dataset; the order of the elements is part of it."""

    elements: tuple[str, ...]
    bases: tuple[ElementBasis, ...]

    @classmethod
    def of(cls, bases: Mapping[str, ElementBasis]) -> "Basis":
        """From a mapping of element symbol to its basis, in the mapping's order."""
        return cls(tuple(bases), tuple(bases.values()))

    def __getitem__(self, element: str) -> ElementBasis:
        """The basis of one element."""
        try:
            return self.bases[self.elements.index(element)]
        except ValueError:
            raise KeyError(element) from None

    def __iter__(self) -> Iterator[str]:
        """Element symbols, in order."""
        return iter(self.elements)

    def __len__(self) -> int:
        """Number of elements."""
        return len(self.elements)

    def num_orbitals(self, elements: Sequence[str]) -> np.ndarray:
        """Orbitals of each of the atoms, (N,) int64, without spin."""
        counts = {element: basis.num_orbitals for element, basis in self.items()}
        return np.array([counts[element] for element in elements], dtype=np.int64)

    def species(self, elements: Sequence[str]) -> np.ndarray:
        """Position of each atom's element in this basis, (N,) int64."""
        position = {element: place for place, element in enumerate(self.elements)}
        return np.array([position[element] for element in elements], dtype=np.int64)

    def describe(self) -> str:
        """One line for a table or a message."""
        return ", ".join(f"{element} {basis.name}" for element, basis in self.items())

    def merged(self, other: "Basis") -> "Basis":
        """This basis with the elements that only `other` has appended.

        Raises:
            MismatchError: one element has different bases in the two.
        """
        for element in set(self) & set(other):
            if difference := self[element].difference(other[element]):
                what, one, two = difference
                raise MismatchError(f"{element} has the {what} {one} in one and {two} in the other")
        shared = {element: self[element].completed(other[element]) for element in self if element in other}
        return Basis.of({**self, **other, **shared})
