"""info.json of a DeepH folder, current or legacy, and the one key in it that is ours.

What the formats have no place for stands under the key `deeph_tracegrad`, which other programs leave alone: spin mode,
order of the elements, cutoff radii and labels of the bases, convergence, original order and labels of the atoms,
provenance.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core import Structure

from deeph_tracegrad.errors import MismatchError, ReadError
from deeph_tracegrad.material import Material
from deeph_tracegrad.orbitals import Basis, ElementBasis, SpinMode
from deeph_tracegrad.text_tables import read_text

OWN_KEY = "deeph_tracegrad"
OWN_VERSION = 1
LARGEST_NUMBER = 1e300  # JSON has integers that no float holds


@dataclass(frozen=True)
class OwnInfo:
    """What stands under our key; all absent in folders that other programs wrote.

    bases: what an ElementBasis has besides its shells, of each element, in the order of the basis.
    electrons: in the cell, in the legacy format, which has no place for them.
    atom_order: (N,) int, original number of each atom in the file's order. labels: of the atoms, in the file's order.
    """

    spin: SpinMode | None = None
    bases: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    electrons: float | None = None
    converged: bool | None = None
    atom_order: np.ndarray | None = None
    labels: Sequence[str] | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def basis(self, shells: Mapping[str, tuple[int, ...]]) -> Basis:
        """The basis with these shells, in their order of elements, completed by what is known here."""
        return Basis.of(
            {element: ElementBasis(degrees, **self.bases.get(element, {})) for element, degrees in shells.items()}
        )

    def labelled(self, structure: Structure) -> Structure:
        """The structure with the labels of its atoms, where they are known here."""
        if self.labels is None:
            return structure
        return Structure(structure.lattice, structure.species, structure.frac_coords, labels=self.labels)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ReadError: the file is missing or holds no JSON object.
    """
    content = read_json_value(path)
    if not isinstance(content, dict):
        raise ReadError(path, "should hold a JSON object")
    return content


def read_json_value(path: Path) -> Any:
    """Whatever a JSON file holds.

    Raises:
        ReadError: the file is missing or not JSON.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ReadError(path, f"is not valid JSON ({error})") from error


def flag(path: Path, info: Mapping[str, Any], key: str) -> bool | None:
    """A true or false value; None where it is null or missing."""
    value = info.get(key)
    if value is None or isinstance(value, bool):
        return value
    raise ReadError(path, f"{key} should be true or false, not {value!r}")


def number(path: Path, info: Mapping[str, Any], key: str) -> float | None:
    """A finite number; None where it is null or missing."""
    value = info.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < LARGEST_NUMBER:
        raise ReadError(path, f"{key} should be a number, not {str(value)[:80]!r}")
    return float(value)


def shells(path: Path, element: str, degrees: Any) -> tuple[int, ...]:
    """The degrees of an element's shells, checked."""
    if not isinstance(degrees, list) or not all(type(degree) is int for degree in degrees):
        raise ReadError(path, f"the shells of {element} should be a list of degrees such as [0, 0, 1], not {degrees!r}")
    try:
        return ElementBasis(tuple(degrees)).shells
    except MismatchError as error:
        raise ReadError(path, f"{element}: {error}") from error


def read_own(path: Path, info: Mapping[str, Any], num_atoms: int) -> OwnInfo:
    """What stands under our key.

    Raises:
        ReadError: it is not as this program writes it.
    """
    own = info.get(OWN_KEY)
    if own is None:
        return OwnInfo()
    try:
        if own["version"] > OWN_VERSION:
            raise ReadError(path, f"a newer deeph-tracegrad wrote version {own['version']} of {OWN_KEY!r}; update")
        order = own.get("atom_order")
        if order is not None and sorted(order) != list(range(num_atoms)):
            raise ReadError(path, f"atom_order is no permutation of {num_atoms} atoms")
        labels = own.get("labels")
        if labels is not None and [type(label) for label in list(labels)] != [str] * num_atoms:
            raise ReadError(path, f"labels should be a list of texts for {num_atoms} atoms")
        return OwnInfo(
            SpinMode(own["spin"]),
            {
                str(element): {
                    "cutoff_radius": number(path, fields, "cutoff_radius"),
                    "label": _text(path, fields, "label"),
                    "valence_electrons": number(path, fields, "valence_electrons"),
                }
                for element, fields in own["bases"].items()
            },
            number(path, own, "electrons"),
            flag(path, own, "converged"),
            None if order is None else np.array(order, dtype=np.int64),
            labels,
            dict(own["provenance"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ReadError(
            path, f"the entry {OWN_KEY!r} is damaged ({error!r}); without it the folder can be read"
        ) from error


def own_info(material: Material, atom_order: np.ndarray | None = None) -> dict[str, Any]:
    """What to write under our key.

    material: with its atoms in the file's order.
    atom_order: (N,) int, original number of each atom in the file's order; None where they are the same.
    """
    own: dict[str, Any] = {
        "version": OWN_VERSION,
        "spin": str(material.spin),
        "bases": {
            element: {name: value for name, value in vars(basis).items() if name != "shells"}
            for element, basis in material.basis.items()
        },
        "converged": material.converged,
        "provenance": dict(material.provenance),
    }
    if atom_order is not None:
        own["atom_order"] = atom_order.tolist()
    labels = [site.label for site in material.structure]
    if labels != material.elements:
        own["labels"] = labels
    return own


def write_json(path: Path, info: Mapping[str, Any]) -> None:
    """Write a JSON file; arrays become lists and paths text."""
    path.write_text(json.dumps(info, default=_plain) + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)


def _text(path: Path, fields: Mapping[str, Any], key: str) -> str | None:
    value = fields.get(key)
    if value is None or isinstance(value, str):
        return value
    raise ReadError(path, f"{key} should be text, not {value!r}")
