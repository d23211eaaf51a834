"""Damaged files end in a ReadError that names a file of the run, or change nothing that matters."""

import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest

from abacus_layout import SI2_CELL, keep_cells, newer_layout, older_layout, read_blocks
from damage import outcome
from deeph_tracegrad.material import Material
from deeph_tracegrad.preprocess.abacus.bands_file import read_abacus_bands
from deeph_tracegrad.preprocess.abacus.reader import read_abacus

TIMES = 200
CELLS = [("0", "0", "0"), ("-1", "0", "0"), ("1", "0", "0"), ("-1", "1", "0"), ("1", "-1", "0")]
FILES = ["H", "S", "STRU", "INPUT", "OUT.ABACUS/running_scf.log", "Si_gga_6au_100Ry_2s2p1d.orb"]


@pytest.fixture(scope="module", params=["older", "newer"])
def small_run(request, unpacked, tmp_path_factory) -> dict[str, Path]:
    """The run si2 with five cells, in either layout; its folder and its matrix files by name."""
    run = tmp_path_factory.mktemp("small") / "si2"
    shutil.copytree(unpacked("abacus/si2"), run)
    out = run / "OUT.ABACUS"
    names = {"H": "hrs1_nao.csr", "S": "sr_nao.csr"}
    files = {"run": run}
    for matrix in "HS":
        old = out / f"data-{matrix}R-sparse_SPIN0.csr"
        name, dimension, blocks = read_blocks(old)
        kept = keep_cells(blocks, CELLS)
        if request.param == "newer":
            old.unlink()
            old = out / names[matrix]
            old.write_text(newer_layout(name, dimension, kept, SI2_CELL))
        else:
            old.write_text(older_layout(name, dimension, kept))
        files[matrix] = old
    return files


def generator(name: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(name.encode()))


def assert_harmless(found: Material, whole: Material):
    """Nothing is other than in the whole run; what the log lost is not told."""
    assert found.basis == whole.basis or found.basis.describe() == whole.basis.describe()
    assert found.spin == whole.spin
    np.testing.assert_allclose(found.structure.cart_coords, whole.structure.cart_coords, rtol=0, atol=1e-4)
    for own, expected in zip((found.overlap, *found.hamiltonian), (whole.overlap, *whole.hamiltonian), strict=True):
        np.testing.assert_array_equal(own.pairs, expected.pairs)
        np.testing.assert_array_equal(own.entries, expected.entries)
    assert found.converged in (whole.converged, None)
    assert found.electrons in (whole.electrons, None)


@pytest.mark.parametrize("name", FILES)
def test_truncated_files(small_run, name):
    run = small_run["run"]
    path = small_run.get(name, run / name)
    content, whole, chance = path.read_bytes(), read_abacus(run), generator(name)
    refused = 0
    try:
        for _ in range(TIMES):
            path.write_bytes(content[: chance.integers(len(content))])
            found = outcome(read_abacus, run)
            refused += found is None
            if found is not None:
                assert_harmless(found, whole)
    finally:
        path.write_bytes(content)
    assert refused > TIMES * 0.98 or name not in ("H", "S")


@pytest.mark.parametrize("name", FILES)
def test_flipped_bytes(small_run, name):
    run = small_run["run"]
    path = small_run.get(name, run / name)
    content, whole, chance = path.read_bytes(), read_abacus(run), generator(name)
    try:
        for _ in range(TIMES):
            damaged = bytearray(content)
            for _ in range(chance.choice([1, 1, 1, 20])):
                damaged[chance.integers(len(damaged))] = int(chance.integers(256))
            path.write_bytes(damaged)
            found = outcome(read_abacus, run)
            if found is not None:
                assert found.elements == whole.elements
                assert np.isfinite(found.overlap.entries).all()
                np.testing.assert_allclose(found.structure.cart_coords, whole.structure.cart_coords, atol=1e-3)
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "other", ["", "H", "S", "STRU", "OUT.ABACUS/running_scf.log", "OUT.ABACUS/BANDS_1.dat", "zeros", "noise"]
)
def test_wrong_files(small_run, name, other):
    run = small_run["run"]
    path = small_run.get(name, run / name)
    contents = {"": b"", "zeros": bytes(5000), "noise": generator(name).bytes(50_000)}
    content = path.read_bytes()
    source = small_run.get(other, run / other)
    try:
        path.write_bytes(contents[other] if other in contents else source.read_bytes())
        found = outcome(read_abacus, run)
        assert found is None or source == path
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize("name", ["kpoints", "BANDS_1.dat"])
def test_truncated_bands(small_run, name):
    run = small_run["run"]
    path = run / "OUT.ABACUS" / name
    content, whole, chance = path.read_bytes(), read_abacus_bands(run), generator(name)
    try:
        for _ in range(TIMES):
            path.write_bytes(content[: chance.integers(len(content))])
            found = outcome(read_abacus_bands, run)
            if found is not None:
                np.testing.assert_array_equal(found.k, whole.k)
                np.testing.assert_array_equal(found.energies, whole.energies)
    finally:
        path.write_bytes(content)
