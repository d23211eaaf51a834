import numpy as np
import pytest

from damage import cut, flipped, outcome
from deeph_tracegrad.errors import MismatchError, ReadError
from deeph_tracegrad.integrals.basis_files import read_orbitals
from deeph_tracegrad.integrals.orb import read_orb
from deeph_tracegrad.integrals.pao import parse_label, read_pao
from deeph_tracegrad.integrals.radial import Quadrature

ORB = "S_gga_7au_100Ry_2s2p1d.orb"


@pytest.fixture
def pao(unpacked):
    return unpacked("openmx/pao") / "C6.0.pao"


@pytest.fixture
def orb(unpacked):
    return unpacked("abacus/mos2") / ORB


def test_labels():
    assert parse_label("C6.0-s2p2d1").shells == (0, 0, 1, 1, 2)
    assert parse_label("Fe5.5H-s3p2d1").stem == "Fe5.5H"
    assert parse_label("C6.0_1s_CH-s3p2d1").stem == "C6.0_1s_CH"
    contracted = parse_label("Si7.0-s4>2p4>2d1")
    assert contracted.shells == (0, 0, 1, 1, 2)
    assert contracted.contracted == (0, 1)
    assert parse_label("Si7.0-s2>2p1").contracted == ()
    for wrong in ("C6.0", "C6.0-", "C6.0-2s", "C6.0-s2p", "C6.0-s2s1", "C6.0-s99"):
        with pytest.raises(MismatchError, match="not of the form"):
            parse_label(wrong)


def test_pao_gives_the_functions_that_the_label_names(pao):
    functions = read_pao(pao, parse_label("C6.0-s2p2d1"))
    assert functions.element == "C"
    assert functions.valence_electrons == 4.0
    assert functions.quadrature is Quadrature.OPENMX
    assert functions.basis.cutoff_radius == pytest.approx(6.0 * 0.529177249)
    assert functions.values.shape == (5, 500)
    # the orbitals are normalised, the tables say: R² r² over ln r
    weight = functions.r**3 * np.gradient(np.log(functions.r))
    assert (functions.values**2 @ weight) == pytest.approx(np.ones(5), abs=1e-2)
    assert read_pao(pao, parse_label("C6.0-s1p1")).degrees == (0, 1)


def test_orb_gives_all_functions(orb):
    functions = read_orb(orb)
    assert functions.element == "S"
    assert functions.label == ORB
    assert functions.degrees == (0, 0, 1, 1, 2)
    assert functions.r[[0, 1, -1]] == pytest.approx([0.0, 0.01, 7.0])
    assert functions.values[0, 0] == 7.84367180403262e-02
    norms = (functions.values**2 * functions.r**2).sum(axis=1) * 0.01
    assert norms == pytest.approx(np.ones(5), abs=1e-6)


def test_contractions_of_a_run_are_refused(pao):
    with pytest.raises(ReadError, match=r"contracts its s orbitals during the run; name the \.pao"):
        read_pao(pao, parse_label("C6.0-s4>2p2"))


def test_more_functions_than_the_file_has(pao):
    with pytest.raises(ReadError, match=r"has 15 radial functions of l = 0, and C6\.0-s16 needs 16"):
        read_pao(pao, parse_label("C6.0-s16"))
    with pytest.raises(ReadError, match=r"no whole block <pseudo\.atomic\.orbitals\.L=4"):
        read_pao(pao, parse_label("C6.0-s1g1"))


def test_files_are_found_by_label(unpacked, orb):
    folder = unpacked("openmx/pao")
    orbitals = read_orbitals(folder, {"Mo": "Mo7.0-s3p2d2", "S": "S7.0-s2p2d1"}, ["S", "Mo", "S"])
    assert list(orbitals) == ["S", "Mo"]
    with pytest.raises(ReadError, match=r"has no C7.0.pao, which the basis C7.0-s1 is in; files for C there: C6.0.pao"):
        read_orbitals(folder, {"C": "C7.0-s1"}, ["C"])
    with pytest.raises(MismatchError, match=r"--basis C=LABEL.*files for C in .*: C6.0.pao"):
        read_orbitals(folder, {}, ["C"])
    with pytest.raises(ReadError, match="is a basis of Mo, not of S"):
        read_orbitals(folder, {"S": "Mo7.0-s1"}, ["S"])
    with pytest.raises(ReadError, match="is no folder"):
        read_orbitals(folder / "C6.0.pao", {"C": "C6.0-s1"}, ["C"])
    assert read_orbitals(orb.parent, {"S": ORB}, ["S"])["S"].quadrature is Quadrature.ABACUS


def test_files_of_different_codes_do_not_mix(unpacked, orb, tmp_path):
    (tmp_path / ORB).symlink_to(orb)
    (tmp_path / "Mo7.0.pao").symlink_to(unpacked("openmx/pao") / "Mo7.0.pao")
    with pytest.raises(MismatchError, match="are of different DFT codes"):
        read_orbitals(tmp_path, {"S": ORB, "Mo": "Mo7.0-s1"}, ["S", "Mo"])


@pytest.mark.parametrize("damage", [cut, flipped])
def test_damaged_files_are_refused_or_read(pao, orb, damage, tmp_path):
    label = parse_label("C6.0-s2p2d1")
    for file, reader in [(pao, lambda path: read_pao(path, label)), (orb, read_orb)]:
        copy = tmp_path / file.name
        whole = file.read_bytes()
        for content in damage(whole, seed=0, count=40):
            copy.write_bytes(content)
            found = outcome(reader, copy)
            if found is not None:
                assert np.isfinite(found.values).all()
                assert found.values.shape == reader(file).values.shape


def test_other_files_are_refused(tmp_path, pao, orb):
    for content in (b"", b"\x00\xff\x80", b"Hello\n"):
        path = tmp_path / "C6.0.pao"
        path.write_bytes(content)
        with pytest.raises(ReadError):
            read_pao(path, parse_label("C6.0-s1"))
        with pytest.raises(ReadError):
            read_orb(path)
