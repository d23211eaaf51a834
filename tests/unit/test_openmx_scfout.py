"""The binary reader: format versions, byte orders, appended text, and damaged files."""

import shutil
import struct

import numpy as np
import pytest

from damage import outcome
from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.preprocess.openmx.reader import read_openmx
from deeph_tracegrad.preprocess.openmx.scfout import read_scfout
from openmx_layout import change_input, rewritten

CASES = ["graphene", "mos2", "fe_bcc_spin", "bi_soc", "demo_a_00"]


def matrices_of(material):
    return [material.overlap, *material.hamiltonian, *material.density, *material.position]


def assert_same(one, other):
    assert one.elements == other.elements
    assert one.basis == other.basis
    assert one.spin is other.spin
    np.testing.assert_array_equal(one.structure.lattice.matrix, other.structure.lattice.matrix)
    np.testing.assert_array_equal(one.structure.cart_coords, other.structure.cart_coords)
    assert (one.fermi_level, one.electrons) == (other.fermi_level, other.electrons)
    for first, second in zip(matrices_of(one), matrices_of(other), strict=True):
        np.testing.assert_array_equal(first.pairs, second.pairs)
        np.testing.assert_array_equal(first.entries, second.entries)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    "layout", [(0, "<"), (0, ">"), (3, ">"), (3, "<", 2), (3, ">", 3)], ids=lambda layout: "".join(map(str, layout))
)
def test_versions_and_byte_orders_hold_the_same(unpacked, tmp_path, case, layout):
    original = unpacked(f"openmx/{case}") / "openmx.scfout"
    path = tmp_path / "any.name.scfout"
    path.write_bytes(rewritten(original.read_bytes(), *layout))
    assert read_openmx(path).provenance["format_version"] == layout[0]
    for matrices in ((), ("position",), ("density",)):
        if (matrices, layout[0], case) != (("density",), 0, "bi_soc"):  # has no imaginary part
            assert_same(read_openmx(path, matrices), read_openmx(original, matrices))


def test_version_0_has_no_noncollinear_density(unpacked, tmp_path):
    path = tmp_path / "old.scfout"
    path.write_bytes(rewritten((unpacked("openmx/bi_soc") / "openmx.scfout").read_bytes(), version=0))
    material = read_openmx(path, ("density", "position"))
    assert (len(material.density), len(material.position)) == (0, 3)


def test_the_walk_reproduces_the_file(unpacked):
    data = (unpacked("openmx/bi_soc") / "openmx.scfout").read_bytes()
    assert rewritten(data)[24:] == data[24:]


@pytest.mark.parametrize("version", [1, 2])
def test_versions_of_development_branches_are_refused(unpacked, tmp_path, version):
    data = bytearray((unpacked("openmx/demo_a_00") / "openmx.scfout").read_bytes())
    data[4:8] = struct.pack("<i", 4 * version)
    path = tmp_path / "old.scfout"
    path.write_bytes(data)
    with pytest.raises(ReadError, match=f"format version {version}"):
        read_openmx(path)


def test_appended_text_is_kept_apart_and_tells_convergence(unpacked, tmp_path):
    folder = unpacked("openmx/demo_a_00")
    text = (folder / "openmx.out").read_text()
    path = tmp_path / "openmx.scfout"
    shutil.copy(folder / "openmx.scfout", path)
    assert read_openmx(path).converged is None
    with path.open("ab") as stream:
        stream.write(text.encode())
    assert read_scfout(path).appended_text == text
    material = read_openmx(path)
    assert material.converged is True
    assert_same(material, read_openmx(folder))


def test_input_text_is_the_input_file(unpacked):
    for case in ("demo_a_00", "bi_soc"):
        folder = unpacked(f"openmx/{case}")
        assert read_scfout(folder / "openmx.scfout").input_text == (folder / "openmx.dat").read_text()


def test_lines_longer_than_a_record(unpacked, tmp_path):
    """C's fgets cuts a line of 255 characters or more into several records."""
    path = tmp_path / "long.scfout"
    shutil.copy(unpacked("openmx/demo_a_00") / "openmx.scfout", path)
    lines = read_scfout(path).input_text.splitlines(keepends=True)
    lines[3] = "level.of.stdout 1 # " + "long " * 200 + "\n"
    change_input(path, lambda _: "".join(lines))
    assert read_scfout(path).input_text == "".join(lines)


@pytest.mark.parametrize("case", CASES)
def test_truncated_anywhere(unpacked, tmp_path, case):
    path = tmp_path / "openmx.scfout"
    shutil.copy(unpacked(f"openmx/{case}") / "openmx.scfout", path)
    size = path.stat().st_size
    cuts = [*np.random.default_rng(size).integers(size, size=200).tolist(), 0, 23, 24, 27, 28, size - 256, size - 1]
    for cut in sorted(cuts, reverse=True):
        with path.open("r+b") as stream:
            stream.truncate(cut)
        assert outcome(read_openmx, path) is None, f"cut at byte {cut}"


