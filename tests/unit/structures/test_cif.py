"""CIF against pymatgen's reader, spglib, and what the files themselves say."""

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.structures.cif import read_cif

DATA = Path(__file__).parents[2] / "data" / "structures"
FILES = sorted(DATA.glob("*.cif"))

GRAPHENE = """data_graphene
_cell_length_a 2.46(1)
_cell_length_b 2.46
_cell_length_c 10
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 120.
loop_
_symmetry_equiv_pos_as_xyz
'x, y, z'
'-y, x-y, z'
'-x+y, -x, z'
'-x, -y, z'
'y, -x+y, z'
'x-y, x, z'
loop_
_atom_site_label
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
C1 0.3333 0.6667 0.5
"""
P1 = re.sub("^'(?!x, ).*\n", "", GRAPHENE, flags=re.MULTILINE)


def written(tmp_path, text):
    path = tmp_path / "structure.cif"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_same_atoms_as_pymatgen_and_the_space_group_of_the_file(path):
    structure = read_cif(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = Structure.from_file(path, primitive=False)
        group = SpacegroupAnalyzer(structure).get_space_group_number()
    expected.remove_oxidation_states()
    assert structure.composition == expected.composition
    np.testing.assert_allclose(structure.lattice.matrix, expected.lattice.matrix, atol=1e-12)
    for site in structure:
        assert min(site.distance(other) for other in expected if other.species == site.species) < 1e-9
    number = re.search(r"_(?:space_group_IT|symmetry_Int_Tables)_number\s+(\d+)", path.read_text())
    if path.stem.startswith("cod"):
        assert group == int(number[1])


def test_atoms_follow_the_list_with_its_names():
    structure = read_cif(DATA / "cod_9001665.cif")
    names = ["Pb", "Al", "F1", "F2", "F3", "O-h1", "O-h2", "H1", "H2"]
    assert structure.labels == [name for name in names for _ in range(2)]
    assert [site.specie.symbol[0] for site in structure] == list("PPAAFFFFFFOOOOHHHH")
    np.testing.assert_array_equal(
        structure.frac_coords[:2], [[0.30975, 0.19142, 0.20352], [-0.30975, -0.19142, -0.20352]]
    )


def test_thirds_with_few_digits_go_where_the_symmetry_says(tmp_path):
    """pymatgen rounds them in any file, also in one without symmetry, and there only within 1e-4."""
    structure = read_cif(written(tmp_path, GRAPHENE))
    np.testing.assert_allclose(structure.frac_coords, [[1 / 3, 2 / 3, 0.5], [-1 / 3, -2 / 3, 0.5]], atol=1e-15)
    rough = read_cif(written(tmp_path, GRAPHENE.replace("0.3333", "0.33").replace("0.6667", "0.67")))
    np.testing.assert_allclose(rough.frac_coords, structure.frac_coords, atol=1e-15)
    as_given = read_cif(written(tmp_path, P1))
    np.testing.assert_array_equal(as_given.frac_coords, [[0.3333, 0.6667, 0.5]])


def test_nothing_is_wrapped_sorted_merged_or_reduced(tmp_path):
    text = P1 + "Fe1 -0.2 1.7 0.5\nC2 0.3333 0.6667 1.0\nC3 0.5 0.5 0.9\n"
    structure = read_cif(written(tmp_path, text))
    assert structure.labels == ["C1", "Fe1", "C2", "C3"]
    np.testing.assert_array_equal(structure.frac_coords[1], [-0.2, 1.7, 0.5])


def test_the_type_of_an_atom_goes_before_its_name(tmp_path):
    text = P1.replace("_atom_site_label\n", "_atom_site_label\n_atom_site_type_symbol\n").replace("C1 ", "T1 Si4+ ")
    structure = read_cif(written(tmp_path, text))
    assert (structure[0].specie.symbol, structure[0].label) == ("Si", "T1")


def test_newer_names_and_comments(tmp_path):
    text = P1.replace("_atom_site_", "_atom_site.").replace("_cell_length", "_CELL_LENGTH").replace("'x", "# 'so'\n'x")
    np.testing.assert_array_equal(read_cif(written(tmp_path, text)).frac_coords, [[0.3333, 0.6667, 0.5]])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("data_graphene", "graphene"), "begins with data_"),
        (("_cell_length_b 2.46\n", ""), "should give one _cell_length_b"),
        (("120.", "180"), "make no cell"),
        (("120.", "0"), "make no cell"),
        (("2.46(1)", "?"), "should be a number, not '\\?'"),
        (("0.3333", "0.3333x"), "should be a number"),
        (("0.3333", "1e400"), "should be a number"),
        (("C1 0.3333", "0.3333"), "4 names has 3 values"),
        (("C1 0.3333", "'C1 0.3333"), "a quotation does not end"),
        (("_cell_length_c 10", "_cell_length_c\n;10"), "does not end; the file is cut off"),
        (("C1", "Xy1"), "should begin with the symbol"),
        (("C1", "X1"), "ghost or dummy"),
        (("C1", "C_empty"), "ghost or dummy"),
        (("'-y, x-y, z'", "'-y, x*y, z'"), "no symmetry operation"),
        (("'-y, x-y, z'", "'-y, x-y'"), "no symmetry operation"),
        (("'-y, x-y, z'", "'-y, 2x-y, z'"), "no symmetry operation"),
        (("'-y, x-y, z'", "'-y, y, z'"), "no symmetry operation"),
        (("'-y, x-y, z'", "'-y, x-y, z+1/0'"), "no symmetry operation"),
        (("'-y, x-y, z'\n", ""), "to a whole number of places"),
        (("_atom_site_fract", "_atom_site_Cartn"), "Cartesian coordinates only"),
        (("_atom_site_fract", "_atom_site_other"), "lists no atoms"),
        (("_atom_site_label\n", "_atom_site_name\n"), "neither"),
        (("C1", "data_more"), "4 names has 0 values|follows no name"),
    ],
)
def test_what_is_refused(tmp_path, change, reason):
    assert change[0] in GRAPHENE
    path = written(tmp_path, GRAPHENE.replace(*change))
    with pytest.raises(ReadError, match=reason) as caught:
        read_cif(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("_atom_site_occupancy", "0.5(1)", "partly occupied"),
        ("_atom_site_attached_hydrogens", "2", "hydrogens without positions"),
        ("_atom_site_calc_flag", "dum", "dummy"),
    ],
)
def test_atoms_that_are_not_whole(tmp_path, column, value, reason):
    def text(value):
        return GRAPHENE.replace("_atom_site_fract_z\n", f"_atom_site_fract_z\n{column}\n").replace(
            "0.5\n", f"0.5 {value}\n"
        )

    with pytest.raises(ReadError, match=reason):
        read_cif(written(tmp_path, text(value)))
    assert len(read_cif(written(tmp_path, text("?")))) == 2


