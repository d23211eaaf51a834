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

    structure: atoms as the matrices index them: neither wrapped into the cell nor sorted. Lattice vectors are rows. A
        site's label is the source's own name of the atom's kind (Fe1, C_up).
    overlap: S(R), spinless.
    hamiltonian: H(R): one matrix, or up and down for collinear spin; empty where the source has none.
    density: the density matrix, in the same form as H: D(R) is the mean over k of exp(-2 pi i k.R) C f C†, with the
        occupations f up to 2 where the spin is none and up to 1 else, so that the sum of conj(D_ij(R)) S_ij(R) over all
        pairs and spins is the number of electrons. position: <i|r|j>, x, y and z, spinless, from the Cartesian origin,
        in Å. Both empty where the source has none or they were not asked for.
    fermi_level: eV. electrons: valence electrons in the cell.
    converged: whether the self-consistency was reached; None where the source does not tell.
    provenance: source path, code and version, unit constants, largest violations mended on reading, remarks.
    """

    structure: Structure
    basis: Basis
    spin: SpinMode
    overlap: BlockMatrix | None = None
    hamiltonian: tuple[BlockMatrix, ...] = ()
    density: tuple[BlockMatrix, ...] = ()
    position: tuple[BlockMatrix, ...] = ()
    fermi_level: float | None = None
    electrons: float | None = None
    converged: bool | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = sorted(set(self.elements) - set(self.basis))
        if unknown:
            raise MismatchError(f"no basis is given for {', '.join(unknown)}")
        spin, orbitals = self.spin, self.basis.num_orbitals(self.elements)
        for name, matrices, number, components in [
            ("overlap", () if self.overlap is None else (self.overlap,), 1, 1),
            ("Hamiltonian", self.hamiltonian, spin.channels, spin.components),
            ("density matrix", self.density, spin.channels, spin.components),
            ("position matrix", self.position, 3, 1),
        ]:
            if len(matrices) not in (0, number):
                raise MismatchError(f"the {name} needs {number} matrices with spin {spin}, not {len(matrices)}")
            if any(not np.array_equal(matrix.sizes, orbitals * components) for matrix in matrices):
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

    def permuted(self, order: np.ndarray) -> "Material":
        """The same material with its atoms in another order: new atom a is old atom order[a]; order: (N,) int."""

        def moved(matrices: tuple[BlockMatrix, ...]) -> tuple[BlockMatrix, ...]:
            return tuple(matrix.permuted(order) for matrix in matrices)

        return replace(
            self,
            structure=Structure.from_sites([self.structure[int(atom)] for atom in order]),
            overlap=None if self.overlap is None else self.overlap.permuted(order),
            hamiltonian=moved(self.hamiltonian),
            density=moved(self.density),
            position=moved(self.position),
        )


def pair_vectors(positions: np.ndarray, cell: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """From atom i in cell 0 to atom j in cell R, (E, 3) in the positions' unit; exactly zero on site."""
    return positions[pairs[:, 4]] - positions[pairs[:, 3]] + pairs[:, :3] @ cell
