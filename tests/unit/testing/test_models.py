"""The checks of models: each kind of mistake is found by its own check, and by no other."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from deeph_tracegrad.blocks import BlockMatrix
from deeph_tracegrad.errors import MismatchError
from deeph_tracegrad.orbitals import SpinMode
from deeph_tracegrad.testing import check_model, cutoff_jump, equivariance, transformed
from materials import random_material

CUTOFF = 4.7  # Å
WITH_ROTATION = {"rotation", "rotation and inversion"}


def smooth(length):
    return np.where(length < CUTOFF, (1 - (length / CUTOFF) ** 2) ** 3, 0.0)


def decaying(length):
    return np.exp(-length)


def sums(material, of_bond):
    """Of a function of the bond vectors, over the bonds of each atom."""
    pairs = material.overlap.pairs
    found = of_bond(material.pair_vectors(pairs))
    return np.stack([np.bincount(pairs[:, 3], column, len(material.structure)) for column in np.atleast_2d(found)])


def scaled_overlap(material, of_atom, of_pair=0.0):
    """S, each block times a number for either atom and one for the pair."""
    overlap = material.overlap
    i, j = overlap.pairs[:, 3:].T
    factor = 1 + of_atom[i] + of_atom[j] + of_pair
    return material.with_hamiltonian(
        (overlap.with_entries(overlap.entries * np.repeat(factor, np.diff(overlap.offsets))),)
    )


def sound(material, message=smooth):
    """S scaled by what each atom gathers from its neighbours."""
    return scaled_overlap(material, sums(material, lambda d: message(np.linalg.norm(d, axis=1)))[0])


def knows_the_vertical(material):
    return scaled_overlap(material, sums(material, lambda d: smooth(np.linalg.norm(d, axis=1)) * d[:, 2] ** 2)[0])


def knows_left_from_right(material):
    def moments(d):
        length = np.linalg.norm(d, axis=1)
        return np.concatenate([smooth(length) * length**power * d.T for power in range(3)])

    return scaled_overlap(material, np.linalg.det(sums(material, moments).T.reshape(-1, 3, 3)))


def knows_the_numbers_of_atoms(material):
    return scaled_overlap(material, np.arange(len(material.structure)) % 3)  # a supercell repeats them


def knows_the_cells(material):
    return scaled_overlap(material, np.zeros(len(material.structure)), np.abs(material.overlap.pairs[:, :3]).sum(1) % 2)


def knows_the_lattice_vectors(material):
    return scaled_overlap(material, np.full(len(material.structure), max(material.structure.lattice.abc)))


def knows_how_many_atoms_there_are(material):
    return scaled_overlap(material, np.full(len(material.structure), len(material.structure)))


def favours_the_first_atom(material):
    gathered = sums(material, lambda d: smooth(np.linalg.norm(d, axis=1)))[0]
    return scaled_overlap(material, np.zeros(len(gathered)), gathered[material.overlap.pairs[:, 3]])


MISTAKES = {
    sound: set(),
    partial(sound, message=decaying): {"jump at the cutoff"},
    knows_the_vertical: WITH_ROTATION,
    knows_left_from_right: {"inversion", "rotation and inversion"},
    knows_the_numbers_of_atoms: {"order of the atoms"},
    knows_the_cells: {"atoms in other cells", "other lattice vectors", "supercell"},
    knows_the_lattice_vectors: {"other lattice vectors", "supercell"},
    knows_how_many_atoms_there_are: {"supercell"},
    favours_the_first_atom: {"hermiticity"},
}


@pytest.mark.parametrize(("model", "expected"), MISTAKES.items())
def test_each_mistake_is_found_by_its_check(model, expected):
    report = check_model(model, random_material(SpinMode.NONE), CUTOFF)
    scale = report.pop("largest |H|").value
    assert {name for name, result in report.items() if result.value > 1e-6 * scale} == expected
    assert all(result.value < 1e-11 * scale for name, result in report.items() if name not in expected)


def test_a_field_that_does_not_turn_with_the_spins():
    def in_a_field(material):
        overlap = material.overlap
        sizes = 2 * overlap.sizes
        blocks = [np.kron([[1.3, 0], [0, 0.7]], overlap.block(pair)).ravel() for pair in range(len(overlap))]
        return material.with_hamiltonian((BlockMatrix.of(overlap.pairs, np.concatenate(blocks) + 0j, sizes),))

    report = check_model(in_a_field, random_material(SpinMode.NONCOLLINEAR))
    scale = report.pop("largest |H|").value
    assert {name for name, result in report.items() if result.value > 1e-6 * scale} == WITH_ROTATION


def test_the_jump_is_that_of_the_messages_lost():
    """One pair of atoms and its reverse leave: each of the two loses one message."""
    material = random_material(SpinMode.NONE)
    pairs = material.overlap.pairs
    length = np.linalg.norm(material.pair_vectors(pairs), axis=1)
    leaving = length > length.max() - 1e-9
    assert leaving.sum() == 2
    losses = np.bincount(pairs[leaving, 3], minlength=3)
    lost = np.repeat(losses[pairs[:, 3:]].sum(axis=1) * ~leaving, np.diff(material.overlap.offsets))
    expected = np.abs(lost * material.overlap.entries).max() * decaying(CUTOFF)
    assert cutoff_jump(partial(sound, message=decaying), material, CUTOFF) == pytest.approx(expected, rel=1e-9)


def test_each_two_elements_have_a_cutoff_of_their_own():
    """Only what leaves can jump: here the pairs of Mo and S, whatever the others are told."""
    material = random_material(SpinMode.NONE)
    model = partial(sound, message=lambda length: np.where(length < 3.0, 1.0, 0.0))
    assert cutoff_jump(model, material, {"Mo-Mo": 9.0, "Mo-S": 3.0, "S-S": 9.0}) > 0.1
    assert cutoff_jump(model, material, {"Mo-Mo": 9.0, "Mo-S": 8.0, "S-S": 9.0}) < 1e-11
    with pytest.raises(MismatchError, match="no cutoff is given for Mo-S, S-S"):
        cutoff_jump(model, material, {"Mo-Mo": 9.0})


def test_what_is_no_number_shows():
    model = lambda material: scaled_overlap(material, np.full(len(material.structure), np.nan))  # noqa: E731
    assert all(np.isnan(result.value) for result in check_model(model, random_material(SpinMode.NONE), 4.0).values())


def test_what_cannot_be_checked():
    material = random_material(SpinMode.NONE)
    turn = partial(transformed, operation=-np.eye(3))
    with pytest.raises(MismatchError, match="gave a material without a Hamiltonian"):
        equivariance(lambda unlabelled: unlabelled.with_hamiltonian(()), material, turn)
    with pytest.raises(MismatchError, match="holds no overlap"):
        cutoff_jump(sound, replace(material, overlap=None), 4.0)
    with pytest.raises(MismatchError, match="blocks of H for pairs beyond the cutoff"):
        cutoff_jump(lambda unlabelled: unlabelled.with_hamiltonian(material.hamiltonian), material, 4.0)


def test_the_report_is_a_table():
    lines = str(check_model(sound, random_material(SpinMode.NONE))).splitlines()
    assert lines[0].split() == ["check", "measured", "expected"]
    assert lines[2].startswith("rotation ")
    assert lines[2].endswith("eV  0 to rounding")
    assert len({line.index("eV") for line in lines[1:]}) == 1
