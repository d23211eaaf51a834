"""S from basis files against the S that OpenMX and ABACUS wrote, and the geometric edges against their pairs."""

from dataclasses import replace

import numpy as np
import pytest

from deeph_tracegrad.blocks import find_pairs
from deeph_tracegrad.edges import onsite_pairs, pairs_within, radii_reach
from deeph_tracegrad.integrals.basis_files import read_orbitals
from deeph_tracegrad.integrals.matrices import kinetic_matrix, overlap_matrix, position_matrices
from deeph_tracegrad.integrals.overlap import overlap_material
from deeph_tracegrad.integrals.radial import Quadrature
from deeph_tracegrad.preprocess.openmx.reader import read_openmx
from deeph_tracegrad.preprocess.runs import read_material

OPENMX = ["graphene", "mos2", "fe_bcc_spin", "bi_soc"]
ABACUS = ["si2", "mos2", "fe_nspin2", "bi_soc", "mos2_get_S"]


def run_with_orbitals(unpacked, code, name):
    run = unpacked(f"{code}/{name}")
    material = read_material(run)
    labels = {element: basis.label for element, basis in material.basis.items()}
    folder = unpacked("openmx/pao") if code == "openmx" else unpacked(f"abacus/{name.removesuffix('_get_S')}")
    return material, read_orbitals(folder, labels, material.basis)


def differences(own, theirs):
    """The largest difference off and on site."""
    error = np.abs(own.on_pairs(theirs.pairs).entries - theirs.entries)
    block = np.maximum.reduceat(error, theirs.offsets[:-1])
    on_site = (theirs.pairs[:, :3] == 0).all(axis=1) & (theirs.pairs[:, 3] == theirs.pairs[:, 4])
    return block[~on_site].max(), block[on_site].max()


@pytest.mark.parametrize("name", OPENMX)
def test_overlaps_are_openmxs(unpacked, name):
    material, orbitals = run_with_orbitals(unpacked, "openmx", name)
    off_site, on_site = differences(
        overlap_matrix(material.structure, orbitals, material.overlap.pairs), material.overlap
    )
    assert off_site < 1e-12
    assert on_site < 1e-10


@pytest.mark.parametrize("name", ABACUS)
def test_overlaps_are_abacuss(unpacked, name):
    material, orbitals = run_with_orbitals(unpacked, "abacus", name)
    off_site, on_site = differences(
        overlap_matrix(material.structure, orbitals, material.overlap.pairs), material.overlap
    )
    assert off_site < 1e-8
    assert on_site < 1e-8


@pytest.mark.parametrize(("code", "least", "most"), [("openmx", 1e-5, 1e-4), ("abacus", 1e-8, 1e-6)])
def test_converged_integrals_are_not_the_codes(unpacked, code, least, most):
    """By so much their own quadratures are off: what a network's H would be solved with, were they not followed."""
    material, orbitals = run_with_orbitals(unpacked, code, "mos2")
    converged = {element: replace(own, quadrature=Quadrature.CONVERGED) for element, own in orbitals.items()}
    off_site, _ = differences(overlap_matrix(material.structure, converged, material.overlap.pairs), material.overlap)
    assert least < off_site < most


@pytest.mark.parametrize("name", OPENMX)
def test_pairs_within_the_cutoff_radii_are_openmxs(unpacked, name):
    material, orbitals = run_with_orbitals(unpacked, "openmx", name)
    made = overlap_material(material.structure, orbitals)
    assert len(made.overlap) == len(material.overlap)
    assert (find_pairs(made.overlap.pairs, material.overlap.pairs) >= 0).all()
    assert made.electrons == pytest.approx(material.electrons, abs=1e-9)


@pytest.mark.parametrize("name", ABACUS)
def test_pairs_within_the_cutoff_radii_hold_all_of_abacuss_overlap(unpacked, name):
    material, orbitals = run_with_orbitals(unpacked, "abacus", name)
    made = overlap_material(material.structure, orbitals)
    assert np.abs(material.overlap.on_pairs(made.overlap.pairs).entries).sum() == pytest.approx(
        np.abs(material.overlap.entries).sum(), rel=1e-14
    )


def test_the_overlap_is_exactly_hermitian_and_the_order_of_pairs_does_not_matter(unpacked):
    material, orbitals = run_with_orbitals(unpacked, "openmx", "mos2")
    whole = overlap_matrix(material.structure, orbitals, material.overlap.pairs)
    assert whole.symmetrised()[1] == 0.0
    order = np.random.default_rng(0).permutation(len(whole))
    shuffled = overlap_matrix(material.structure, orbitals, whole.pairs[order])
    assert np.abs(shuffled.on_pairs(whole.pairs).entries - whole.entries).max() < 1e-14


def test_kinetic_energy_is_hermitian_and_positive_on_site(unpacked):
    material, orbitals = run_with_orbitals(unpacked, "abacus", "si2")
    kinetic = kinetic_matrix(material.structure, orbitals, material.overlap.pairs)
    assert kinetic.symmetrised()[1] == 0.0
    for place in find_pairs(kinetic.pairs, onsite_pairs(2)):
        assert np.linalg.eigvalsh(kinetic.block(place)).min() > 0


def test_positions_move_with_the_cell(unpacked):
    """<i 0| r |j R> and <j 0| r |i -R> differ by the cell vector times S."""
    material, orbitals = run_with_orbitals(unpacked, "abacus", "mos2")
    pairs = material.overlap.pairs
    overlap = overlap_matrix(material.structure, orbitals, pairs)
    shift = np.repeat(pairs[:, :3] @ material.structure.lattice.matrix, np.diff(overlap.offsets), axis=0)
    for axis, position in enumerate(position_matrices(material.structure, orbitals, pairs)):
        adjoint = position.adjoint().on_pairs(pairs)
        assert np.abs(position.entries - adjoint.entries - shift[:, axis] * overlap.entries).max() < 1e-6


def test_atoms_outside_the_cell_keep_their_place(unpacked):
    material = read_material(unpacked("openmx/graphene"))
    moved = material.structure.copy()
    moved.translate_sites([1], [2, -1, 0], to_unit_cell=False)
    pairs = pairs_within(moved, radii_reach(material.basis))
    assert len(pairs) + 2 == len(material.overlap)
    here, there = moved.cart_coords[pairs[:, 3]], moved.cart_coords[pairs[:, 4]]
    lengths = np.linalg.norm(there - here + pairs[:, :3] @ moved.lattice.matrix, axis=1)
    assert lengths.max() < radii_reach(material.basis)["C-C"]


@pytest.mark.parametrize("name", ["graphene", "bi_soc"])
def test_positions_are_openmxs_within_its_real_space_grid(unpacked, name):
    """OpenMX sums r over a grid, which leaves 5e-5 Å."""
    material = read_openmx(unpacked(f"openmx/{name}"), matrices=("position",))
    _, orbitals = run_with_orbitals(unpacked, "openmx", name)
    own = position_matrices(material.structure, orbitals, material.overlap.pairs)
    for mine, theirs in zip(own, material.position, strict=True):
        assert max(differences(mine, theirs)) < 1e-4
