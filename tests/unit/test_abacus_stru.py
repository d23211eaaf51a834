import re

import numpy as np
import pytest

from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.preprocess.abacus.geometry import parse_csr_structure
from deeph_tracegrad.preprocess.abacus.lattices import NAMED_LATTICES
from deeph_tracegrad.preprocess.abacus.stru import read_stru
from deeph_tracegrad.units import ABACUS_BOHR_ANGSTROM

STRU = """\
# a comment before everything
ATOMIC_SPECIES
Fe1 55.845 Fe.upf upf201 // two labels of one element
Fe2 55.845 Fe.upf
O 15.999 O.upf

NUMERICAL_ORBITAL
Fe_gga_6au_100Ry_4s2p2d1f.orb
Fe_gga_6au_100Ry_4s2p2d1f.orb
./O_gga_7au_100Ry_2s2p1d.orb

LATTICE_CONSTANT
10.2 // bohr

LATTICE_VECTORS
1.0 0.0 0.0 # first
0.25 1.0 0.0
0.0 0.125 2.0

ATOMIC_POSITIONS
Direct // or Cartesian

Fe1 #label
2.5
1
0.125 0.25 0.5 1 1 1 mag 2.5

Fe2
-2.5 #magnetism
1 #number of atoms
0.5 0.5 0.5 m 0 0 1 v 0.1 0.2 0.3 mag 1.0 2.0 3.0

O
0.0
2
-0.25 0.75 1.25 0 0 0
0.0 0.0 0.0 angle1 90 angle2 45
"""
CONSTANT = 10.2 * ABACUS_BOHR_ANGSTROM
LATTICE = CONSTANT * np.array([[1, 0, 0], [0.25, 1, 0], [0, 0.125, 2]])
FRACTIONAL = np.array([[0.125, 0.25, 0.5], [0.5, 0.5, 0.5], [-0.25, 0.75, 1.25], [0, 0, 0]])


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "STRU"
        path.write_text(text)
        return path

    return write


def with_positions(kind: str, positions: np.ndarray) -> str:
    text = STRU.replace("Direct", kind)
    for old, new in zip(FRACTIONAL, positions, strict=True):
        text = text.replace("\n" + " ".join(map(str, old)) + " ", "\n" + " ".join(f"{x:.15f}" for x in new) + " ")
    return text


def test_all_parts(write):
    geometry = read_stru(write(STRU))
    assert geometry.labels == ("Fe1", "Fe2", "O", "O")
    assert geometry.orbital_files["O"] == "./O_gga_7au_100Ry_2s2p1d.orb"
    np.testing.assert_allclose(geometry.lattice, LATTICE, rtol=1e-15)
    np.testing.assert_array_equal(geometry.fractional, FRACTIONAL)
    np.testing.assert_array_equal(geometry.wrapped().fractional[2], [0.75, 0.75, 0.25])


@pytest.mark.parametrize(
    ("kind", "unit", "center"),
    [
        ("Cartesian", CONSTANT, (0, 0, 0)),
        ("Cartesian_au", ABACUS_BOHR_ANGSTROM, (0, 0, 0)),
        ("Cartesian_angstrom", 1, (0, 0, 0)),
        ("Cartesian_angstrom_center_xy", 1, (1, 1, 0)),
        ("Cartesian_angstrom_center_yz", 1, (0, 1, 1)),
        ("Cartesian_angstrom_center_xyz", 1, (1, 1, 1)),
    ],
)
def test_kinds_of_positions(write, kind, unit, center):
    origin = LATTICE.sum(axis=0) / 2 * center
    geometry = read_stru(write(with_positions(kind, (FRACTIONAL @ LATTICE - origin) / unit)))
    np.testing.assert_allclose(geometry.fractional, FRACTIONAL, atol=1e-13)


