"""The figures of a run against independent ones; rest in test_inspection.py."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.linalg import eigvalsh
from scipy.spatial.transform import Rotation

from deeph_tracegrad.blocks import BlockMatrix, dense_at_k
from deeph_tracegrad.orbitals import SpinMode
from deeph_tracegrad.preprocess.figures import CHECKED_K, largest_channel, measure
from deeph_tracegrad.preprocess.runs import read_material
from materials import random_material


@pytest.mark.parametrize("case", ["openmx/mos2", "abacus/fe_nspin2", "openmx/bi_soc"])
def test_levels_and_eigenvalues_of_real_runs(unpacked, case):
    material = read_material(unpacked(case))
    figures = measure(material)
    cells = [matrix.on_pairs(_own_pairs(len(material.structure))) for matrix in material.hamiltonian]
    for element in set(material.elements):
        atoms = [atom for atom, symbol in enumerate(material.elements) if symbol == element]
        diagonals = [np.diag(cell.block(atom)).real for cell in cells for atom in atoms]
        assert figures.on_site_levels[element] == pytest.approx(np.mean(diagonals), abs=1e-10)
    lowest = min(eigvalsh(dense_at_k(material.overlap, np.array(k)))[0] for k in CHECKED_K)
    assert figures.lowest_overlap == pytest.approx(lowest, rel=1e-9)
    assert figures.shortest == pytest.approx(_nearest(material), abs=1e-9)
    assert figures.hamiltonian.pairs == len(largest_channel(material.hamiltonian))


def test_exchange_splitting_of_real_runs(unpacked):
    iron = read_material(unpacked("openmx/fe_bcc_spin"))
    own = _own_pairs(2)
    up, down = (
        np.mean([np.trace(matrix.on_pairs(own).block(atom)) for atom in range(2)]) for matrix in iron.hamiltonian
    )
    assert measure(iron).exchange_splitting == pytest.approx(abs(up - down) / iron.hamiltonian[0].sizes[0])
    assert measure(iron).exchange_splitting > 0.1
    assert measure(read_material(unpacked("openmx/bi_soc"))).exchange_splitting < 1e-6  # not magnetic
    assert measure(read_material(unpacked("openmx/graphene"))).exchange_splitting is None


def test_exchange_splitting_does_not_depend_on_the_direction_of_the_spin():
    collinear = random_material(SpinMode.COLLINEAR)
    expected = measure(collinear).exchange_splitting
    for vector in ([0, 0, 0], [0.3, -1.1, 0.7]):
        x, y, z, w = Rotation.from_rotvec(vector).as_quat()
        turn = np.array([[w - 1j * z, -y - 1j * x], [y - 1j * x, w + 1j * z]])
        figures = measure(_as_noncollinear(collinear, turn))
        assert figures.exchange_splitting == pytest.approx(expected)
        assert figures.on_site_levels == pytest.approx(measure(collinear).on_site_levels)


def _as_noncollinear(material, turn):
    """The same H in spinors, with spins turned; turn: (2, 2) unitary."""
    up, down = material.hamiltonian
    blocks = []
    for place in range(len(up)):
        one, other = up.block(place), down.on_pairs(up.pairs).block(place)
        spinor = np.einsum("sa,aij,ta->sitj", turn, np.array([one, other]), turn.conj())
        blocks.append(spinor.reshape(2 * one.shape[0], 2 * one.shape[1]).ravel())
    joined = BlockMatrix.of(up.pairs, np.concatenate(blocks), 2 * up.sizes)
    return replace(material, spin=SpinMode.NONCOLLINEAR, hamiltonian=(joined,))


def _own_pairs(atoms):
    return np.column_stack([np.zeros((atoms, 3), dtype=int), np.arange(atoms), np.arange(atoms)])


def _nearest(material):
    """The nearest two atoms by pymatgen's list of neighbours."""
    return material.structure.get_neighbor_list(4.0)[3].min()
