"""H(R) and S(R) from ABACUS runs against the bands that ABACUS printed and against another converter."""

import json

import h5py
import numpy as np
import pytest
import scipy.linalg

from deeph_tracegrad.blocks import BlockMatrix, dense_at_k, find_pairs
from deeph_tracegrad.material import Material
from deeph_tracegrad.orbitals import SpinMode
from deeph_tracegrad.preprocess.abacus.bands_file import read_abacus_bands
from deeph_tracegrad.preprocess.abacus.reader import read_abacus

# Largest difference in eV over all bands and k-points; the bands are printed with eight decimals, H with nine digits.
CASES = {"si2": 5e-6, "mos2": 5e-6, "bi_soc": 2e-6, "fe_nspin2": 5e-5}


def spinful(overlap: BlockMatrix) -> BlockMatrix:
    """S for a Hamiltonian with spinors: the same for up and for down."""
    entries = [np.kron(np.eye(2), overlap.block(pair)).ravel() for pair in range(len(overlap))]
    return BlockMatrix.of(overlap.pairs, np.concatenate(entries), 2 * overlap.sizes)


def band_energies(material: Material, channel: int, k: np.ndarray) -> np.ndarray:
    overlap = spinful(material.overlap) if material.spin is SpinMode.NONCOLLINEAR else material.overlap
    return np.array(
        [
            scipy.linalg.eigh(
                dense_at_k(material.hamiltonian[channel], point), dense_at_k(overlap, point), eigvals_only=True
            )
            for point in k
        ]
    )


@pytest.mark.parametrize("case", CASES)
def test_bands_are_those_that_abacus_printed(unpacked, case):
    run = unpacked(f"abacus/{case}")
    material, bands = read_abacus(run), read_abacus_bands(run)
    assert len(bands.energies) == material.spin.channels
    for channel, expected in enumerate(bands.energies):
        energies = band_energies(material, channel, bands.k)[:, : expected.shape[1]]
        assert np.abs(energies - expected).max() < CASES[case]


@pytest.mark.parametrize(
    ("case", "blocks", "largest"),
    [("si2", 200, 6.4e-5), ("mos2", 0, 0), ("bi_soc", 24, 1.2e-3), ("fe_nspin2", 60, 1.2e-3)],
)
def test_blocks_of_h_beyond_the_reach_of_s_are_kept(unpacked, case, blocks, largest):
    material = read_abacus(unpacked(f"abacus/{case}"))
    beyond = find_pairs(material.overlap.pairs, material.hamiltonian[0].pairs) < 0
    assert beyond.sum() == blocks
    entries = [material.hamiltonian[0].block(pair) for pair in np.flatnonzero(beyond)]
    assert max((np.abs(block).max() for block in entries), default=0) == pytest.approx(largest, rel=0.05)


@pytest.mark.parametrize(("case", "largest"), [("si2", 5.0e-4), ("bi_soc", 7.2e-4), ("fe_nspin2", 1.1e-3)])
def test_what_the_bands_would_lose_without_the_blocks_beyond_the_overlap(unpacked, case, largest):
    """The figures of docs/theory.md: up to 2 eV above the Fermi level, eV."""
    run = unpacked(f"abacus/{case}")
    material, bands = read_abacus(run), read_abacus_bands(run)
    cut = material.with_hamiltonian(tuple(one.on_pairs(material.overlap.pairs) for one in material.hamiltonian))
    lost = 0.0
    for channel in range(len(bands.energies)):
        whole, without = (band_energies(one, channel, bands.k) for one in (material, cut))
        occupied = whole < material.fermi_level + 2
        lost = max(lost, np.abs(whole - without)[occupied].max())
    assert lost == pytest.approx(largest, rel=0.05)


def dock_matrix(path, sizes: np.ndarray) -> BlockMatrix:
    with h5py.File(path) as file:
        return BlockMatrix.of(file["atom_pairs"][:], file["entries"][:], sizes)


@pytest.mark.parametrize("case", CASES)
def test_matrices_equal_those_of_deeph_dock_on_its_pairs(unpacked, case):
    run = unpacked(f"abacus/{case}")
    material = read_abacus(run)
    info = json.loads((run / "deeph_dock" / "info.json").read_text())
    assert material.fermi_level == pytest.approx(info["fermi_energy_eV"], abs=1e-8)
    assert {element: list(basis.shells) for element, basis in material.basis.items()} == info["elements_orbital_map"]

    overlap = dock_matrix(run / "deeph_dock" / "overlap.h5", material.overlap.sizes)
    assert len(overlap) == len(material.overlap)
    np.testing.assert_allclose(material.overlap.on_pairs(overlap.pairs).entries, overlap.entries, rtol=0, atol=1e-12)

    components = 2 if info["spinful"] else 1
    expected = dock_matrix(run / "deeph_dock" / "hamiltonian.h5", components * material.overlap.sizes)
    own = [matrix.on_pairs(expected.pairs) for matrix in material.hamiltonian]
    for pair in range(len(expected)):
        blocks = [matrix.block(pair) for matrix in own]
        whole = scipy.linalg.block_diag(*blocks) if len(blocks) == 2 else blocks[0]
        np.testing.assert_allclose(whole, expected.block(pair), rtol=0, atol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_structure_has_the_digits_of_stru(unpacked, case):
    run = unpacked(f"abacus/{case}")
    structure = read_abacus(run).structure
    lines = (run / "deeph_dock" / "POSCAR").read_text().splitlines()
    lattice = np.array([line.split() for line in lines[2:5]], dtype=float)
    positions = np.array([line.split() for line in lines[8:] if line.strip()], dtype=float)
    np.testing.assert_allclose(structure.lattice.matrix, lattice, rtol=0, atol=1e-5)
    np.testing.assert_allclose(structure.cart_coords, positions, rtol=0, atol=1e-5)


def test_get_s_run_gives_the_overlap_of_the_full_run(unpacked):
    alone, full = read_abacus(unpacked("abacus/mos2_get_S")), read_abacus(unpacked("abacus/mos2"))
    assert alone.hamiltonian == ()
    assert alone.fermi_level is None
    assert alone.converged is None
    np.testing.assert_array_equal(alone.overlap.pairs, full.overlap.pairs)
    np.testing.assert_array_equal(alone.overlap.entries, full.overlap.entries)
