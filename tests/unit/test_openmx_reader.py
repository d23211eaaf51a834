"""From a run folder to a Material: which file, convergence, spin, basis, refusals."""

import re
import shutil
import struct

import numpy as np
import pytest

from deeph_tracegrad import units
from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.orbitals import SpinMode
from deeph_tracegrad.preprocess.openmx.folder import scfout_files
from deeph_tracegrad.preprocess.openmx.reader import read_openmx
from deeph_tracegrad.preprocess.openmx.scfout import read_scfout
from deeph_tracegrad.preprocess.runs import find_runs, read_material
from openmx_layout import change, change_input


@pytest.fixture
def run(unpacked, tmp_path):
    """A small run that the test may change."""
    return shutil.copytree(unpacked("openmx/demo_a_00"), tmp_path / "run")


def replace_in(path, old, new):
    """Replace text in a file of fixed layout."""
    old, new = old.encode(), new.encode()
    assert len(old) == len(new)
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))


def test_one_scfout_in_a_folder_is_found_whatever_its_name(run):
    expected = read_openmx(run)
    (run / "openmx.scfout").rename(run / "C2_strained.v2.scfout")
    assert scfout_files(run) == [run / "C2_strained.v2.scfout"]
    material = read_openmx(run)
    np.testing.assert_array_equal(material.overlap.entries, expected.overlap.entries)
    assert material.provenance["source"] == str(run / "C2_strained.v2.scfout")


def test_several_or_no_scfout(run, tmp_path):
    shutil.copy(run / "openmx.scfout", run / "second.scfout")
    with pytest.raises(ReadError, match=r"openmx\.scfout, second\.scfout"):
        read_openmx(run)
    assert read_openmx(run / "second.scfout").elements == ["C", "C"]
    with pytest.raises(ReadError, match=r"HS\.fileout"):
        read_openmx(tmp_path)
    assert scfout_files(tmp_path) == scfout_files(tmp_path / "missing") == []


def test_what_a_material_holds(unpacked):
    material = read_openmx(unpacked("openmx/mos2"))
    assert material.elements == ["Mo", "S", "S"]
    assert material.basis.describe() == "Mo s3p2d2, S s2p2d1"
    assert material.basis["Mo"].label == "Mo7.0-s3p2d2"
    assert material.basis["Mo"].cutoff_radius == pytest.approx(7.0 * units.OPENMX_BOHR_ANGSTROM)
    assert material.electrons == pytest.approx(26.0, abs=1e-9)
    assert material.converged is True
    provenance = material.provenance
    assert (provenance["code"], provenance["format_version"]) == ("OpenMX", 3)
    assert provenance["hartree_eV"] == units.OPENMX_HARTREE_EV
    assert 0 < provenance["hermiticity_violation"]["hamiltonian"] < 1e-7
    for matrix in (material.overlap, *material.hamiltonian):
        assert matrix.symmetrised()[1] == 0.0


