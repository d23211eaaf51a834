import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from abacus_layout import BI_CELL, FE_CELL, SI2_CELL, newer_layout, older_layout, read_blocks
from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.material import Material
from deeph_tracegrad.orbitals import SpinMode
from deeph_tracegrad.preprocess.abacus.bands_file import read_abacus_bands
from deeph_tracegrad.preprocess.abacus.reader import read_abacus
from deeph_tracegrad.units import ABACUS_BOHR_ANGSTROM

H_NAME, S_NAME = "data-HR-sparse_SPIN0.csr", "data-SR-sparse_SPIN0.csr"


def edit(path, old, new, count=-1):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


def assert_same(one: Material, other: Material, shift: float = 0.0):
    """The same in every number. shift: what the structures may differ by, Å."""
    assert one.basis == other.basis
    assert one.spin == other.spin
    assert one.elements == other.elements
    assert (one.fermi_level, one.electrons, one.converged) == (other.fermi_level, other.electrons, other.converged)
    np.testing.assert_allclose(one.structure.cart_coords, other.structure.cart_coords, rtol=0, atol=shift)
    for own, its in zip((one.overlap, *one.hamiltonian), (other.overlap, *other.hamiltonian), strict=True):
        assert len(own) == len(its)
        np.testing.assert_array_equal(own.on_pairs(its.pairs).entries, its.entries)


def to_newer(run, cell, overlap_name="srs1_nao.csr"):
    out = run / "OUT.ABACUS"
    for old, new in (
        (H_NAME, "hrs1_nao.csr"),
        ("data-HR-sparse_SPIN1.csr", "hrs2_nao.csr"),
        (S_NAME, overlap_name),
    ):
        if (out / old).exists():
            (out / new).write_text(newer_layout(*read_blocks(out / old), cell, empty="left out"))
            (out / old).unlink()


def test_all_that_a_run_tells(unpacked):
    material = read_abacus(unpacked("abacus/mos2"))
    assert material.spin is SpinMode.NONE
    assert material.elements == ["Mo", "S", "S"]
    assert material.basis.describe() == "Mo s4p2d2f1, S s2p2d1"
    assert material.basis["S"].cutoff_radius == pytest.approx(7 * ABACUS_BOHR_ANGSTROM)
    assert material.basis["S"].label == "S_gga_7au_100Ry_2s2p1d.orb"
    assert (material.fermi_level, material.electrons, material.converged) == (0.93093147299, 26, True)
    assert [basis.valence_electrons for basis in material.basis.values()] == [14, 6]
    assert material.structure.labels == ["Mo", "S", "S"]
    assert (material.density, material.position) == ((), ())
    assert material.provenance["code_version"] == "3.8.1"
    assert material.provenance["hermiticity_violation"] == {"overlap": 0.0, "hamiltonian": 0.0}
    assert material.provenance["remarks"] == []
    assert material.structure.frac_coords[1, 2] == 0.586888888889


@pytest.mark.parametrize(("case", "cell"), [("si2", SI2_CELL), ("fe_nspin2", FE_CELL), ("bi_soc", BI_CELL)])
@pytest.mark.parametrize("overlap_name", ["srs1_nao.csr", "sr_nao.csr", "srs1g1_nao.csr"])
def test_the_files_of_newer_versions(copy_of, unpacked, case, cell, overlap_name):
    run = copy_of(f"abacus/{case}")
    to_newer(run, cell, overlap_name)
    assert_same(read_abacus(run), read_abacus(unpacked(f"abacus/{case}")))


def test_the_output_folder_may_be_named_instead(unpacked, monkeypatch):
    run = unpacked("abacus/si2")
    assert_same(read_abacus(run / "OUT.ABACUS"), read_abacus(run))
    monkeypatch.chdir(run / "OUT.ABACUS")
    assert_same(read_abacus(Path()), read_abacus(run))


def test_get_s_of_early_versions_wrote_beside_the_input(copy_of, unpacked):
    run = copy_of("abacus/mos2_get_S")
    (run / "OUT.ABACUS" / "SR.csr").rename(run / "SR.csr")
    edit(run / "SR.csr", "STEP: 0\n", "")
    assert_same(read_abacus(run), read_abacus(unpacked("abacus/mos2_get_S")))


def test_without_orb_files_the_shells_come_from_the_log(unpacked):
    basis = read_abacus(unpacked("abacus/mos2_get_S")).basis
    assert basis["Mo"].name == "s4p2d2f1"
    assert basis["Mo"].cutoff_radius is None
    assert basis["Mo"].label == "Mo_gga_7au_100Ry_4s2p2d1f.orb"


def test_without_stru_the_structure_comes_from_the_header(copy_of, unpacked):
    run = copy_of("abacus/si2")
    to_newer(run, SI2_CELL)
    (run / "STRU").unlink()
    material = read_abacus(run)
    np.testing.assert_allclose(
        material.structure.cart_coords, read_abacus(unpacked("abacus/si2")).structure.cart_coords, atol=1e-5
    )
    assert "srs1_nao.csr" in material.provenance["remarks"][0]


