"""What the files of other programs call their atoms, and the element that is meant."""

import re
from pathlib import Path

from pymatgen.core import Element

from deeph_tracegrad.errors import ReadError

ISOTOPES = {"D": "H"}
GHOSTS = {"X", "Xx", "Bq", "Gh", "Va"}
GHOST_WORD = re.compile("empty|ghost|dummy", re.IGNORECASE)
NO_ELEMENT = {"D", "T"}  # pymatgen has the isotopes among its elements; T is also a tetrahedral site


def element_of(label: str, path: Path) -> str:
    """The element of an atom called C, Fe1, C_up, Fe3+, O-h1 or D: the letters that it begins with.

    path: the file that has the label, for the message.

    Raises:
        ReadError: the letters are no element's symbol, or it is an atom without nucleus.
    """
    match = re.match("[A-Za-z]*", label)
    letters = match[0] if match else ""
    if letters in GHOSTS or GHOST_WORD.search(label):
        raise ReadError(
            path, f"{label!r} is a ghost or dummy atom, whose orbitals belong to no element here; remove such atoms"
        )
    symbol = ISOTOPES.get(letters, letters)
    if symbol in NO_ELEMENT or not Element.is_valid_symbol(symbol):
        raise ReadError(
            path, f"the atom {label[:20]!r} should begin with the symbol of its element, as C, Fe1, C_up and Fe3+ do"
        )
    return symbol
