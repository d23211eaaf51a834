import re

import numpy as np
import pytest

from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.integrals.orb import read_orb_header
from deeph_tracegrad.preprocess.abacus.input_file import read_input
from deeph_tracegrad.preprocess.abacus.log import read_log
from deeph_tracegrad.units import ABACUS_BOHR_ANGSTROM

# What ABACUS 3.10 and later print, as far as it is read, with Cartesian positions.
NEWER = """
                              ABACUS v3.11.0-beta.2
                lattice constant (Bohr) = 1.88973

 READING ATOM TYPE 1
                               Atom label = Mo1
                      L=0, number of zeta = 4
                      L=1, number of zeta = 2
                      L=2, number of zeta = 2
                      L=3, number of zeta = 1
            Number of atoms for this type = 1

 READING ATOM TYPE 2
                               Atom label = S
                      L=0, number of zeta = 2
                      L=1, number of zeta = 2
                      L=2, number of zeta = 1
            Number of atoms for this type = 2

                        TOTAL ATOM NUMBER = 3

 CARTESIAN COORDINATES ( UNIT =      1.88972600 Bohr )
 atom                  x                  y                  z     mag
  Mo1     0.000000000000     1.835973855000     9.000000000000  0.0000
    S     1.590000000000     0.917986928000    10.564000000000  0.0000
    S     1.590000000000     0.917986928000     7.436000000000  0.0000

 ATOMIC VELOCITIES
 Lattice vectors: (Cartesian coordinate: in unit of a_0)
                +3.18                  +0                  +0
                -1.59            +2.75396                  +0
                   +0                  +0                 +18
          Autoset the number of electrons = 26
                                    nspin = 1
 E_Fermi                 0.0611           0.8312
 E_Fermi                 0.0684           0.9309
 #SCF IS CONVERGED#
"""