def test_without_stru_and_header_the_structure_comes_from_the_log(copy_of, unpacked):
    run = copy_of("abacus/si2")
    (run / "STRU").unlink()
    material = read_abacus(run)
    np.testing.assert_allclose(
        material.structure.cart_coords, read_abacus(unpacked("abacus/si2")).structure.cart_coords, atol=1e-5
    )
    assert "running_scf.log" in material.provenance["remarks"][0]


@pytest.mark.parametrize("position", ["0.250000000000 0.250000000000 0.250000000000", "-0.75 1.25 5.25"])
def test_atoms_stand_where_abacus_moved_them(copy_of, unpacked, position):
    run = copy_of("abacus/si2")
    edit(run / "STRU", "0.250000000000 0.250000000000 0.250000000000", position)
    assert_same(read_abacus(run), read_abacus(unpacked("abacus/si2")), shift=1e-12)


def test_cartesian_positions(copy_of, unpacked):
    run = copy_of("abacus/si2")
    edit(run / "STRU", "Direct", "Cartesian_angstrom")
    edit(run / "STRU", "0.250000000000 0.250000000000 0.250000000000", "1.3575 1.3575 1.3575")
    found, expected = read_abacus(run), read_abacus(unpacked("abacus/si2"))
    assert_same(found, expected, shift=1e-6)


def test_labels_of_one_element_share_its_basis(copy_of, unpacked):
    run = copy_of("abacus/mos2")
    log = run / "OUT.ABACUS" / "running_scf.log"
    second = re.search(r" READING ATOM TYPE 2.*?for this type = 2\n", log.read_text(), re.DOTALL).group()
    one = second.replace("type = 2", "type = 1")
    types = one.replace("= S\n", "= S1\n") + one.replace("TYPE 2", "TYPE 3").replace("= S\n", "= S_b\n")
    edit(log, second, types)
    electrons = "electron number of element S = 6\n"
    edit(log, electrons, electrons.replace("S =", "S1 =") + electrons.replace("S =", "S_b ="), 1)
    edit(run / "STRU", "S 32.06 S.upf", "S1 32.06 S.upf\nS_b 32.06 S.upf")
    edit(run / "STRU", "S_gga_7au_100Ry_2s2p1d.orb", "S_gga_7au_100Ry_2s2p1d.orb\nS_gga_7au_100Ry_2s2p1d.orb")
    edit(run / "STRU", "\nS\n0.0\n2\n", "\nS1\n0.0\n1\n")
    edit(run / "STRU", "0.586888888889 1 1 1\n", "0.586888888889 1 1 1\nS_b\n0.0\n1\n")
    material = read_abacus(run)
    assert_same(material, read_abacus(unpacked("abacus/mos2")))
    assert material.structure.labels == ["Mo", "S1", "S_b"]

    edit(log, "element S_b = 6", "element S_b = 16")
    with pytest.raises(ReadError, match=r"different orbitals or pseudopotentials .* 6.0 electrons\) .* 16.0 electrons"):
        read_abacus(run)
    edit(log, "element S_b = 16", "element S_b = 6")
    edit(log, "label = S_b\n                      L=0, number of zeta = 2", "label = S_b\n     L=0, number of zeta = 3")
    (run / "S_gga_7au_100Ry_2s2p1d.orb").unlink()
    with pytest.raises(ReadError, match=r"under different labels, s2p2d1 .* and s3p2d1"):
        read_abacus(run)


def test_electrons_set_in_the_input(copy_of):
    run = copy_of("abacus/si2")
    with (run / "INPUT").open("a") as file:
        file.write("nelec 7.5\nnelec_delta -1\n")
    assert read_abacus(run).electrons == 6.5


def test_an_unconverged_run_is_marked(copy_of):
    run = copy_of("abacus/si2")
    edit(
        run / "OUT.ABACUS" / "running_scf.log",
        "charge density convergence is achieved",
        "convergence has NOT been achieved!",
    )
    assert read_abacus(run).converged is False


def test_several_steps_are_remarked(copy_of, unpacked):
    run = copy_of("abacus/si2")
    path = run / "OUT.ABACUS" / H_NAME
    path.write_text(path.read_text().replace("e-01", "e-02") + path.read_text())
    material = read_abacus(run)
    assert_same(material, read_abacus(unpacked("abacus/si2")))
    assert "2 ionic steps" in material.provenance["remarks"][0]


def append_block(path, matrix: str, cell: str, column: int):
    """A cell with the one entry 0.5, and its partner with the transpose."""
    name, dimension, blocks = read_blocks(path)
    partner = tuple(str(-int(index)) for index in cell.split())
    for own, row, col in ((tuple(cell.split()), 0, column), (partner, column, 0)):
        pointers = [str(int(place > row)) for place in range(dimension + 1)]
        blocks[own] = [["5.00000000e-01"], [str(col)], pointers]
    assert name == matrix
    path.write_text(older_layout(name, dimension, blocks))