def assert_at_most_one_number_off(damaged, good):
    """What may pass: one number of the file changed, and no farther than its place in the file lets anyone notice.

    The diagonal of H's on-site blocks and the up-down blocks stand only once in the file, so a flip there can pass;
    everything else has a second copy (hermiticity, lattice and translations) to be held against.
    """
    assert damaged.elements == good.elements
    assert damaged.basis.describe() == good.basis.describe()
    np.testing.assert_array_equal(damaged.overlap.pairs, good.overlap.pairs)
    np.testing.assert_allclose(damaged.structure.lattice.matrix, good.structure.lattice.matrix, rtol=0, atol=1e-6)
    np.testing.assert_allclose(damaged.structure.cart_coords, good.structure.cart_coords, rtol=0, atol=0.5)
    single_norm = 0.2
    np.testing.assert_allclose(damaged.overlap.entries, good.overlap.entries, rtol=0, atol=single_norm)
    changes = int((damaged.overlap.entries != good.overlap.entries).sum() > 0)
    for one, other in zip(damaged.hamiltonian, good.hamiltonian, strict=True):
        assert np.isfinite(one.entries).all()
        difference = np.abs(one.entries - other.entries)
        changes += int(difference.any())
        assert np.count_nonzero(difference) <= 4
        two_copies = difference < 1e-3
        if good.spin.components == 1:
            own = (one.pairs[:, 3] == one.pairs[:, 4]) & ~one.pairs[:, :3].any(axis=1)
            assert two_copies[~np.repeat(own, np.diff(one.offsets))].all()
    changes += int(damaged.fermi_level != good.fermi_level) + int(damaged.electrons != good.electrons)
    changes += int((damaged.structure.cart_coords != good.structure.cart_coords).any())
    assert changes <= 1
    assert np.isfinite([damaged.fermi_level, damaged.electrons]).all()
    assert abs(damaged.fermi_level) < 300


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("bits", [True, False], ids=["one bit", "one byte"])
def test_flipped_anywhere(unpacked, tmp_path, case, bits):
    path = tmp_path / "openmx.scfout"
    shutil.copy(unpacked(f"openmx/{case}") / "openmx.scfout", path)
    good, data = read_openmx(path), path.read_bytes()
    generator = np.random.default_rng(len(data))
    caught = 0
    with path.open("r+b", buffering=0) as stream:
        for _ in range(400 if case == "demo_a_00" else 100):
            place = int(generator.integers(len(data)))
            flip = 1 << int(generator.integers(8)) if bits else int(generator.integers(1, 256))
            stream.seek(place)
            stream.write(bytes([data[place] ^ flip]))
            material = outcome(read_openmx, path)
            caught += material is None
            if material is not None:
                assert_at_most_one_number_off(material, good)
            stream.seek(place)
            stream.write(data[place : place + 1])
    assert caught > 0


def test_random_stretches_overwritten(unpacked, tmp_path):
    path = tmp_path / "openmx.scfout"
    good = read_openmx(unpacked("openmx/demo_a_00"))
    data = (unpacked("openmx/demo_a_00") / "openmx.scfout").read_bytes()
    generator = np.random.default_rng(7)
    for _ in range(100):
        place, length = generator.integers(len(data)), generator.integers(1, 2000)
        path.write_bytes((data[:place] + generator.bytes(length) + data[place + length :])[: len(data)])
        material = outcome(read_openmx, path)
        if material is not None:  # only the matrices that are skipped were hit
            assert_same(material, good)


def test_every_flip_in_the_header_ends_in_an_error_or_changes_nothing(unpacked, tmp_path):
    path = tmp_path / "openmx.scfout"
    good = read_openmx(unpacked("openmx/demo_a_00"))
    data = (unpacked("openmx/demo_a_00") / "openmx.scfout").read_bytes()
    for bit in range(8 * 28):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        material = outcome(read_openmx, path)
        if material is not None:  # the counts of lead atoms
            assert 8 <= bit // 8 < 20
            assert_same(material, good)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 4096,
        b"\xff" * 4096,
        b"System.Name openmx\n" * 100,
        b"STEP: 0\nMatrix Dimension of H(R): 26\nMatrix number of H(R): 1\n0 0 0 0\n",
        b"\x89HDF\r\n\x1a\n" + b"\0" * 2048,
        struct.pack("<7i", 2, 12, 0, 0, 0, 0, 1) + b"\0" * 4096,
        struct.pack("<7i", 2**31 - 1, 12, 0, 0, 0, 2**31 - 1, 1) + b"\0" * 4096,
        np.random.default_rng(1).bytes(10_000),
    ],
    ids=["empty", "zeros", "ones", "text", "csr", "hdf5", "header of zeros", "huge counts", "noise"],
)
def test_wrong_files(tmp_path, content):
    path = tmp_path / "openmx.scfout"
    path.write_bytes(content)
    assert outcome(read_openmx, path) is None
    assert outcome(read_openmx, tmp_path) is None or pytest.fail("the folder was read")


def test_no_file_at_all(tmp_path):
    (tmp_path / "openmx.scfout").mkdir()
    for path in (tmp_path / "openmx.scfout", tmp_path / "missing.scfout", tmp_path):
        with pytest.raises(ReadError, match=str(path)):
            read_openmx(path)
    with pytest.raises(ReadError, match="no such file"):
        read_scfout(tmp_path)
