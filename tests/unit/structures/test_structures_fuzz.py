"""Damaged structure files end in a ReadError that names the file, or in a structure that a calculation could be of."""

import json
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Structure

from damage import cut, flipped, outcome
from deeph_tracegrad.poscar import write_poscar
from deeph_tracegrad.structures.reader import read_structure
from structure_files import MIXED, XSF, XYZ

DATA = Path(__file__).parents[2] / "data" / "structures"


@pytest.fixture(params=["POSCAR", "cod_9001665.cif", "cod_1010930.cif", "abacus_fe.cif", "a.xyz", "a.xsf", "a.json"])
def whole(request, tmp_path) -> Path:
    path = tmp_path / request.param
    if path.name == "POSCAR":
        write_poscar(Structure.from_sites(sorted(MIXED, key=lambda site: site.specie.symbol)), path)
    elif path.name == "a.json":
        path.write_text(json.dumps(MIXED.as_dict()))
    elif path.suffix == ".cif":
        path.write_bytes((DATA / path.name).read_bytes())
    else:
        path.write_text(XYZ if path.suffix == ".xyz" else XSF)
    return path


def test_files_cut_off(whole):
    content, expected = whole.read_bytes(), read_structure(whole)
    refused = 0
    for damaged in cut(content, 0):
        whole.write_bytes(damaged)
        found = outcome(read_structure, whole)
        refused += found is None
        if found is not None:  # what was lost is not about the structure
            np.testing.assert_array_equal(found.lattice.matrix, expected.lattice.matrix)
            np.testing.assert_array_equal(found.frac_coords, expected.frac_coords)
            assert found.labels == expected.labels
    assert refused > 100


def test_flipped_bits(whole):
    content = whole.read_bytes()
    refused = 0
    for damaged in flipped(content, 1, count=400):
        whole.write_bytes(damaged)
        found = outcome(read_structure, whole)
        refused += found is None
        if found is not None:
            assert np.isfinite(found.cart_coords).all()
            assert found.lattice.volume > 0
            assert all(1 <= site.specie.Z <= 118 for site in found)
    assert refused > 20


@pytest.mark.parametrize("content", [b"", bytes(5000), b"\n" * 5000, b"'" * 5000, b"data_\n" + b"loop_\n" * 5000])
def test_wrong_files(whole, content):
    whole.write_bytes(content)
    assert outcome(read_structure, whole) is None


def test_contents_that_would_take_forever(tmp_path):
    """Each is slow for a reader that tries every way to match it."""
    for name, content in [
        ("a.cif", "data_a\n_a " + "'a " * 100_000 + "\n"),
        (
            "a.cif",
            "data_a\nloop_\n_symmetry_equiv_pos_as_xyz\n" + "x,y,z+1/2\n" * 50_000 + "loop_\n_atom_site_fract_x\n0\n",
        ),
        ("a.cif", (DATA / "cod_1010995.cif").read_text().replace("x,y,z\n", "x,y,z\n" + "x,y,z+1/2\n" * 3000)),
        ("a.xyz", "1\n" + "a" * 200_000 + "\nC 0 0 0\n"),
        ("a.xyz", "1\n" + 'a="' * 100_000 + "\nC 0 0 0\n"),
        ("a.xyz", "999999999\n" + "Lattice\n"),
        ("POSCAR", "a\n1\n5 0 0\n0 5 0\n0 0 5\nC\n9999999\nDirect\n0 0 0\n"),
        ("a.json", "[" * 100_000),
    ]:
        path = tmp_path / name
        path.write_text(content)
        assert outcome(read_structure, path) is None