@pytest.mark.parametrize("latname", NAMED_LATTICES)
def test_named_lattices_have_their_symmetry(write, latname):
    """Cell lengths (units of a) and the volume; formulas of the Bravais lattices."""
    b, c, cosine = 1.25, 1.5, 0.25
    parameters = {0: [], 1: [c], 2: [b, c], 3: [b, c, cosine], 5: [b, c, 0.25, 0.125, 0.375]}[
        NAMED_LATTICES[latname][0]
    ]
    if latname == "trigonal":
        parameters = [cosine]
    text = STRU.replace("LATTICE_VECTORS\n1.0 0.0 0.0 # first\n0.25 1.0 0.0\n0.0 0.125 2.0\n", "LATTICE_PARAMETERS\n")
    text = text.replace("LATTICE_PARAMETERS\n", f"LATTICE_PARAMETERS\n{' '.join(map(str, parameters))}\n")
    lattice = read_stru(write(text), latname).lattice / CONSTANT
    sine = np.sqrt(1 - cosine**2)
    volume = {
        "sc": 1,
        "fcc": 1 / 4,
        "bcc": 1 / 2,
        "hexagonal": c * np.sqrt(3) / 2,
        "trigonal": np.sqrt(1 - 3 * cosine**2 + 2 * cosine**3),
        "st": c,
        "bct": c / 2,
        "so": b * c,
        "baco": b * c / 2,
        "fco": b * c / 4,
        "bco": b * c / 2,
        "sm": b * c * sine,
        "bacm": b * c * sine / 2,
        "triclinic": b * c * np.sqrt(1 + 2 * 0.25 * 0.125 * 0.375 - 0.25**2 - 0.125**2 - 0.375**2),
    }[latname]
    assert abs(np.linalg.det(lattice)) == pytest.approx(volume, rel=1e-12)
    if latname == "triclinic":
        unit = lattice / np.linalg.norm(lattice, axis=1)[:, None]
        np.testing.assert_allclose((unit @ unit.T)[[0, 0, 1], [1, 2, 2]], [0.25, 0.125, 0.375], atol=1e-14)
    if latname == "trigonal":
        np.testing.assert_allclose(lattice @ lattice.T, (1 - cosine) * np.eye(3) + cosine, atol=1e-14)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("LATTICE_CONSTANT", "LATTICE", "LATTICE_CONSTANT is missing"),
        ("10.2", "ten", "LATTICE_CONSTANT should be 1 numbers"),
        ("0.25 1.0 0.0\n", "", "should be three lines"),
        ("0.25 1.0 0.0\n", "2.0 0.0 0.0\n", "do not span a cell"),
        ("Direct", "direct", "is no kind of ATOMIC_POSITIONS"),
        ("Direct", "Cartesian_center_xy", "is no kind of ATOMIC_POSITIONS"),
        ("Direct", "Cartesian_angstrom_center_", "is no kind of ATOMIC_POSITIONS"),
        ("\n0.0\n2\n", "\n0.0\n3\n", "3 atoms of O are announced and 2 given"),
        ("\n0.0\n2\n", "\n0.0\n1\n", "goes on after the last species"),
        ("\n0.0\n2\n", "\n0.0\nmany\n", "given as 'many'"),
        ("\n0.0\n2\n", f"\n0.0\n{5000 * '9'}\n", "given as '999"),
        ("\nFe2\n", "\nFe3\n", "lets expect Fe2"),
        ("0.125 0.25 0.5", "0.125 0.25 nan", "position of a Fe1 atom"),
        ("./O_gga_7au_100Ry_2s2p1d.orb\n", "", "2 files in NUMERICAL_ORBITAL"),
    ],
)
def test_mistakes_are_told(write, old, new, reason):
    assert old in STRU
    path = write(STRU.replace(old, new, 1))
    with pytest.raises(ReadError, match=re.escape(reason)) as caught:
        read_stru(path)
    assert caught.value.path == path


def test_an_unknown_lattice_name_is_told(write):
    with pytest.raises(ReadError, match="known are sc, fcc"):
        read_stru(write(STRU), "diamond")


def test_the_same_structure_in_other_images_is_moved(write):
    geometry = read_stru(write(STRU))
    moved = geometry.placed_like(geometry.wrapped())
    np.testing.assert_allclose(moved.fractional, geometry.wrapped().fractional, atol=1e-15)


def test_another_structure_is_refused(write):
    geometry = read_stru(write(STRU))
    other = read_stru(write(STRU.replace("0.125 0.25 0.5 1", "0.125 0.26 0.5 1")))
    with pytest.raises(ReadError, match="was it edited"):
        other.placed_like(geometry)


HEADER = "user_defined_lattice\n1\n3 0 0\n0 3 0\n0 0 3\nSi O\n{} {}\nDirect\n0 0 0\n"


@pytest.mark.parametrize("counts", [(1, 1), (-1, 2), (0, 0), (1, 10**12)])
def test_a_header_with_another_number_of_positions_is_refused(tmp_path, counts):
    assert parse_csr_structure(tmp_path, HEADER.format(1, 0)).labels == ("Si",)
    with pytest.raises(ReadError, match=f"announces {sum(counts)} atoms and lists 1"):
        parse_csr_structure(tmp_path, HEADER.format(*counts))
