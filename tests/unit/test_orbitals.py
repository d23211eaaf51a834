"""Orders and signs of orbitals against tables that were checked on files of the three codes."""

import numpy as np
import pytest

from deeph_tracegrad.errors import MismatchError
from deeph_tracegrad.orbitals import Basis, ElementBasis, OrbitalConvention, OrbitalOrder, SpinMode

DEEPH, OPENMX, ABACUS, SIESTA = (OrbitalConvention[name] for name in ("DEEPH", "OPENMX", "ABACUS", "SIESTA"))

# (source, target) -> for each degree: new = sign * old[index]
INDEX = {
    (OPENMX, DEEPH): [[0], [1, 2, 0], [2, 4, 0, 3, 1], [6, 4, 2, 0, 1, 3, 5], [8, 6, 4, 2, 0, 1, 3, 5, 7]],
    (DEEPH, OPENMX): [[0], [2, 0, 1], [2, 4, 0, 3, 1], [3, 4, 2, 5, 1, 6, 0], [4, 5, 3, 6, 2, 7, 1, 8, 0]],
    (ABACUS, DEEPH): [[0], [2, 0, 1], [4, 2, 0, 1, 3], [6, 4, 2, 0, 1, 3, 5], [8, 6, 4, 2, 0, 1, 3, 5, 7]],
    (DEEPH, ABACUS): [[0], [1, 2, 0], [2, 3, 1, 4, 0], [3, 4, 2, 5, 1, 6, 0], [4, 5, 3, 6, 2, 7, 1, 8, 0]],
    (ABACUS, OPENMX): [[0], [1, 2, 0], [0, 3, 4, 1, 2], [0, 1, 2, 3, 4, 5, 6]],
    (SIESTA, DEEPH): [[0], [0, 1, 2], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5, 6]],
}
SIGN = {
    (OPENMX, DEEPH): ["+", "+++", "+++++", "+++++++", "+++++++++"],
    (DEEPH, OPENMX): ["+", "+++", "+++++", "+++++++", "+++++++++"],
    (ABACUS, DEEPH): ["+", "-+-", "+-+-+", "-+-+-+-", "+-+-+-+-+"],
    (DEEPH, ABACUS): ["+", "+--", "+--++", "+--++--", "+--++--++"],
    (ABACUS, OPENMX): ["+", "--+", "+++--", "+--++--"],
    (SIESTA, DEEPH): ["+", "-+-", "+-+-+", "-+-+-+-"],
}
TABLE = [
    (source, target, degree, index, [1.0 if sign == "+" else -1.0 for sign in SIGN[source, target][degree]])
    for (source, target), indices in INDEX.items()
    for degree, index in enumerate(indices)
]


@pytest.mark.parametrize(("source", "target", "degree", "index", "sign"), TABLE)
def test_order_equals_the_table(source, target, degree, index, sign):
    order = ElementBasis((degree,)).order(source, target)
    assert order.index.tolist() == index
    assert order.sign.tolist() == sign


@pytest.mark.parametrize("source", OrbitalConvention)
@pytest.mark.parametrize("target", OrbitalConvention)
def test_there_and_back_is_the_identity(source, target):
    basis = ElementBasis((0, 0, 1, 1, 2, 3, 4))
    values = np.arange(1.0, basis.num_orbitals + 1)
    there, back = basis.order(source, target), basis.order(target, source)
    moved = there.sign * values[there.index]
    np.testing.assert_array_equal(back.sign * moved[back.index], values)


def test_shells_keep_their_places():
    order = ElementBasis((0, 0, 1, 1)).order(OPENMX, DEEPH)
    assert order.index.tolist() == [0, 1, 3, 4, 2, 6, 7, 5]


def test_ascending_moves_whole_shells():
    order = OrbitalOrder.ascending([0, 2, 1, 0])
    assert order.index.tolist() == [0, 9, 6, 7, 8, 1, 2, 3, 4, 5]
    assert (order.sign == 1).all()


def test_repeated_order_treats_each_spin_alike():
    order = ElementBasis((0, 1)).order(ABACUS, DEEPH).repeated(2)
    assert order.index.tolist() == [0, 3, 1, 2, 4, 7, 5, 6]
    assert order.sign.tolist() == [1, -1, 1, -1] * 2


def test_names_and_sizes():
    basis = ElementBasis((0, 0, 0, 1, 2, 2))
    assert basis.name == "s3p1d2"
    assert basis.num_orbitals == 16
    assert basis.shell_starts == [0, 1, 2, 3, 6, 11]


@pytest.mark.parametrize("shells", [(), (1, 0), (5,), (-1, 0)])
def test_impossible_shells_are_refused(shells):
    with pytest.raises(MismatchError):
        ElementBasis(shells)


def test_basis_keeps_the_order_of_its_elements():
    basis = Basis.of({"Mo": ElementBasis((0, 1)), "S": ElementBasis((0,))})
    assert list(basis) == ["Mo", "S"]
    assert basis.num_orbitals(["S", "Mo", "S"]).tolist() == [1, 4, 1]
    assert basis.species(["S", "Mo"]).tolist() == [1, 0]
    assert basis.describe() == "Mo s1p1, S s1"
    with pytest.raises(KeyError):
        basis["W"]


def test_merging_appends_new_elements_and_refuses_different_shells():
    carbon = Basis.of({"C": ElementBasis((0, 1))})
    both = carbon.merged(Basis.of({"H": ElementBasis((0,)), "C": ElementBasis((0, 1), 3.0)}))
    assert list(both) == ["C", "H"]
    with pytest.raises(MismatchError, match="C has the shells s1p1 in one and s2p1"):
        carbon.merged(Basis.of({"C": ElementBasis((0, 0, 1))}))


def test_merging_refuses_different_radial_functions_where_both_are_known():
    unknown, short, long = (Basis.of({"C": ElementBasis((0, 1), None, label)}) for label in (None, "C5.0", "C6.0"))
    assert unknown.merged(short)["C"].label == "C5.0"
    assert short.merged(unknown)["C"].label == "C5.0"
    with pytest.raises(MismatchError, match=r"C has the basis C5\.0 in one and C6\.0 in the other"):
        unknown.merged(short).merged(long)


def test_spin_modes():
    assert [mode.channels for mode in SpinMode] == [1, 2, 1]
    assert [mode.components for mode in SpinMode] == [1, 1, 2]