@pytest.fixture
def write(tmp_path):
    def write(text, name="running_scf.log"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def test_a_log_of_3_8(unpacked):
    log = read_log(unpacked("abacus/mos2") / "OUT.ABACUS" / "running_scf.log")
    assert (log.version, log.nspin, log.electrons, log.whole.converged) == ("3.8.1", 1, 26, True)
    assert log.whole.fermi_level == 0.93093147299
    assert [(kind.label, kind.count) for kind in log.types] == [("Mo", 1), ("S", 2)]
    assert log.types[1].shells == (0, 0, 1, 1, 2)
    np.testing.assert_allclose(log.whole.geometry.fractional[2], [2 / 3, 1 / 3, 0.413111111111], atol=1e-9)
    np.testing.assert_allclose(log.whole.geometry.lattice[1], [-1.59, 2.753960784, 0], atol=1e-5)


def test_the_newer_wording(write):
    log = read_log(write(NEWER))
    assert (log.version, log.nspin, log.electrons, log.whole.converged) == ("3.11.0-beta.2", 1, 26, True)
    assert log.whole.fermi_level == 0.9309
    assert [(kind.label, kind.count, kind.shells) for kind in log.types] == [
        ("Mo1", 1, (0, 0, 0, 0, 1, 1, 2, 2, 3)),
        ("S", 2, (0, 0, 1, 1, 2)),
    ]
    assert log.whole.geometry.labels == ("Mo1", "S", "S")
    np.testing.assert_allclose(log.whole.geometry.fractional[0], [1 / 3, 2 / 3, 0.5], atol=1e-6)
    np.testing.assert_allclose(log.whole.geometry.lattice[0], [3.18 * 1.88973 * ABACUS_BOHR_ANGSTROM, 0, 0])


@pytest.mark.parametrize(
    ("text", "converged"),
    [
        ("charge density convergence is achieved", True),
        (" !! convergence has not been achieved @_@", False),
        (" convergence has NOT been achieved!", False),
        (" !!SCF IS NOT CONVERGED!!", False),
        (" #SCF IS CONVERGED#\n !!SCF IS NOT CONVERGED!!", False),
        ("", None),
    ],
)
def test_convergence(write, text, converged):
    assert read_log(write(NEWER.replace("#SCF IS CONVERGED#", text))).whole.converged is converged


@pytest.mark.parametrize("case", ["si2", "mos2", "bi_soc", "fe_nspin2"])
def test_valence_electrons(unpacked, write, case):
    path = unpacked(f"abacus/{case}") / "OUT.ABACUS" / "running_scf.log"
    expected = {"si2": {"Si": 4}, "mos2": {"Mo": 14, "S": 6}, "bi_soc": {"Bi": 15}, "fe_nspin2": {"Fe": 16}}[case]
    log = read_log(path)
    assert log.valence_electrons == expected
    assert log.electrons == sum(expected[kind.label] * kind.count for kind in log.types)
    # INPUT sets their number: only the pseudopotentials tell
    without = re.sub(r".*electron number of element.*\n|.*AUTOSET.*\n", "", path.read_text())
    assert read_log(write(without)).valence_electrons == expected
    assert read_log(write(without.replace("valence electrons", "electrons"))).valence_electrons == {}


def test_the_newer_wording_of_valence_electrons(write):
    text = NEWER + "  Electron number of element Mo1 = 14\n  Total electron number of element Mo1 = 14\n"
    assert read_log(write(text)).valence_electrons == {"Mo1": 14}


def test_the_final_fermi_level_counts_before_the_table(write):
    assert read_log(write(NEWER + " EFERMI = -1.25 eV\n")).whole.fermi_level == -1.25
    assert read_log(write(re.sub(" E_Fermi.*", "", NEWER))).whole.fermi_level is None


def test_the_older_wording_of_spin(write):
    assert read_log(write(NEWER.replace("nspin = 1", "NSPIN == 4"))).nspin == 4


def test_a_number_at_the_end_of_a_cut_log_is_not_trusted(write):
    assert read_log(write(NEWER[: NEWER.index("0.9309") + 4])).whole.fermi_level == 0.8312


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("READING ATOM TYPE", "READING", "lists no atom types"),
        ("number of zeta", "zeta", "basis_type lcao"),
        (
            "    S     1.590000000000     0.917986928000     7.436000000000  0.0000\n",
            "",
            "announces 3 atoms and lists 2",
        ),
        ("+2.75396                  +0\n", "+2.75396\n", "a lattice vector"),
        ("lattice constant (Bohr) = 1.88973", "lattice constant (Bohr) = 0.0", "do not span a cell"),
    ],
)
def test_mistakes_are_told(write, old, new, reason):
    assert old in NEWER
    path = write(NEWER.replace(old, new))
    with pytest.raises(ReadError, match=reason) as caught:
        read_log(path)
    assert caught.value.path == path


def test_input_parameters(write):
    text = (
        "# comment\nINPUT_PARAMETERS\nSuffix  abc # the name\nnspin 2\n//nspin 4\nnspin 1\nnelec\ncalculation get_S\n"
    )
    assert read_input(write(text, "INPUT")) == {"suffix": "abc", "nspin": "1", "calculation": "get_S"}
    with pytest.raises(ReadError, match="INPUT_PARAMETERS is missing"):
        read_input(write("nspin 2\n", "INPUT"))


def test_the_header_of_an_orbital_file(unpacked):
    basis = read_orb_header(unpacked("abacus/mos2") / "Mo_gga_7au_100Ry_4s2p2d1f.orb")
    assert basis.name == "s4p2d2f1"
    assert basis.cutoff_radius == pytest.approx(7 * ABACUS_BOHR_ANGSTROM)
    assert basis.label == "Mo_gga_7au_100Ry_4s2p2d1f.orb"


def test_a_file_that_is_no_orbital_file_is_told(unpacked):
    with pytest.raises(ReadError, match=r"no \.orb file"):
        read_orb_header(unpacked("abacus/mos2") / "STRU")
