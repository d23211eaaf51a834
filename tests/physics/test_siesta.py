"""SIESTA's H, S and density matrix against numbers that came about without this reader."""

import h5py
import numpy as np
import pytest
from scipy.interpolate import CubicSpline
from scipy.linalg import eigh

from deeph_tracegrad.blocks import dense_at_k
from deeph_tracegrad.preprocess.siesta.reader import read_siesta
from deeph_tracegrad.units import SIESTA_BOHR_ANGSTROM, SIESTA_RYDBERG_EV

# Of sisl 0.20.0: get_sile(file).read_hamiltonian().eigh(k), from the Fermi level, with its own Rydberg
SISL_RYDBERG_EV = 13.605693122993705
SISL = {
    ("graphene", (0.1, 0.2, 0.0)): [
        *(-18.54768128, -6.30495227, -5.76509022, -4.96228196, 8.11574663, 8.63279823, 9.519623, 13.69660832),
        *(16.05491063, 26.04395313, 30.24505014, 41.55126045, 43.35626868, 47.80135222, 54.310164, 60.5008685),
        *(71.34373017, 78.29349522),
    ],
    ("graphene", (0.5, 0.0, 0.0)): [
        *(-14.24205399, -13.06965825, -6.63999156, -2.20566168, 1.69106353, 6.93384785, 17.95883556, 18.5440589),
        *(21.39520365, 23.60865322, 26.05005125, 27.77034373, 38.02384546, 40.97575388, 51.08347119, 74.31639199),
        *(78.60164579, 101.18242591),
    ],
    ("water", (0.0, 0.0, 0.0)): [
        *(-18.87975727, -7.33222242, -3.08249864, -1.27301228, 7.06294891, 8.85871606, 15.31876394, 17.18099678),
        *(18.127119, 20.94865509, 27.88513829, 34.91345383, 41.48920636, 43.98916137, 50.20171687, 53.40356561),
        56.91104258,
    ],
}


@pytest.mark.parametrize(("name", "k"), SISL)
def test_levels_are_those_that_sisl_finds(unpacked, name, k):
    material = read_siesta(unpacked(f"siesta/{name}"))
    levels = eigh(dense_at_k(material.hamiltonian[0], k), dense_at_k(material.overlap, k), eigvals_only=True)
    expected = np.array(SISL[name, k]) * SIESTA_RYDBERG_EV / SISL_RYDBERG_EV
    np.testing.assert_allclose(levels - material.fermi_level, expected, rtol=0, atol=2e-7)


def test_the_density_matrix_follows_from_h_and_s(unpacked):
    """D(R) = sum over k of f(E) c c† exp(-2 pi i k.R), on SIESTA's own k-points and at its temperature."""
    material = read_siesta(unpacked("siesta/graphene"), matrices=["density"])
    (density,), (hamiltonian,) = material.density, material.hamiltonian
    with h5py.File(unpacked("siesta/graphene") / "siesta_2.nc") as file:
        width = float(file["SETTINGS/ElectronicTemperature"][0]) * SIESTA_RYDBERG_EV
        assert np.diag(file["SETTINGS/BZ"][:]).tolist() == [60, 60, 1]
    starts = np.concatenate([[0], np.cumsum(density.sizes)])
    computed, electrons = density.with_entries(np.zeros(len(density.entries))), 0.0
    # k and -k give conjugates, so that half of the points will do
    points = [(a / 60, b / 60, 0.0) for a in range(31) for b in range(60)]
    for k in points:
        weight = (1 if k[0] in {0, 0.5} else 2) / 3600
        energies, states = eigh(dense_at_k(hamiltonian, k), dense_at_k(material.overlap, k))
        filling = 2 / (1 + np.exp(np.clip((energies - material.fermi_level) / width, -50, 50)))
        at_k = (states * filling) @ states.conj().T
        electrons += weight * filling.sum()
        phases = weight * np.exp(-2j * np.pi * (density.pairs[:, :3] @ k))
        for (rows, columns), members, places in density.stacks():
            row = starts[density.pairs[members, 3], None, None] + np.arange(rows)[:, None]
            column = starts[density.pairs[members, 4], None, None] + np.arange(columns)
            blocks = phases[members, None, None] * at_k[row, column]
            computed.entries[places] += blocks.real.reshape(len(members), -1)
    assert electrons == pytest.approx(8, abs=2e-5)
    # SIESTA's tolerance of the density matrix was 1e-4
    np.testing.assert_allclose(computed.entries, density.entries, rtol=0, atol=3e-5)


@pytest.mark.parametrize(
    ("name", "file", "pair"),
    [
        ("graphene", "siesta_2.nc", [0, 0, 0, 0, 1]),
        ("graphene", "siesta_2.nc", [-1, 0, 0, 0, 1]),
        ("water", "siesta_1.nc", [0, 0, 0, 0, 1]),
    ],
)
def test_overlaps_of_the_orbitals_themselves(unpacked, name, file, pair):
    """Summed over a grid, from the radial functions in the file and harmonics written down here."""
    material = read_siesta(unpacked(f"siesta/{name}"))
    vector = material.pair_vectors(np.array([pair]))[0] / SIESTA_BOHR_ANGSTROM
    step = 0.15
    axes = [np.arange(min(0, d) - 5, max(0, d) + 5, step) + 0.04 for d in vector]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    with h5py.File(unpacked(f"siesta/{name}") / file) as run:
        one, other = (run[f"BASIS/{material.structure[atom].label}"] for atom in pair[3:])
        computed = orbitals(one, grid) @ orbitals(other, grid - vector).T * step**3
    stored = material.overlap.block(material.overlap.pairs.tolist().index(pair))
    np.testing.assert_allclose(computed, stored, rtol=0, atol=5e-5)


def orbitals(species, points):
    """The orbitals of an atom at the origin, without Condon-Shortley signs, (orbitals, points)."""
    x, y, z = points.T
    r = np.linalg.norm(points, axis=1)
    solid = [
        [np.full_like(x, 0.5 / np.sqrt(np.pi))],
        [np.sqrt(0.75 / np.pi) * axis for axis in (y, z, x)],
        [
            np.sqrt(15 / np.pi) / 2 * factor
            for factor in (x * y, y * z, (3 * z**2 - r**2) / np.sqrt(12), x * z, (x**2 - y**2) / 2)
        ],
    ]
    values = []
    for degree, step, table, end in zip(
        *(species[key][:] for key in ("orbnl_l", "delta", "orb", "cutoff")), strict=True
    ):
        radial = CubicSpline(step * np.arange(len(table)), table)  # R(r) / r^l
        inside = np.where(r < end, radial(np.minimum(r, end)), 0.0)
        values += [inside * harmonic for harmonic in solid[degree]]
    return np.array(values)
