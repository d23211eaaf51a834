"""The input file: keywords, blocks, species, band paths."""

from pathlib import Path

import pytest

from deeph_tracegrad import units
from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.preprocess.openmx.input_file import (
    PathSegment,
    parse_input,
    parse_path_segment,
)
from deeph_tracegrad.preprocess.openmx.species import parse_atoms, parse_species

HERE = Path("openmx.dat")


def species(*rows):
    lines = "\n".join(rows)
    text = f"<Definition.of.Atomic.Species\n{lines}\nDefinition.of.Atomic.Species>\n"
    return parse_species(parse_input(text, HERE), [row.split()[0] for row in rows])


def test_keywords_and_blocks():
    source = parse_input(
        "# a comment\nscf.SpinPolarization NC # spins\nSCF.CRITERION 1e-9\nscf.criterion 1\n\n"
        "<Atoms.SpeciesAndCoordinates\n 1 Fe_up 0 0 0 # first\n\n 2 H1 0 0 1\natoms.speciesandcoordinates>\nempty\n",
        HERE,
    )
    assert source.word("Scf.SpinPolarization", "off") == "nc"
    assert source.number("scf.criterion", 1e-6) == 1e-9
    assert source.word("missing", "off") == source.word("empty", "off") == "off"
    assert [row[1] for row in source.block("Atoms.SpeciesAndCoordinates")] == ["Fe_up", "H1"]


@pytest.mark.parametrize(
    ("label", "shells", "radius"),
    [
        ("C6.0-s2p2d1", (0, 0, 1, 1, 2), 6.0),
        ("C6.0-s4>2p4>1d3", (0, 0, 1, 2, 2, 2), 6.0),
        ("C6.0_1s_CH-s1", (0,), 6.0),
        ("C10.0-p2s10", (0,) * 10 + (1, 1), 10.0),
        ("C7-s1f1", (0, 3), 7.0),
        ("Cmine-s1", (0,), None),
    ],
)
def test_basis_labels(label, shells, radius):
    _, basis = species(f"C {label} C_PBE19")["C"]
    assert (basis.shells, basis.label) == (shells, label)
    assert basis.cutoff_radius == (pytest.approx(radius * units.OPENMX_BOHR_ANGSTROM) if radius else None)


@pytest.mark.parametrize(
    "label", ["C6.0", "C6.0-", "C6.0-2s", "C6.0-s2s1", "C6.0-s2x1", "C6.0-s0", "C6.0-s9999", "-s1-p"]
)
def test_broken_basis_labels(label):
    with pytest.raises(ReadError, match=r"C6\.0-s2p2d1"):
        species(f"C {label} C_PBE19")


@pytest.mark.parametrize(
    ("row", "element"),
    [
        ("C C6.0-s1 C_PBE19", "C"),
        ("Fe_up Fe5.5H-s1 Fe_PBE19H", "Fe"),
        ("H1 H6.0-s1 H_PBE19", "H"),
        ("Cs C6.0-s1 C_PBE19", "C"),  # "s" for surface
        ("proton H6.0-s1 H_PBE19", "H"),
        ("Co mine-s1 custom", "Co"),
        ("Co2 mine-s1 Co_custom", "Co"),
    ],
)
def test_elements(row, element):
    assert species(row)[row.split()[0]][0] == element


@pytest.mark.parametrize("row", ["X C6.0-s1 N_PBE19", "X mine-s1 custom", "C C6.0-s1"])
def test_species_that_cannot_be_used(row):
    with pytest.raises(ReadError, match=r"openmx\.dat"):
        species(row)


def test_empty_atoms_are_refused_where_they_are_used():
    with pytest.raises(ReadError, match="the species EC is an empty atom: orbitals without a nucleus have no element"):
        species("EC C6.0-s2p1 E")
    text = "<Definition.of.Atomic.Species\nC C6.0-s1 C_PBE19\nEC C6.0-s2 E\nDefinition.of.Atomic.Species>\n"
    assert list(parse_species(parse_input(text, HERE), ["C"])) == ["C"]


def atoms(*rows, charge=""):
    text = (
        "<Definition.of.Atomic.Species\nFe_up Fe5.5H-s1 Fe_PBE19H\nO O6.0-s1p1 O_PBE19\nFe_down Fe5.5H-s1 Fe_PBE19H\n"
        "Definition.of.Atomic.Species>\n<Atoms.SpeciesAndCoordinates\n"
    )
    return parse_atoms(parse_input(text + "\n".join(rows) + f"\nAtoms.SpeciesAndCoordinates>\n{charge}", HERE))


def test_atoms_and_their_valence_electrons():
    found = atoms(
        "1 O 0 0 0 3.0 3.0", "2 Fe_up 0 0 1 9.1 6.9 0 0", "3 Fe_down 0 0 2 6.9 9.1", charge="scf.system.charge -1"
    )
    assert found.names == ("O", "Fe_up", "Fe_down")
    assert found.elements == ("O", "Fe", "Fe")
    assert list(found.basis) == ["Fe", "O"]
    assert found.electrons == 39.0
    assert {element: basis.valence_electrons for element, basis in found.basis_holding(39.0).items()} == {
        "Fe": 16,
        "O": 6,
    }
    for other in (38.0, None):
        assert found.basis_holding(other) == found.basis
    assert found.basis["Fe"].valence_electrons is None


@pytest.mark.parametrize("row", ["2 Fe_up 0 0 1 8.0 7.0", "2 Fe_up 0 0 1", "2 Fe_up 0 0 1 8.0 x"])
def test_valence_electrons_that_the_input_does_not_tell(row):
    found = atoms("1 Fe_up 0 0 0 8.0 8.0", row)
    assert (found.valence, found.electrons) == (None, None)
    assert found.basis_holding(32.0) == found.basis


def test_atoms_without_a_species():
    with pytest.raises(ReadError, match="not defined: Co, N"):
        atoms("1 N 0 0 0", "2 Co 0 0 1", "3 O 0 0 2")
    with pytest.raises(ReadError, match="has no species"):
        atoms("1")


def test_species_of_one_element():
    assert len(species("Fe_up Fe5.5H-s1 Fe_PBE19H", "Fe_down Fe5.5H-s1 Fe_PBE19H")) == 2
    with pytest.raises(ReadError, match="Fe has the basis"):
        species("Fe1 Fe5.5H-s1 Fe_PBE19H", "Fe2 Fe5.5H-s2 Fe_PBE19H")


def test_path_segments():
    words = ["12", "0.25", "0", "0", "0.5", "0", "-0.5", "K", "M"]
    assert parse_path_segment(words, HERE) == PathSegment(12, (0.25, 0.0, 0.0), (0.5, 0.0, -0.5), ("K", "M"))
    assert parse_path_segment(words[:7], HERE).labels == ("", "")


@pytest.mark.parametrize("line", ["10 0 0 0 1 0", "10 0 0 0 1 0 x G K", "0 0 0 0 1 0 0 G K", "10 0 0 0 nan 0 0 G K"])
def test_broken_path_segments(line):
    with pytest.raises(ReadError, match=r"band path is not"):
        parse_path_segment(line.split(), HERE)
