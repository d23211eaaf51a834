"""Overlap-only runs: S alone, its atoms found from the pairs; whole and damaged."""

import re
import shutil

import numpy as np
import pytest

from damage import cut, flipped, outcome
from deeph_tracegrad import units
from deeph_tracegrad.blocks import dense_at_k
from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.orbitals import SpinMode
from deeph_tracegrad.preprocess.openmx.reader import read_openmx
from deeph_tracegrad.preprocess.runs import find_runs, read_material
from openmx_layout import write_overlap_only

BOHR = units.OPENMX_BOHR_ANGSTROM


@pytest.fixture
def run(unpacked, tmp_path):
    """A small run with its second atom two cells away."""
    write_overlap_only(
        tmp_path / "run", unpacked("openmx/demo_a_00") / "openmx.scfout", np.array([[0, 0, 0], [2, 0, -1]])
    )
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("case", "spin"),
    [
        ("graphene", SpinMode.NONE),
        ("mos2", SpinMode.NONE),
        ("fe_bcc_spin", SpinMode.COLLINEAR),
        ("bi_soc", SpinMode.NONCOLLINEAR),
        ("demo_b_00", SpinMode.NONE),
    ],
)
@pytest.mark.parametrize("outside", [False, True])
def test_the_overlap_of_the_full_run(unpacked, tmp_path, case, spin, outside):
    """The same S; each atom where the cells count from, up to one lattice vector for all."""
    scfout = unpacked(f"openmx/{case}") / "openmx.scfout"
    full = read_openmx(scfout)
    cells = np.random.default_rng(len(case)).integers(-2, 3, (len(full.structure), 3)) * outside
    positions = write_overlap_only(tmp_path / "run", scfout, cells, ranks=3) * BOHR
    material = read_openmx(tmp_path / "run")

    assert (material.hamiltonian, material.fermi_level, material.converged) == ((), None, None)
    assert (material.spin, material.basis) == (spin, full.basis)
    assert material.elements == full.elements
    assert material.electrons == pytest.approx(full.electrons, abs=1e-9)
    np.testing.assert_allclose(material.structure.lattice.matrix, full.structure.lattice.matrix, rtol=0, atol=1e-12)
    moved = material.structure.cart_coords - positions
    np.testing.assert_allclose(moved, moved[:1].repeat(len(moved), axis=0), rtol=0, atol=1e-10)
    whole = moved[0] @ np.linalg.inv(full.structure.lattice.matrix)
    np.testing.assert_allclose(whole, np.rint(whole), rtol=0, atol=1e-10)

    pairs = full.overlap.pairs.copy()
    pairs[:, :3] -= cells[pairs[:, 4]] - cells[pairs[:, 3]]
    np.testing.assert_array_equal(material.overlap.on_pairs(pairs).entries, full.overlap.entries)
    for k in ([0, 0, 0], [0.3, -0.2, 0.4]):
        eigenvalues = [np.linalg.eigvalsh(dense_at_k(one.overlap, np.array(k))) for one in (material, full)]
        np.testing.assert_allclose(*eigenvalues, rtol=0, atol=1e-12)


def test_the_printed_atoms_would_be_wrong(run, unpacked):
    """The hazard: the pairs counted from the wrapped atoms join orbitals that do not touch."""
    material = read_openmx(run)
    wrapped = material.structure.frac_coords % 1.0 @ material.structure.lattice.matrix
    pairs = material.overlap.pairs
    wrong = wrapped[pairs[:, 4]] + pairs[:, :3] @ material.structure.lattice.matrix - wrapped[pairs[:, 3]]
    reach = 2 * material.basis["C"].cutoff_radius
    assert np.linalg.norm(wrong, axis=1).max() > reach + 1
    assert np.linalg.norm(material.pair_vectors(pairs), axis=1).max() < reach


def edit(run, old, new):
    text = (run / "openmx.out").read_text()
    assert old in text
    (run / "openmx.out").write_text(text.replace(old, new, 1))


def test_lattice_in_bohr(run):
    expected = read_openmx(run)
    text = (run / "openmx.out").read_text()
    block = re.search(r"Atoms\.UnitVectors\.Unit.*?Atoms\.UnitVectors>", text, re.DOTALL)[0]
    rows = [" ".join(f"{float(word) / BOHR:.14f}" for word in row.split()) for row in block.splitlines()[2:5]]
    edit(run, block, "\n".join(["Atoms.UnitVectors.Unit AU", "<Atoms.UnitVectors", *rows, "Atoms.UnitVectors>"]))
    found = read_openmx(run)
    np.testing.assert_allclose(found.structure.cart_coords, expected.structure.cart_coords, rtol=0, atol=1e-10)
    edit(run, "Unit AU", "Unit nm")
    with pytest.raises(ReadError, match="unit of the lattice vectors is 'nm'"):
        read_openmx(run)