def test_h_that_ends_before_s_is_refused(copy_of):
    run = copy_of("abacus/si2")
    append_block(run / "OUT.ABACUS" / S_NAME, "S", "9 0 0", 3)
    with pytest.raises(ReadError, match=r"has no entries for R = \[9, 0, 0\]"):
        read_abacus(run)


def test_h_beyond_s_is_kept(copy_of):
    run = copy_of("abacus/si2")
    append_block(run / "OUT.ABACUS" / H_NAME, "H", "9 0 0", 3)
    material = read_abacus(run)
    assert [9, 0, 0, 0, 0] in material.hamiltonian[0].pairs.tolist()
    assert [9, 0, 0, 0, 0] not in material.overlap.pairs.tolist()


@pytest.mark.parametrize(
    ("case", "file", "change", "reason"),
    [
        ("si2", H_NAME, ("Matrix Dimension of H", "Matrix Dimension of S"), "holds the matrix S(R)"),
        ("si2", "running_scf.log", ("L=2, number of zeta = 1", "L=2, number of zeta = 2"), "has other shells"),
        ("si2", "running_scf.log", ("nspin = 1", "nspin = 2"), "the spin is collinear"),
        ("si2", "running_scf.log", ("nspin = 1", "nspin = 4"), "rows; spin noncollinear and the basis make 52"),
        ("si2", "running_scf.log", ("nspin = 1", "nspin = 3"), "it can be 1, 2 or 4"),
        ("fe_nspin2", "running_scf.log", ("nspin = 2", "nspin = 1"), "the spin is none"),
        ("bi_soc", "running_scf.log", ("nspin = 4", "nspin = 1"), "rows; spin none"),
        ("si2", "running_scf.log", ("atom label = Si", "atom label = Ge"), "its atoms are not those of"),
        ("si2", "../STRU", ("0.250000000000 0.25", "0.251000000000 0.25"), "was it edited"),
        ("si2", "../STRU", ("0.000000000000 2.715", "0.000000000000 2.716"), "was it edited"),
        ("si2", H_NAME, ("-2 -1 0 152\n 3.49802746e-08", "-2 -1 0 152\n 3.49802746e-01"), "is not Hermitian"),
        ("si2", S_NAME, ("1.00000000e+00", "1.00000000e+90"), "which no S(R) can have"),
        ("bi_soc", S_NAME, ("(1.00000000e+00,0.00000000e+00)", "(1.01000000e+00,0.00000000e+00)"), "depends on spin"),
    ],
)
def test_what_does_not_fit_is_refused(copy_of, case, file, change, reason):
    run = copy_of(f"abacus/{case}")
    edit(run / "OUT.ABACUS" / file, *change, 1)
    with pytest.raises(ReadError, match=re.escape(reason)):
        read_abacus(run)


def test_missing_files_are_told(copy_of, tmp_path):
    run = copy_of("abacus/si2")
    (run / "OUT.ABACUS" / S_NAME).unlink()
    with pytest.raises(ReadError, match="out_mat_hs2 1"):
        read_abacus(run)
    (run / "OUT.ABACUS" / "running_scf.log").unlink()
    with pytest.raises(ReadError, match="is no ABACUS run"):
        read_abacus(run)
    with pytest.raises(ReadError, match="is no ABACUS run"):
        read_abacus(tmp_path / "nowhere")


def test_two_generations_of_files_are_refused(copy_of):
    run = copy_of("abacus/si2")
    shutil.copy(run / "OUT.ABACUS" / H_NAME, run / "OUT.ABACUS" / "hrs1_nao.csr")
    with pytest.raises(ReadError, match="remove the outdated one"):
        read_abacus(run)


def test_several_outputs_are_refused(copy_of):
    run = copy_of("abacus/si2")
    shutil.copytree(run / "OUT.ABACUS", run / "OUT.other")
    with pytest.raises(ReadError, match=r"OUT.ABACUS, OUT.other; name one of them"):
        read_abacus(run)
    assert read_abacus(run / "OUT.other").num_orbitals == 26


def test_bands_of_the_code(unpacked):
    bands = read_abacus_bands(unpacked("abacus/fe_nspin2"))
    assert bands.energies.shape == (2, 33, 18)
    np.testing.assert_allclose(bands.k[1], [1 / 24, -1 / 24, 1 / 24], atol=1e-8)


@pytest.mark.parametrize(
    ("file", "old", "new", "reason"),
    [
        ("kpoints", "now = 27", "now = 26", "has 27 lines where kpoints lists 26"),
        ("kpoints", "now = 27", "now = 28", "announces 28"),
        ("BANDS_1.dat", "-3.43005260 ", "", "lines of different length"),
        ("BANDS_1.dat", "-3.43005260 ", "x ", "a line of bands"),
    ],
)
def test_damaged_bands_are_told(copy_of, file, old, new, reason):
    run = copy_of("abacus/si2")
    edit(run / "OUT.ABACUS" / file, old, new)
    with pytest.raises(ReadError, match=reason):
        read_abacus_bands(run)
