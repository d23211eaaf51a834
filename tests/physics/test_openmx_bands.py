"""OpenMX runs against the bands that OpenMX itself printed, and against another converter of the same files."""

import json

import h5py
import numpy as np
import pytest
from scipy.linalg import eigh

from deeph_tracegrad.blocks import BlockMatrix, dense_at_k, find_pairs
from deeph_tracegrad.orbitals import SpinMode
from deeph_tracegrad.preprocess.openmx.bands_file import read_openmx_band
from deeph_tracegrad.preprocess.openmx.reader import read_openmx

CASES = {
    "graphene": SpinMode.NONE,
    "mos2": SpinMode.NONE,
    "fe_bcc_spin": SpinMode.COLLINEAR,
    "bi_soc": SpinMode.NONCOLLINEAR,
    "demo_a_00": SpinMode.NONE,
}


def spinor_overlap(overlap):
    """S for both spins of every atom: up rows, then down rows."""
    pattern = BlockMatrix.of(overlap.pairs, np.zeros(4 * len(overlap.entries)), 2 * overlap.sizes)
    for pair in range(len(overlap)):
        rows, columns = overlap.block(pair).shape
        pattern.block(pair)[:rows, :columns] = overlap.block(pair)
        pattern.block(pair)[rows:, columns:] = overlap.block(pair)
    return pattern


@pytest.mark.parametrize("case", CASES)
def test_every_band_energy_that_openmx_printed(unpacked, case):
    folder = unpacked(f"openmx/{case}")
    material, printed = read_openmx(folder), read_openmx_band(folder / "openmx.Band")
    assert material.spin is CASES[case]
    assert len(printed.energies) == len(material.hamiltonian)
    noncollinear = material.spin is SpinMode.NONCOLLINEAR
    overlap = spinor_overlap(material.overlap) if noncollinear else material.overlap
    for place, k in enumerate(printed.k):
        overlap_at_k = dense_at_k(overlap, k)
        for hamiltonian, energies in zip(material.hamiltonian, printed.energies, strict=True):
            computed = eigh(dense_at_k(hamiltonian, k), overlap_at_k, eigvals_only=True)
            np.testing.assert_allclose(computed, energies[place], rtol=0, atol=1e-7)
    assert material.fermi_level == pytest.approx(printed.fermi_level, abs=1e-10)


def read_blocks(path):
    with h5py.File(path) as file:
        return file["atom_pairs"][()], file["chunk_boundaries"][()], file["chunk_shapes"][()], file["entries"][()]


def symmetrised_file(path, sizes):
    """The other converter keeps the file's 1e-9 violations of hermiticity; ours mends them."""
    pairs, _, _, entries = read_blocks(path)
    return BlockMatrix.of(pairs, entries, sizes).symmetrised()[0]


@pytest.mark.parametrize("case", ["graphene", "mos2", "fe_bcc_spin", "bi_soc"])
def test_equals_the_conversion_of_deeph_dock(unpacked, case):
    folder = unpacked(f"openmx/{case}")
    material = read_openmx(folder)
    info = json.loads((folder / "deeph_dock" / "info.json").read_text())
    assert material.num_orbitals == info["orbits_quantity"]
    assert {element: list(basis.shells) for element, basis in material.basis.items()} == info["elements_orbital_map"]
    assert material.fermi_level == pytest.approx(info["fermi_energy_eV"], abs=1e-9)

    lines = (folder / "deeph_dock" / "POSCAR").read_text().splitlines()
    lattice = np.array([line.split() for line in lines[2:5]], dtype=float)
    np.testing.assert_allclose(material.structure.lattice.matrix, lattice, rtol=0, atol=1e-12)
    positions = np.array([line.split()[:3] for line in lines[8:]], dtype=float)
    np.testing.assert_allclose(material.structure.cart_coords, positions, rtol=0, atol=1e-12)

    overlap = symmetrised_file(folder / "deeph_dock" / "overlap.h5", material.overlap.sizes)
    np.testing.assert_allclose(
        material.overlap.on_pairs(overlap.pairs).entries, overlap.entries, rtol=1e-12, atol=1e-12
    )
    components = 1 if material.spin is SpinMode.NONE else 2
    hamiltonian = symmetrised_file(folder / "deeph_dock" / "hamiltonian.h5", components * material.overlap.sizes)
    if material.spin is SpinMode.COLLINEAR:  # stored there with an empty up-down part
        for channel, matrix in enumerate(material.hamiltonian):
            place = find_pairs(matrix.pairs, hamiltonian.pairs)
            for pair in range(len(hamiltonian)):
                rows, columns = matrix.block(place[pair]).shape
                whole = hamiltonian.block(pair).reshape(2, rows, 2, columns)
                np.testing.assert_allclose(
                    matrix.block(place[pair]), whole[channel, :, channel], rtol=1e-12, atol=1e-12
                )
                assert not whole[0, :, 1].any()
    else:
        ours = material.hamiltonian[0].on_pairs(hamiltonian.pairs)
        assert len(ours) == len(material.hamiltonian[0])
        np.testing.assert_allclose(ours.entries, hamiltonian.entries, rtol=1e-12, atol=1e-12)