def test_detected_by_its_files(run, tmp_path):
    (found,) = find_runs([str(tmp_path)])
    assert (found.kind, found.label, found.path) == ("openmx", "run", run)
    for path in (run / "output").iterdir():
        shutil.move(path, run)
    (run / "output").rmdir()
    (run / "openmx.out").rename(run / "any.name.out")
    assert read_material(find_runs([str(run)])[0]).elements == ["C", "C"]


def test_a_folder_with_scfout_is_a_full_run(run, unpacked):
    shutil.copy(unpacked("openmx/demo_a_00") / "openmx.scfout", run)
    assert read_openmx(run).hamiltonian


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("C5.0-s2p1", "C4.0-s2p1", "too far apart"),
        ("C5.0-s2p1", "C6.0-s2p1", "[1-9][0-9]* are missing"),
        ("C5.0-s2p1", "Cmine-s2p1", "cutoff radius of Cmine-s2p1 cannot be told"),
        ("C5.0-s2p1", "C5.0-s2p2", "expected 8 x 8"),
        ("    2      C ", "    2      N ", "not those of the input"),
        ("    2      C ", "    3      C ", "table of the final structure"),
        ("Fractional coordinates", "Cartesian coordinates", "the run did not end"),
        ("<Atoms.UnitVectors\n", "<Atoms.UnitVectors\n 1.0 0.0 0.0\n", "three vectors"),
        ("scf.SpinPolarization       Off", "scf.SpinPolarization       maybe", "off, on or nc"),
    ],
)
def test_refused_with_a_reason(run, old, new, message):
    edit(run, old, new)
    with pytest.raises(ReadError, match=message):
        read_openmx(run)


def test_files_that_do_not_belong_together(run):
    second = run / "output" / "overlaps_1.h5"
    shutil.copy(second, run / "output" / "overlaps_2.h5")
    with pytest.raises(ReadError, match=r"listed twice.*earlier run with more ranks"):
        read_openmx(run)
    (run / "output" / "overlaps_2.h5").unlink()
    second.unlink()
    with pytest.raises(ReadError, match=r"are missing.*file of a rank missing"):
        read_openmx(run)
    (run / "openmx.out").unlink()
    with pytest.raises(ReadError, match=r"no openmx\.out"):
        read_openmx(run)


def test_electrons_follow_from_the_input(run):
    edit(run, "scf.XcType", "scf.system.charge 0.5\nscf.XcType")
    assert read_openmx(run).electrons == pytest.approx(7.5)
    edit(run, "2.000 2.000", "3.000 2.000")
    material = read_openmx(run)
    assert material.electrons is None
    assert material.basis["C"].valence_electrons is None


@pytest.mark.parametrize("name", ["openmx.out", "output/overlaps_1.h5"])
@pytest.mark.parametrize("damage", [cut, flipped])
def test_damaged_files(run, name, damage):
    path = run / name
    whole, good = path.read_bytes(), read_openmx(run)
    refused = 0
    for damaged in damage(whole, len(name)):
        path.write_bytes(damaged)
        material = outcome(read_openmx, run)
        refused += material is None
        if material is not None:  # a digit of the geometry, of a comment, or of one entry
            assert material.elements == good.elements
            np.testing.assert_array_equal(material.overlap.pairs.shape, good.overlap.pairs.shape)
            assert np.isfinite(material.structure.cart_coords).all()
            assert np.abs(material.overlap.entries).max() < 1.2
            changed = material.overlap.on_pairs(good.overlap.pairs).entries != good.overlap.entries
            assert changed.sum() <= (0 if name == "openmx.out" else 2)
    assert refused > 0


@pytest.mark.parametrize("name", ["openmx.out", "output/overlaps_0.h5"])
@pytest.mark.parametrize("content", [b"", b"\0" * 5000, b"\xff" * 5000, np.random.default_rng(2).bytes(20_000)])
def test_wrong_files(run, name, content):
    (run / name).write_bytes(content)
    assert outcome(read_openmx, run) is None
