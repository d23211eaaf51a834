"""One calculation, independent of the code that made it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from pymatgen.core import Structure

from deeph_tracegrad.blocks import BlockMatrix
from deeph_tracegrad.errors import MismatchError
from deeph_tracegrad.orbitals import Basis, SpinMode


@dataclass(frozen=True, eq=False)
class Material:
    """Structure, basis and matrices of one calculation, in the project's one convention (eV, Å, m = -l..l).

    structure: atoms as the matrices index them: neither wrapped into the cell nor sorted. Lattice vectors are rows.
    overlap: S(R), spinless.
    hamiltonian: H(R): one matrix, or up and down for collinear spin; empty where the source has none.
    fermi_level: eV. electrons: valence electrons in the cell.
    converged: whether the self-consistency was reached; None where the source does not tell.
    provenance: source path, code and version, unit constants, largest violations mended on reading, remarks.
    """

    structure: Structure
    basis: Basis
    spin: SpinMode
    overlap: BlockMatrix | None = None
    hamiltonian: tuple[BlockMatrix, ...] = ()
    fermi_level: float | None = None
    electrons: float | None = None
    converged: bool | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = sorted(set(self.elements) - set(self.basis))
        if unknown:
            raise MismatchError(f"no basis is given for {', '.join(unknown)}")
        if self.hamiltonian and len(self.hamiltonian) != self.spin.channels:
            raise MismatchError(
                f"spin {self.spin} needs {self.spin.channels} Hamiltonian matrices, not {len(self.hamiltonian)}"
            )
        orbitals = self.basis.num_orbitals(self.elements)
        for matrix, components, name in [
            *((matrix, self.spin.components, "Hamiltonian") for matrix in self.hamiltonian),
            *([(self.overlap, 1, "overlap")] if self.overlap is not None else []),
        ]:
            if not np.array_equal(matrix.sizes, orbitals * components):
                raise MismatchError(f"the {name}'s block sizes do not follow from the basis {self.basis.describe()}")

    @property
    def elements(self) -> list[str]:
        """Element symbol of each atom, in order."""
        return [site.specie.symbol for site in self.structure]

    @property
    def num_orbitals(self) -> int:
        """Orbitals in the cell, without spin."""
        return int(self.basis.num_orbitals(self.elements).sum())

    def pair_vectors(self, pairs: np.ndarray) -> np.ndarray:
        """From atom i in cell 0 to atom j in cell R, (E, 3) Å: x_j + R·L - x_i."""
        return pair_vectors(self.structure.cart_coords, self.structure.lattice.matrix, pairs)

    def with_hamiltonian(self, hamiltonian: tuple[BlockMatrix, ...]) -> "Material":
        """The same structure and overlap with another Hamiltonian."""
        return replace(self, hamiltonian=hamiltonian)


def pair_vectors(positions: np.ndarray, cell: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """From atom i in cell 0 to atom j in cell R, (E, 3) in the positions' unit; exactly zero on site."""
    return positions[pairs[:, 4]] - positions[pairs[:, 3]] + pairs[:, :3] @ cell
