"""Matrices of whole crystals against finite differences of each other, in the units that they are told in.

Shape letters: E pairs, B flat block entries.
"""

import numpy as np
import pytest

from deeph_tracegrad.blocks import on_site, union_pairs
from deeph_tracegrad.edges import onsite_pairs, pairs_within, radii_reach
from deeph_tracegrad.errors import MismatchError
from deeph_tracegrad.integrals.basis_files import read_orbitals
from deeph_tracegrad.integrals.matrices import (
    kinetic_matrix,
    momentum_matrices,
    overlap_gradients,
    overlap_matrix,
    position_matrices,
)
from deeph_tracegrad.preprocess.runs import read_material
from deeph_tracegrad.units import ABACUS_BOHR_ANGSTROM, OPENMX_BOHR_ANGSTROM

HARTREE_EV = 27.2114  # to the digits on which all codes agree
BOHR_ANGSTROM = {"openmx": OPENMX_BOHR_ANGSTROM, "abacus": ABACUS_BOHR_ANGSTROM}


@pytest.fixture(scope="module", params=["openmx", "abacus"])
def crystal(request, unpacked):
    """MoS2 without symmetry, one atom far outside the cell; its orbitals, the pairs up to 4 Å, 1 bohr in Å."""
    material = read_material(unpacked(f"{request.param}/mos2"))
    folder = unpacked("openmx/pao" if request.param == "openmx" else "abacus/mos2")
    labels = {element: basis.label for element, basis in material.basis.items()}
    structure = material.structure.copy()
    structure.perturb(0.2, seed=1)
    structure.translate_sites([1], [2, -1, 0], to_unit_cell=False)
    reach = dict.fromkeys(radii_reach(material.basis), 4.0)
    pairs = union_pairs(onsite_pairs(3), pairs_within(structure, reach))
    return structure, read_orbitals(folder, labels, material.basis), pairs, BOHR_ANGSTROM[request.param]


def moved(structure, atom, shift):
    result = structure.copy()
    result.translate_sites([atom], shift, frac_coords=False, to_unit_cell=False)
    return result


def of_entries(pairs, mask, matrix):
    """The entries of these pairs, (B,) bool."""
    return np.repeat(mask(pairs), np.diff(matrix.offsets))


def between(pairs, atom):
    """Whether the second atom is this one and the first another, (E,) bool."""
    return (pairs[:, 4] == atom) & (pairs[:, 3] != atom)


@pytest.mark.parametrize("atom", [0, 1, 2])
def test_gradients_are_what_moving_the_second_atom_changes(crystal, atom):
    structure, orbitals, pairs, _ = crystal
    gradients = overlap_gradients(structure, orbitals, pairs)
    step = 1e-3  # Å
    chosen = of_entries(pairs, lambda pairs: between(pairs, atom), gradients[0])
    for axis, gradient in enumerate(gradients):
        ahead, behind = (
            overlap_matrix(moved(structure, atom, sign * step * np.eye(3)[axis]), orbitals, pairs).entries
            for sign in (1, -1)
        )
        slope = (ahead - behind) / (2 * step)
        assert np.abs(gradient.entries[chosen]).max() > 0.1
        assert np.abs(slope - gradient.entries)[chosen].max() < 1e-6


def test_gradients_give_the_change_under_strain(crystal):
    """Which also moves the images of an atom against it: dS/dε_ab is gradient a times component b of the bond."""
    structure, orbitals, pairs, _ = crystal
    rng = np.random.default_rng(2)
    strain = 1e-4 * rng.normal(size=(3, 3))
    ahead, behind = (
        overlap_matrix(type(structure)(cell, structure.species, structure.frac_coords), orbitals, pairs).entries
        for cell in (structure.lattice.matrix @ (np.eye(3) + sign * strain) for sign in (1, -1))
    )
    gradients = overlap_gradients(structure, orbitals, pairs)
    first, second = (structure.cart_coords[pairs[:, place]] for place in (3, 4))
    vectors = second - first + pairs[:, :3] @ structure.lattice.matrix
    shifts = np.repeat(vectors @ strain, np.diff(gradients[0].offsets), axis=0)
    expected = sum(gradient.entries * shift for gradient, shift in zip(gradients, shifts.T, strict=True))
    assert np.abs(expected).max() > 1e-4
    assert np.abs((ahead - behind) / 2 - expected).max() < 1e-8


