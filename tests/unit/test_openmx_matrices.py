"""Density and position matrix of OpenMX, against numbers that OpenMX printed, and in damaged files."""

import re
import shutil
from functools import partial

import numpy as np
import pytest

from damage import outcome
from deeph_tracegrad import units
from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.orbitals import SpinMode
from deeph_tracegrad.preprocess.openmx.reader import read_openmx
from deeph_tracegrad.preprocess.openmx.scfout import read_scfout
from openmx_layout import change, places

CASES = ["graphene", "mos2", "fe_bcc_spin", "bi_soc", "demo_a_00", "demo_b_00"]
MATRICES = ("density", "position")


def printed(folder, pattern):
    return [float(word) for word in re.findall(pattern, (folder / "openmx.out").read_text(), re.MULTILINE)]


def trace(density, matrix):
    """Tr(D A) a cell: the sum of D_ij A_ij* over all pairs, for A with or without spin."""
    if len(density.entries) != len(matrix.entries):
        total = 0.0
        for pair in range(len(density)):
            rows, columns = matrix.block(pair).shape
            block = density.block(pair).reshape(2, rows, 2, columns)
            total += ((block[0, :, 0] + block[1, :, 1]) * matrix.block(pair)).sum()
        return total
    return (density.entries * matrix.entries.conj()).sum()


@pytest.mark.parametrize("case", CASES)
def test_the_density_holds_all_electrons_and_the_printed_band_energy(unpacked, case):
    folder = unpacked(f"openmx/{case}")
    material = read_openmx(folder, MATRICES)
    electrons = sum(trace(density, material.overlap) for density in material.density)
    assert electrons == pytest.approx(material.electrons, abs=1e-9)
    energy = sum(trace(*channels) for channels in zip(material.density, material.hamiltonian, strict=True))
    (band_energy,) = printed(folder, r"^ *Uele\. +(\S+)")
    assert energy / units.OPENMX_HARTREE_EV == pytest.approx(band_energy, abs=1e-10)
    assert material.provenance["hermiticity_violation"]["density"] < 1e-14


def test_spins_of_the_density(unpacked):
    material = read_openmx(unpacked("openmx/fe_bcc_spin"), ["density"])
    up, down = (trace(density, material.overlap) for density in material.density)
    (moment,) = printed(unpacked("openmx/fe_bcc_spin"), r"^ *Total spin moment \(muB\) +(\S+)")
    assert up - down == pytest.approx(moment, abs=1e-8)
    material = read_openmx(unpacked("openmx/bi_soc"), ["density"])
    assert material.spin is SpinMode.NONCOLLINEAR
    (density,) = material.density
    assert np.abs(density.entries.imag).max() > 0.1
    assert density.symmetrised()[1] == 0.0


@pytest.mark.parametrize("case", CASES)
def test_the_position_matrix_is_hermitian_about_every_origin(unpacked, case):
    """<i|r|j>(R) = <j|r|i>(-R)^T + R S."""
    material = read_openmx(unpacked(f"openmx/{case}"), ["position"])
    overlap = material.overlap
    lengths = np.diff(overlap.offsets)
    for axis, position in enumerate(material.position):
        np.testing.assert_array_equal(position.pairs, overlap.pairs)
        shift = np.repeat((overlap.pairs[:, :3] @ material.structure.lattice.matrix)[:, axis], lengths)
        partner = position.adjoint().on_pairs(position.pairs)
        np.testing.assert_allclose(position.entries, partner.entries + shift * overlap.entries, rtol=0, atol=1e-12)
    # how well OpenMX's own numbers fulfil it
    assert 0 < material.provenance["hermiticity_violation"]["position"] < 1.2e-4


@pytest.mark.parametrize("case", ["graphene", "mos2", "bi_soc", "demo_a_00", "demo_b_00"])
def test_the_printed_dipole_across_a_layer(unpacked, case):
    """Only across the layer has the dipole of a crystal one value. In demo_b_00 7e-3 Debye of it are intra-atomic."""
    folder = unpacked(f"openmx/{case}")
    material = read_openmx(folder, MATRICES)
    (core,), (electrons,) = (printed(folder, rf"^ *{name} +\S+ +\S+ +(\S+)$") for name in ("Core", "Electron"))
    charges = [material.basis[element].valence_electrons for element in material.elements]
    debye = core / (charges @ material.structure.cart_coords[:, 2])  # one electron times one Å
    dipole = -debye * sum(trace(density, material.position[2]) for density in material.density)
    assert debye == pytest.approx(4.8032, abs=1e-4)
    assert dipole == pytest.approx(electrons, abs=3e-4)


