"""Which files in a folder hold the radial functions that labels name."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pymatgen.core import Element

from deeph_tracegrad.errors import ConfigError, MismatchError, ReadError
from deeph_tracegrad.integrals.matrices import Orbitals
from deeph_tracegrad.integrals.orb import read_orb
from deeph_tracegrad.integrals.pao import parse_label, read_pao
from deeph_tracegrad.integrals.radial import RadialFunctions, check_one_code

# Where OpenMX's distribution keeps them, seen from the folder that its DATA.PATH names.
_SUBFOLDERS = (".", "PAO")


def parse_labels(texts: Sequence[str]) -> dict[str, str]:
    """From `C=C6.0-s2p2d1` to the label of each element.

    Raises:
        ConfigError: a text is something else, or an element is named twice.
    """
    labels: dict[str, str] = {}
    for text in texts:
        element, sign, label = text.partition("=")
        if not sign or not label or not Element.is_valid_symbol(element):
            raise ConfigError(f"--basis {text}: expected ELEMENT=LABEL, such as C=C6.0-s2p2d1")
        if labels.setdefault(element, label) != label:
            raise ConfigError(f"--basis gives {element} twice, as {labels[element]} and as {label}")
    return labels


def read_orbitals(folder: Path, labels: Mapping[str, str | None], elements: Iterable[str]) -> Orbitals:
    """The radial functions of each element.

    labels: by element: the name of an .orb file, or OpenMX's label (`C6.0-s2p2d1`) of a .pao file.

    Raises:
        ReadError: a file is missing, damaged, or of another element.
        MismatchError: an element has no label, or there are files of different DFT codes.
    """
    if not folder.is_dir():
        raise ReadError(folder, "is no folder; --basis-dir names the one with the .pao or .orb files")
    orbitals = {element: _read(folder, element, labels.get(element)) for element in dict.fromkeys(elements)}
    check_one_code(orbitals.values())
    return orbitals


def _read(folder: Path, element: str, label: str | None) -> RadialFunctions:
    if label is None:
        found = ", ".join(path.name for path in _files(folder, element)) or "none"
        raise MismatchError(
            f"which basis {element} has is not known: say it by --basis {element}=LABEL, such as C6.0-s2p2d1 or the "
            f"name of an .orb file; files for {element} in {folder}: {found}"
        )
    orb = label.endswith(".orb")
    name = label if orb else f"{parse_label(label).stem}.pao"
    path = next((folder / sub / name for sub in _SUBFOLDERS if (folder / sub / name).is_file()), None)
    if path is None:
        found = ", ".join(path.name for path in _files(folder, element)) or "none"
        raise ReadError(folder, f"has no {name}, which the basis {label} is in; files for {element} there: {found}")
    functions = read_orb(path) if orb else read_pao(path, parse_label(label))
    if functions.element != element:
        raise ReadError(path, f"is a basis of {functions.element}, not of {element}")
    return functions


def _files(folder: Path, element: str) -> list[Path]:
    """The basis files whose names begin with the element's symbol."""
    return sorted(
        path
        for sub in _SUBFOLDERS
        for path in (folder / sub).glob(f"{element}[!a-z]*")
        if path.suffix in (".pao", ".orb")
    )