def test_the_momentum_is_antihermitian_without_ih(crystal):
    structure, orbitals, pairs, _ = crystal
    for momentum, gradient in zip(
        momentum_matrices(structure, orbitals, pairs), overlap_gradients(structure, orbitals, pairs), strict=True
    ):
        assert np.array_equal(momentum.entries, -gradient.entries)
        assert np.abs(momentum.entries + momentum.adjoint().on_pairs(pairs).entries).max() < 1e-12
        own = of_entries(pairs, on_site, momentum)
        assert np.abs(momentum.entries[own]).max() > 0.1  # s to p


def laplacian(matrix_of, structure, atom, step=0.01):
    """Of a matrix by the place of an atom, (B,), per Å²."""
    shifts = step * np.concatenate([np.eye(3), -np.eye(3)])
    return (sum(matrix_of(moved(structure, atom, shift)) for shift in shifts) - 6 * matrix_of(structure)) / step**2


def test_the_kinetic_energy_is_the_laplacian_of_the_overlap_in_ev(crystal):
    structure, orbitals, pairs, bohr = crystal
    kinetic = kinetic_matrix(structure, orbitals, pairs)
    chosen = of_entries(pairs, lambda pairs: between(pairs, 0), kinetic)

    def overlap(displaced):
        return overlap_matrix(displaced, orbitals, pairs).entries

    expected = -HARTREE_EV * bohr**2 / 2 * laplacian(overlap, structure, 0)
    assert np.abs(kinetic.entries[chosen]).max() > 1
    assert np.abs(expected - kinetic.entries)[chosen].max() < 1e-3


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_momentum_is_the_commutator_of_position_and_kinetic_energy(crystal, axis):
    """∇ = [r, -∇²/2], where -∇²/2 on either side moves that side's atom."""
    structure, orbitals, pairs, _ = crystal

    def position(displaced):
        return position_matrices(displaced, orbitals, pairs)[axis].entries

    momentum = momentum_matrices(structure, orbitals, pairs)[axis]
    for i, j in [(0, 1), (2, 0)]:
        chosen = of_entries(pairs, lambda pairs: (pairs[:, 3] == i) & (pairs[:, 4] == j), momentum)  # noqa: B023
        commutator = (laplacian(position, structure, i) - laplacian(position, structure, j)) / 2
        assert np.abs(momentum.entries[chosen]).max() > 0.1
        assert np.abs(commutator - momentum.entries)[chosen].max() < 1e-4


def test_position_of_shifted_crystals(crystal):
    """The whole crystal moved by t: t S more, however far it is from the origin."""
    structure, orbitals, pairs, _ = crystal
    shift = np.array([5.0, -3.0, 0.7])
    shifted = structure.copy()
    shifted.translate_sites(range(3), shift, frac_coords=False, to_unit_cell=False)
    overlap = overlap_matrix(structure, orbitals, pairs)
    for one, other, by in zip(
        position_matrices(structure, orbitals, pairs),
        position_matrices(shifted, orbitals, pairs),
        shift,
        strict=True,
    ):
        assert np.abs(other.entries - one.entries - by * overlap.entries).max() < 1e-10


def test_a_pair_without_its_partner_is_refused(crystal):
    structure, orbitals, pairs, _ = crystal
    with pytest.raises(MismatchError, match="without its partner"):
        overlap_matrix(structure, orbitals, pairs[:-1])
    assert len(overlap_gradients(structure, orbitals, pairs[:-1])[0]) == len(pairs) - 1