def test_axes_of_the_position_matrix(unpacked):
    """On one atom <s|x|p_x> = <s|y|p_y> = <s|z|p_z>, other elements of s and p vanish; p is ordered y, z, x."""
    material = read_openmx(unpacked("openmx/demo_a_00"), ["position"])
    for atom, centre in enumerate(material.structure.cart_coords):
        pair = next(n for n, row in enumerate(material.overlap.pairs.tolist()) if row == [0, 0, 0, atom, atom])
        own = [
            matrix.block(pair) - coordinate * material.overlap.block(pair)
            for matrix, coordinate in zip(material.position, centre, strict=True)
        ]
        found = np.array([[block[0, 2 + component] for component in (2, 0, 1)] for block in own])
        assert abs(found[0, 0]) > 0.3
        np.testing.assert_allclose(found, found[0, 0] * np.eye(3), rtol=0, atol=1e-5)


def test_only_what_is_asked_for_is_read(unpacked):
    path = unpacked("openmx/bi_soc") / "openmx.scfout"
    for matrices in ((), ("density",), ("position",), MATRICES):
        scfout, material = read_scfout(path, matrices), read_openmx(path, matrices)
        has_density, has_position = "density" in matrices, "position" in matrices
        counts = [len(part) for part in (scfout.density, scfout.density_imaginary, scfout.position)]
        assert counts == [4 * has_density, 2 * has_density, 3 * has_position]
        assert (len(material.density), len(material.position)) == (has_density, 3 * has_position)
        assert set(material.provenance["hermiticity_violation"]) == {"hamiltonian", "overlap", *matrices}
        np.testing.assert_array_equal(scfout.first_moments, read_scfout(path).first_moments)


@pytest.fixture
def run(unpacked, tmp_path):
    """A small run that the test may change."""
    return shutil.copytree(unpacked("openmx/demo_a_00"), tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "message"), [("density", "entry of the density"), ("position", "entry of the position")]
)
def test_impossible_entries(run, name, message):
    path = run / "openmx.scfout"

    def spoil(value, entry):
        def spoiled(matrix):
            matrix[0, entry] = value
            return matrix

        return spoiled

    original = path.read_bytes()
    for value, reason in [(float("nan"), message), (1e9, message), (7.0, "off hermiticity")]:
        change(path, **{name: spoil(value, 5 * 5 + 1)})
        assert outcome(partial(read_openmx, matrices=MATRICES), path) is None
        with pytest.raises(ReadError, match=reason):
            read_openmx(path, [name])
        assert read_openmx(path).overlap is not None
        path.write_bytes(original)


@pytest.mark.parametrize("case", ["demo_a_00", "bi_soc"])
def test_flipped_bits(unpacked, tmp_path, case):
    """One wrong number is found, or is one number: the diagonal of on-site blocks and ud stand only once."""
    path = tmp_path / "openmx.scfout"
    shutil.copy(unpacked(f"openmx/{case}") / "openmx.scfout", path)
    read = partial(read_openmx, matrices=MATRICES)
    good, data, where = read(path), path.read_bytes(), places(path)
    generator = np.random.default_rng(11)
    caught = 0
    with path.open("r+b", buffering=0) as stream:
        for number in range(200):
            offset, shape = where["position" if number % 2 else "density"]
            place = offset + int(generator.integers(8 * np.prod(shape)))
            stream.seek(place)
            stream.write(bytes([data[place] ^ 1 << int(generator.integers(8))]))
            material = outcome(read, path)
            caught += material is None
            if material is not None:
                changed = 0
                for one, other in zip(
                    (*material.density, *material.position), (*good.density, *good.position), strict=True
                ):
                    assert np.isfinite(one.entries).all()
                    changed += np.count_nonzero(one.entries != other.entries)
                assert changed <= 4
            stream.seek(place)
            stream.write(data[place : place + 1])
    assert caught > 10
