"""From the rows of ABACUS' matrices to atoms and orbitals in the project's order, and whether they can be right.

Shape letters: N atoms, E atom pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deeph_tracegrad.blocks import BlockMatrix
from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.orbitals import Basis, OrbitalConvention, OrbitalOrder, SpinMode
from deeph_tracegrad.preprocess.abacus.cell_matrices import CellMatrices

# Of the largest entry. The files hold both A(R) and A(-R), to six or more digits; a damaged number stands out.
LARGEST_VIOLATION = 1e-5
# Beyond what normalised orbitals and any atom can have: such a number was damaged.
LARGEST_ENTRY = {"S": 10.0, "H": 1e5, "DM": 1e5, "r": 1e6}


@dataclass(frozen=True)
class Layout:
    """How the rows of the files map to atoms and orbitals.

    kinds: (N,) place of each atom's element in the basis. orbitals: (N,) orbitals of each atom.
    orders: from the file's order to the project's, for each element, without spin.
    """

    kinds: np.ndarray
    orbitals: np.ndarray
    orders: Sequence[OrbitalOrder]
    spin: SpinMode

    @classmethod
    def of(cls, basis: Basis, elements: Sequence[str], spin: SpinMode) -> "Layout":
        """For atoms of these elements, in the order of the matrices."""
        orders = [element.order(OrbitalConvention.ABACUS, OrbitalConvention.DEEPH) for element in basis.values()]
        return cls(basis.species(elements), basis.num_orbitals(elements), orders, spin)

    def blocks(self, path: Path, matrix: CellMatrices, kind: str) -> BlockMatrix:
        """The matrix in the project's order, spin-major.

        path: where it comes from, for messages. kind: H, S, DM or r.

        Raises:
            ReadError: it does not fit the basis and the spin mode, or has an impossible entry.
        """
        components = self.spin.components
        rows = components * self.orbitals.sum()
        if matrix.header.dimension != rows:
            raise ReadError(path, f"has {matrix.header.dimension} rows; spin {self.spin} and the basis make {rows}")
        if np.iscomplexobj(matrix.values) != (components == 2 and kind != "r"):
            raise ReadError(path, f"its numbers are {matrix.values.dtype}, which does not go with spin {self.spin}")
        largest = np.abs(matrix.values).max(initial=0.0)
        if largest > LARGEST_ENTRY[kind]:
            raise ReadError(path, f"has an entry of {largest:.2g}, which no {kind}(R) can have")
        orders = [_spin_major(order, components) for order in self.orders]
        return matrix.to_blocks(components * self.orbitals).reordered(orders, self.kinds)

    def for_file(self, blocks: BlockMatrix) -> BlockMatrix:
        """The reverse of `blocks`: a matrix in the file's order; blocks: with as many rows as there."""
        orders = [_spin_major(order, self.spin.components).inverse for order in self.orders]
        return blocks.reordered(orders, self.kinds)

    def hermitian(self, path: Path, matrix: CellMatrices, kind: str) -> tuple[BlockMatrix, float]:
        """As `blocks`, symmetrised; and the largest violation that the matrix had.

        Raises:
            ReadError: as `blocks`, or the matrix is not Hermitian.
        """
        return _symmetrised(path, self.blocks(path, matrix, kind))

    def overlap(self, path: Path, matrix: CellMatrices) -> tuple[BlockMatrix, float]:
        """S without spin, symmetrised; and the largest violation that it had.

        Raises:
            ReadError: as `hermitian`, or S depends on spin.
        """
        return _symmetrised(path, self.spinless(path, self.blocks(path, matrix, "S")))

    def spinless(self, path: Path, blocks: BlockMatrix) -> BlockMatrix:
        """S or r without spin. A run with spinors writes them twice, for up and for down.

        Raises:
            ReadError: the matrix depends on spin.
        """
        if self.spin is not SpinMode.NONCOLLINEAR:
            return blocks
        spinless = BlockMatrix.of(blocks.pairs, np.zeros(len(blocks.entries) // 4), self.orbitals)
        excess = 0.0
        for ((row, column), _, source), (_, _, target) in zip(
            blocks.stacks(self.kinds), spinless.stacks(self.kinds), strict=True
        ):
            rows, columns = self.orders[row].index.size, self.orders[column].index.size
            stack = blocks.entries[source].reshape(-1, 2, rows, 2, columns)
            up = stack[:, 0, :, 0].real.copy()
            spinless.entries[target] = up.reshape(len(up), -1)
            stack[:, 0, :, 0] -= up
            stack[:, 1, :, 1] -= up
            excess = max(excess, float(np.abs(stack).max(initial=0.0)))
        if not excess <= LARGEST_VIOLATION:
            raise ReadError(path, f"depends on spin (by {excess:.2g}), which it never does; it is damaged")
        return spinless


def _symmetrised(path: Path, blocks: BlockMatrix) -> tuple[BlockMatrix, float]:
    """(A + A†) / 2, and the largest |A - A†| before; raises as `require_hermitian`."""
    symmetric, violation = blocks.symmetrised()
    require_hermitian(path, violation, np.abs(blocks.entries).max(initial=0.0))
    return symmetric, violation


def require_hermitian(path: Path, violation: float, largest: float) -> None:
    """Refuse a matrix that is off by more than rounding. largest: of its entries.

    Raises:
        ReadError: it is.
    """
    if not violation <= LARGEST_VIOLATION * largest:
        raise ReadError(
            path,
            f"is not Hermitian: A(R) and A(-R)† differ by {violation:.2g}, with entries up to {largest:.2g}; "
            "the file is damaged",
        )


def _spin_major(order: OrbitalOrder, components: int) -> OrbitalOrder:
    """The order for rows that count spin fastest, to rows that count it slowest."""
    index = np.concatenate([components * order.index + spin for spin in range(components)])
    return OrbitalOrder(index, np.tile(order.sign, components))