def test_geometry_is_neither_wrapped_nor_sorted(run):
    """Atoms outside the cell stay there: the cells R of the pairs count from where they are."""
    path = run / "openmx.scfout"
    inside, scfout = read_openmx(path), read_scfout(path)
    data = path.read_bytes()
    old, new = (
        np.hstack([np.zeros((2, 1)), positions]).tobytes()
        for positions in (scfout.positions, scfout.positions + 3 * scfout.lattice[0])
    )
    begin = data.index(old[8:32]) - 8  # the first column is unset memory
    path.write_bytes(data[:begin] + new + data[begin + len(new) :])
    outside = read_openmx(path)
    expected = inside.structure.cart_coords + 3 * inside.structure.lattice.matrix[0]
    np.testing.assert_allclose(outside.structure.cart_coords, expected, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(outside.overlap.pairs, inside.overlap.pairs)


def test_species_stay_as_labels_of_the_sites(run):
    path = run / "openmx.scfout"
    assert read_openmx(path).structure.labels == ["C", "C"]

    def two_species(text):
        text = text.replace(" C  C5.0-s2p1  C_PBE19", " C1 C5.0-s2p1 C_PBE19\n C_up C5.0-s2p1 C_PBE19")
        return text.replace("    1 C ", "    1 C_up ").replace("    2 C ", "    2 C1 ")

    expected = read_openmx(path)
    change_input(path, two_species)
    material = read_openmx(path)
    assert material.structure.labels == ["C_up", "C1"]
    assert material.elements == ["C", "C"]
    assert material.basis == expected.basis
    assert material.permuted(np.array([1, 0])).structure.labels == ["C1", "C_up"]
    np.testing.assert_array_equal(material.hamiltonian[0].entries, expected.hamiltonian[0].entries)


@pytest.mark.parametrize(
    ("potential", "message"),
    [("E", "C1 is an empty atom"), ("C_PBE19", r"C has the basis C5\.0-s2p1 in one species and C5\.0-s3p1")],
)
def test_species_that_no_material_can_hold(run, potential, message):
    path = run / "openmx.scfout"
    species = f" C  C5.0-s2p1  C_PBE19\n C1 C5.0-s3p1 {potential}"
    change_input(path, lambda text: text.replace(" C  C5.0-s2p1  C_PBE19", species))
    assert read_openmx(path).elements == ["C", "C"]  # which nothing uses
    change_input(path, lambda text: text.replace("    2 C ", "    2 C1 "))
    with pytest.raises(ReadError, match=message):
        read_openmx(path)


@pytest.mark.parametrize(
    ("case", "valence"),
    [("graphene", {"C": 4}), ("mos2", {"Mo": 14, "S": 6}), ("fe_bcc_spin", {"Fe": 16}), ("bi_soc", {"Bi": 15})],
)
def test_valence_electrons(unpacked, tmp_path, case, valence):
    material = read_openmx(unpacked(f"openmx/{case}"))
    assert {element: basis.valence_electrons for element, basis in material.basis.items()} == valence


def test_valence_electrons_that_do_not_add_up(run):
    path = run / "openmx.scfout"
    original = path.read_bytes()
    for old, new in [("2.000 2.000", "2.000 2.100"), ("scf.XcType", "scf.system.charge 1.0\nscf.XcType")]:
        change_input(path, lambda text, old=old, new=new: text.replace(old, new))
        material = read_openmx(path)
        assert material.basis["C"].valence_electrons is None
        assert material.electrons == pytest.approx(8.0, abs=1e-9)
        path.write_bytes(original)


@pytest.mark.parametrize("step", [[0.01, 0.0, 0.0], [0.0, 0.0, -0.003], [0.0, 28.0, 0.0]])
def test_atoms_that_were_moved_after_the_last_scf(run, step):
    """As after molecular dynamics that were continued; OpenMX sums <r - x_i> with the new x_i and the old orbitals."""
    path = run / "openmx.scfout"
    scfout = read_scfout(path)
    lengths = scfout.num_orbitals[scfout.pairs[:, 3]] * scfout.num_orbitals[scfout.pairs[:, 4]]
    of_second = np.repeat(scfout.pairs[:, 3] == 1, lengths)

    def moved(positions):
        positions[1, 1:] += step
        return positions

    change(path, position=lambda matrix: matrix - np.multiply.outer(step, of_second * scfout.overlap))
    change(path, positions=moved)
    with pytest.raises(ReadError, match="OpenMX moved the atoms"):
        read_openmx(run)


def test_text_output_among_several_scfout(run):
    """Copies of other steps: only a text of the same name is theirs."""
    shutil.copy(run / "openmx.scfout", run / "step_1.scfout")
    assert read_openmx(run / "openmx.scfout").converged is True
    assert read_openmx(run / "step_1.scfout").converged is None
    (run / "openmx.out").rename(run / "step_1.out")
    assert read_openmx(run / "step_1.scfout").converged is True
    assert read_openmx(run / "openmx.scfout").converged is None
    materials = [read_material(found) for found in find_runs([str(run)])]
    assert [material.converged for material in materials] == [None, True]


def test_spinor_blocks(unpacked):
    """uu ud / du dd with ud = H2 + i (H3 + I2) and du its adjoint; s orbitals come first in both conventions."""
    path = unpacked("openmx/bi_soc") / "openmx.scfout"
    scfout, material = read_scfout(path), read_openmx(path)
    assert material.spin is SpinMode.NONCOLLINEAR
    block = material.hamiltonian[0].block(0)
    real, imaginary = (
        part[:, 0] * units.OPENMX_HARTREE_EV for part in (scfout.hamiltonian, scfout.hamiltonian_imaginary)
    )
    assert block.shape == (38, 38)
    assert block[0, 0] == pytest.approx(real[0] + 1j * imaginary[0], abs=1e-8)
    assert block[19, 19] == pytest.approx(real[1] + 1j * imaginary[1], abs=1e-8)
    assert block[0, 19] == pytest.approx(real[2] + 1j * (real[3] + imaginary[2]), abs=1e-8)
    assert block[19, 0] == np.conj(block[0, 19])


def test_convergence_follows_the_text_output(run):
    assert read_openmx(run).converged is True
    text = (run / "openmx.out").read_text()
    last = re.findall(r"SCF=.*", text)[-1]
    (run / "openmx.out").write_text(text.replace(last, re.sub(r"Uele= -4\.36", "Uele= -4.35", last)))
    assert read_openmx(run).converged is False
    (run / "openmx.out").write_text("".join(re.findall(r"SCF= +[12] .*\n", text)))  # the second step repeats the first
    assert read_openmx(run).converged is False
    (run / "openmx.out").write_text(text.replace("SCF=", "Step"))
    assert read_openmx(run).converged is None
    (run / "openmx.out").unlink()
    (run / "openmx.std").write_text("<DFT>  Uele = -1.0  dUele =  0.1\n<DFT>  Uele = -1.0  dUele =  0.000000000090\n")
    assert read_openmx(run).converged is True
    (run / "openmx.std").unlink()
    material = read_openmx(run)
    assert material.converged is None
    assert material.provenance["convergence_from"] is None


def test_text_output_of_another_run(run):
    text = (run / "openmx.out").read_text()
    (run / "openmx.out").write_text(re.sub(r"(Chemical potential \(Hartree\)\s+)\S+", r"\g<1>-0.1", text))
    with pytest.raises(ReadError, match="different runs"):
        read_openmx(run)


def test_contracted_orbitals(run):
    """In s5>2 two orbitals were made of five: the matrices are between the two."""
    path = run / "openmx.scfout"
    data, line = path.read_bytes(), b" C  C5.0-s5>2p4>1  C_PBE19\n\0"
    begin = data.index(b" C  C5.0-s2p1")
    path.write_bytes(data[:begin] + line + data[begin + len(line) :])
    material = read_openmx(run)
    assert material.basis.describe() == "C s2p1"
    assert material.basis["C"].label == "C5.0-s5>2p4>1"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("C5.0-s2p1", "C5.0-s2d1", "has 5 orbitals"),
        ("C5.0-s2p1", "C2.0-s2p1", "farther apart than their orbitals reach"),
        ("C5.0-s2p1", "C5.0_s2p1", "is not of the form"),
        ("    2 C ", "    2 N ", "the species of an atom is not defined: N"),
        ("    2 C ", "#   2 C ", "its input lists 1"),
        ("scf.SpinPolarization       Off", "scf.SpinPolarization       On ", "the input asks for on"),
        ("scf.criterion              1.0e-08", "scf.criterion              what   ", "not a number"),
    ],
)
def test_input_that_does_not_fit_the_matrices(run, old, new, message):
    replace_in(run / "openmx.scfout", old, new)
    with pytest.raises(ReadError, match=message):
        read_openmx(run)


