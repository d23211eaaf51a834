"""What a DeepH-E3 model predicts, from its `dataset_info.json` and `target_blocks.json`."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

from pymatgen.core import Element

from deeph_tracegrad.deeph_info import flag, read_json, read_json_value, shells
from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.orbitals import Basis, ElementBasis, SpinMode
from deeph_tracegrad.targets import Target

_LARGEST_NUMBER = 118


def read_basis(path: Path) -> tuple[Basis, SpinMode]:
    """Elements, in the order of the model's species, and their shells; spin mode.

    Raises:
        ReadError: the file is missing or damaged, or has shells that this program does not support.
    """
    info = read_json(path)
    spinful = flag(path, info, "spinful")
    numbers, shell_lists = info.get("index_to_Z"), info.get("orbital_types")
    if spinful is None:
        raise ReadError(path, "spinful is missing")
    if not isinstance(numbers, list) or not all(type(z) is int and 0 < z <= _LARGEST_NUMBER for z in numbers):
        raise ReadError(path, f"index_to_Z should be a list of atomic numbers, not {str(numbers)[:80]}")
    if not numbers or len(set(numbers)) < len(numbers):
        raise ReadError(path, f"index_to_Z should list each element once, not {numbers}")
    if not isinstance(shell_lists, list) or len(shell_lists) != len(numbers):
        raise ReadError(path, f"orbital_types should have a list of shells for each of the {len(numbers)} elements")
    elements = [Element.from_Z(number).symbol for number in numbers]
    bases = {
        element: ElementBasis(shells(path, element, degrees))
        for element, degrees in zip(elements, shell_lists, strict=True)
    }
    return Basis.of(bases), SpinMode.NONCOLLINEAR if spinful else SpinMode.NONE


def read_targets(path: Path, basis: Basis) -> list[Target]:
    """The targets in the order of the network's outputs: for each a mapping of element pairs, "6 6", to two shells.

    Raises:
        ReadError: the file is missing or damaged, lacks blocks of H (a target_blocks_type other than all), or groups
            them in another way.
    """
    content = read_json_value(path)
    if not isinstance(content, list):
        raise ReadError(path, "should be a list of targets such as {'6 6': [0, 0]}")
    blocks = _blocks(basis)
    targets: list[Target] = []
    for entry in content:
        found = {blocks.pop(block, None) for block in _entry_blocks(path, entry)}
        target = found.pop()
        if target is None or found or target in targets:
            raise ReadError(
                path, f"the target {str(entry)[:80]} is not one shell pair of every element pair that has it"
            )
        targets.append(target)
    if blocks:
        pair, places = next(iter(blocks))
        raise ReadError(
            path,
            f"the model predicts only a part of H: {len(blocks)} blocks are missing, the first of them of the element "
            f"pair {pair} and shells {list(places)}",
        )
    return targets


def _blocks(basis: Basis) -> dict[tuple[str, tuple[int, int]], Target]:
    """Every pair of shells of every pair of elements, as DeepH-E3 names it, and its target."""
    return {
        (f"{Element(one).Z} {Element(other).Z}", (i, j)): Target(
            left, i - basis[one].shells.index(left), right, j - basis[other].shells.index(right)
        )
        for one, other in product(basis, basis)
        for i, left in enumerate(basis[one].shells)
        for j, right in enumerate(basis[other].shells)
    }


def _entry_blocks(path: Path, entry: Any) -> Iterator[tuple[str, tuple[int, int]]]:
    """The element pairs and shells of one target."""
    if not isinstance(entry, dict) or not entry:
        raise ReadError(path, f"a target should be like {{'6 6': [0, 0]}}, not {str(entry)[:80]}")
    for pair, places in entry.items():
        if not isinstance(places, list) or len(places) != 2 or not all(type(place) is int for place in places):
            raise ReadError(path, f"a target should be like {{'6 6': [0, 0]}}, not {str(entry)[:80]}")
        yield pair, (places[0], places[1])