@pytest.mark.parametrize("name", ["_symmetry_space_group_name_H-M 'P 6 m m'", "_space_group_IT_number 183"])
def test_a_space_group_without_its_operations(tmp_path, name):
    text = P1.replace("loop_\n_symmetry_equiv_pos_as_xyz\n'x, y, z'\n", "")
    assert len(read_cif(written(tmp_path, text))) == 1
    assert len(read_cif(written(tmp_path, text.replace("loop_", "_space_group_name_H-M_alt 'P 1'\nloop_")))) == 1
    for ambiguous in (text, P1):
        with pytest.raises(ReadError, match="without its operations"):
            read_cif(written(tmp_path, ambiguous.replace("loop_", f"{name}\nloop_", 1)))
    assert len(read_cif(written(tmp_path, GRAPHENE.replace("loop_", f"{name}\nloop_", 1)))) == 2


def test_lost_rows_contradict_the_formula(tmp_path):
    def read_text(text):
        return read_cif(written(tmp_path, text))

    path = DATA / "cod_9007661.cif"
    whole = path.read_text()
    read_cif(path)
    for lost in ("S1 0.00000 0.00000 0.25160\n", "Mo 0.00000 0.00000 0.00000\n", "1/3-y,2/3-x,2/3+z\n"):
        assert lost in whole
        with pytest.raises(ReadError):
            read_text(whole.replace(lost, ""))
    with pytest.raises(ReadError, match="Mo3 S6, which is not 3 times the formula Mo S3"):
        read_text(whole.replace("'Mo S2'", "'Mo S3'"))
    with pytest.raises(ReadError, match="not 2 times"):
        read_text(whole.replace("_units_Z            3", "_units_Z            2"))
    assert len(read_text(whole.replace("'Mo S2'", "'Mo3 S6'"))) == 9  # as pymatgen writes it
    assert len(read_text(whole.replace("'Mo S2'", "?"))) == 9


def test_several_structures(tmp_path):
    with pytest.raises(ReadError, match=r"holds 2 structures \(graphene, other\)"):
        read_cif(written(tmp_path, GRAPHENE + GRAPHENE.replace("data_graphene", "data_other")))
    assert len(read_cif(written(tmp_path, "data_global\n_author 'O''Neill'\n" + GRAPHENE))) == 2