def damage(path, offset, kind, value):
    data = bytearray(path.read_bytes())
    struct.pack_into(f"<{kind}", data, offset, value)
    path.write_bytes(data)


def test_damage_in_each_field(run):
    """One number wrong in every field that is read."""
    path = run / "openmx.scfout"
    original, scfout = path.read_bytes(), read_scfout(path)
    num_cells = 1 + struct.unpack_from("<6i", original)[5]
    translations, cells = 28, 28 + 32 * num_cells
    orbitals = cells + 16 * num_cells
    neighbours = orbitals + 16
    neighbour_cells = neighbours + 4 * len(scfout.pairs)
    lattice = neighbour_cells + 4 * len(scfout.pairs)
    positions = lattice + 192
    hamiltonian = positions + 64
    overlap = hamiltonian + 8 * len(scfout.overlap)
    numbers = overlap + 8 * (1 + 3 + 3 + 1 + 2) * len(scfout.overlap) + 4
    for offset, kind, value, message in [
        (24, "i", 99, "position order"),
        (translations + 40, "d", 1.0, "translations do not follow"),
        (translations + 40, "d", float("nan"), "not finite"),
        (cells + 4, "i", 1, "not the origin"),
        (cells + 36, "i", 2**31 - 1, "out of range"),
        (cells + 36, "i", -(2**31), "out of range"),
        (orbitals, "i", 0, "orbitals"),
        (orbitals, "i", 6, "."),
        (orbitals + 8, "i", -5, "neighbours"),
        (neighbours, "i", 2, "not the atom itself"),
        (neighbours + 4, "i", 3, "not one of the atoms"),
        (neighbours + 4, "i", 2 if scfout.pairs[1, 4] == 0 else 1, "."),
        (neighbour_cells + 4, "i", num_cells, "not one of the cells"),
        (lattice + 8, "d", 1.0, "lattice"),
        (positions + 8, "d", 1e3, "farther apart"),
        (positions + 8, "d", 1e9, "not finite"),
        (hamiltonian, "d", 1e5, "as large as"),
        (hamiltonian, "d", float("nan"), "as large as"),
        (hamiltonian + 8, "d", 1.0, "hermiticity"),
        (overlap, "d", 2.0, "norm"),
        (overlap, "d", float("nan"), "symmetry"),
        (overlap + 8, "d", 0.5, "symmetry"),
        (numbers - 4, "i", 99, "solver"),
        (numbers, "d", 1e3, "chemical potential"),
        (numbers, "d", float("inf"), "not finite"),
        (numbers + 64, "d", 1000.0, "electrons"),
        (numbers + 64, "d", -1.0, "electrons"),
        (numbers + 80, "i", 10_000, "input file would take"),
        (numbers + 80, "i", 50, "are not text"),
    ]:
        path.write_bytes(original)
        damage(path, offset, kind, value)
        with pytest.raises(ReadError, match=message) as caught:
            read_openmx(path)
        assert str(path) in str(caught.value)
