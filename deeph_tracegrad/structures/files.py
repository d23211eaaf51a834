"""Which files of structures the patterns of a command line lead to."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from deeph_tracegrad.search import distinct_labels, search

ACCEPTED = "POSCAR, CIF, extended XYZ, XSF, pymatgen's JSON and, with ASE installed, several of its formats"

# in a folder other files may be anything, also JSON
SOUGHT = ("*.cif", "*.xyz", "*.extxyz", "*.xsf", "*.vasp", "*poscar*", "*contcar*")

SUFFIX = re.compile(r"\.[A-Za-z]\w*$")


@dataclass(frozen=True)
class StructureFile:
    """A file that holds a structure.

    label: a name that no other file found with it has: its path from the folder that was searched, or its own name,
        without the suffix.
    """

    path: Path
    label: str


def find_structures(patterns: Sequence[str]) -> list[StructureFile]:
    """The files that the patterns lead to, each once, in natural order (a2 before a10) for each pattern.

    patterns: files of any name, folders to be searched at any depth for files that are called like structures, or
        globs of either.

    Raises:
        ReadError: a pattern leads to no file.
    """
    found = search(patterns, _is_structure, ACCEPTED)
    labels = distinct_labels([SUFFIX.sub("", one.label) for one in found], [one.path.resolve() for one in found])
    return [StructureFile(one.path, label) for one, label in zip(found, labels, strict=True)]


def _is_structure(path: Path, named: bool) -> bool:
    return (
        path.exists()
        and not path.is_dir()
        and (named or any(fnmatch(path.name.lower(), pattern) for pattern in SOUGHT))
    )
