from pathlib import Path

import pytest

from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.structures.labels import element_of

FILE = Path("any.cif")


@pytest.mark.parametrize(
    ("label", "element"),
    [
        *(("C", "C"), ("Fe1", "Fe"), ("C_up", "C"), ("Fe_pv", "Fe"), ("Fe3+", "Fe"), ("O2-", "O"), ("O-h1", "O")),
        *(("C1A", "C"), ("D", "H"), ("D1", "H"), ("Hg", "Hg"), ("Xe2", "Xe"), ("C1'", "C")),
    ],
)
def test_the_element_is_in_the_first_letters(label, element):
    assert element_of(label, FILE) == element


@pytest.mark.parametrize("label", ["X", "X1", "Xx", "Bq2", "H_empty", "C_ghost", "Gh", "Va"])
def test_atoms_without_nucleus(label):
    with pytest.raises(ReadError, match=r"any\.cif: .* is a ghost or dummy atom"):
        element_of(label, FILE)


@pytest.mark.parametrize("label", ["", "1C", "FE", "ca", "Ow", "Wat", "T1", "_C", "Qq", "C" * 1000])
def test_names_without_element(label):
    with pytest.raises(ReadError, match="should begin with the symbol of its element") as caught:
        element_of(label, FILE)
    assert len(str(caught.value)) < 200
