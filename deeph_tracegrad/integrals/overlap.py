"""From a structure and basis files to what a DFT code would be run for: S(R), and the number of electrons."""

from pymatgen.core import Structure

from deeph_tracegrad.blocks import union_pairs
from deeph_tracegrad.edges import onsite_pairs, pairs_within, radii_reach
from deeph_tracegrad.errors import MismatchError
from deeph_tracegrad.integrals.matrices import Orbitals, overlap_matrix
from deeph_tracegrad.material import Material
from deeph_tracegrad.orbitals import Basis, SpinMode
from deeph_tracegrad.parallel import ALONE, World


def overlap_material(structure: Structure, orbitals: Orbitals, ranks: World = ALONE) -> Material:
    """A structure with S(R) on every pair of atoms whose orbitals overlap, without Hamiltonian.

    orbitals: of each element, in the order that the basis takes. ranks: share the work; S is the main one's.

    Raises:
        MismatchError: an element has no orbitals, or they are of different DFT codes.
    """
    missing = {site.specie.symbol for site in structure} - set(orbitals)
    if missing:
        raise MismatchError(f"no orbitals are given for {', '.join(sorted(missing))}")
    basis = Basis.of({element: functions.basis for element, functions in orbitals.items()})
    pairs = union_pairs(onsite_pairs(len(structure)), pairs_within(structure, radii_reach(basis)))
    counts = [basis[site.specie.symbol].valence_electrons for site in structure]
    return Material(
        structure=structure,
        basis=basis,
        spin=SpinMode.NONE,
        overlap=overlap_matrix(structure, orbitals, pairs, ranks),
        electrons=None if None in counts else float(sum(count for count in counts if count is not None)),
        provenance={
            "code": "deeph-tracegrad, two-centre integrals",
            "basis files": {element: str(functions.source) for element, functions in orbitals.items()},
            "quadrature": {element: str(functions.quadrature) for element, functions in orbitals.items()},
            "bohr_angstrom": next(iter(orbitals.values())).bohr_angstrom,
        },
    )
