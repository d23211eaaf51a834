"""The file of bands that OpenMX writes, whole and damaged."""

import numpy as np
import pytest

from deeph_tracegrad import units
from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.preprocess.openmx.bands_file import read_openmx_band
from deeph_tracegrad.preprocess.openmx.reader import read_openmx


@pytest.mark.parametrize(
    ("case", "shape"), [("graphene", (1, 50, 26)), ("fe_bcc_spin", (2, 57, 28)), ("bi_soc", (1, 50, 76))]
)
def test_real_files(unpacked, case, shape):
    folder = unpacked(f"openmx/{case}")
    bands = read_openmx_band(folder / "openmx.Band")
    assert bands.energies.shape == shape
    assert bands.k.shape == (shape[1], 3)
    assert (np.diff(bands.energies) >= 0).all()
    assert {label for segment in bands.segments for label in segment.labels} >= {"G", "M"}
    first = bands.segments[0]
    expected = np.linspace(first.start, first.end, first.points)
    np.testing.assert_allclose(bands.k[: first.points], expected, rtol=0, atol=1e-12)


def test_units(unpacked):
    bands = read_openmx_band(unpacked("openmx/graphene") / "openmx.Band")
    lattice = read_openmx(unpacked("openmx/graphene")).structure.lattice
    np.testing.assert_allclose(bands.reciprocal, lattice.reciprocal_lattice.matrix, rtol=0, atol=1e-9)
    assert bands.fermi_level == pytest.approx(-0.140760743531598 * units.OPENMX_HARTREE_EV, abs=1e-12)
    assert bands.energies[0, 0, 0] == pytest.approx(-0.860936695235530 * units.OPENMX_HARTREE_EV, abs=1e-12)


def attempt(path):
    """The bands, or None after a ReadError that names the file."""
    bands = message = None
    try:
        bands = read_openmx_band(path)
    except ReadError as error:
        message = str(error)
    assert message is None or str(path) in message
    return bands


@pytest.mark.parametrize("case", ["demo_a_00", "fe_bcc_spin"])
def test_truncated_anywhere(unpacked, tmp_path, case):
    data = (unpacked(f"openmx/{case}") / "openmx.Band").read_bytes()
    whole = read_openmx_band(unpacked(f"openmx/{case}") / "openmx.Band").energies
    path = tmp_path / "openmx.Band"
    for cut in np.random.default_rng(3).integers(len(data), size=200).tolist():
        path.write_bytes(data[:cut])
        bands = attempt(path)
        if bands is not None:  # cut inside the digits of the last number
            np.testing.assert_allclose(bands.energies, whole, rtol=1e-9)
            assert cut > len(data) - 12


def test_flipped_anywhere(unpacked, tmp_path):
    data = (unpacked("openmx/demo_a_00") / "openmx.Band").read_bytes()
    path = tmp_path / "openmx.Band"
    generator = np.random.default_rng(4)
    for _ in range(300):
        damaged = bytearray(data)
        damaged[generator.integers(len(data))] ^= int(generator.integers(1, 256))
        path.write_bytes(damaged)
        bands = attempt(path)
        if bands is not None:  # one digit or sign is wrong, or a label
            assert np.isfinite(bands.energies).all()


@pytest.mark.parametrize(
    "content", [b"", b"1\n", b"2 0 x\n\n1\n", b"\xff" * 100, b"0 0 0\n0\n0\n", b"1 0 0.1\n0\n-1\n"]
)
def test_wrong_files(tmp_path, content):
    path = tmp_path / "openmx.Band"
    path.write_bytes(content)
    for wrong in (path, tmp_path, tmp_path / "missing"):
        with pytest.raises(ReadError, match=str(wrong)):
            read_openmx_band(wrong)
