"""ABACUS's basis files, `C_gga_7au_100Ry_2s2p1d.orb`: a header, then for each radial function R(r) on a uniform grid.

Shape letters: n points of the grid, F radial functions.
"""

import re
from pathlib import Path

import numpy as np
from pymatgen.core import Element

from deeph_tracegrad import units
from deeph_tracegrad.errors import MismatchError, ReadError
from deeph_tracegrad.integrals.radial import Quadrature, RadialFunctions
from deeph_tracegrad.orbitals import ElementBasis
from deeph_tracegrad.text_tables import read_text

_ELEMENT = re.compile(r"^\s*Element\s+([A-Z][a-z]?)\s", re.MULTILINE)
_CUTOFF = re.compile(r"Radius Cutoff\(a\.u\.\)\s+(\d{1,2}(?:\.\d+)?)\s")
_SHELLS = re.compile(r"Number of ([A-Z])orbital\s*-->\s*(\d+)\s")
_MESH = re.compile(r"^\s*Mesh\s+(\d{1,6})\s+dr\s+(\d*\.\d+)\s", re.MULTILINE)
_DEGREES = "SPDFGHI"
_FUNCTION = re.compile(r"Type\s+L\s+N\s+\d+\s+(\d+)\s+(\d+)\s")


def read_orb_header(path: Path) -> ElementBasis:
    """The basis in an .orb file.

    Raises:
        ReadError: the file cannot be read or is no .orb file.
    """
    return _header(path, read_text(path))


def read_orb(path: Path) -> RadialFunctions:
    """All radial functions of an .orb file, by degree, then as they are numbered.

    Raises:
        ReadError: the file is damaged or no .orb file.
    """
    text = read_text(path)
    basis, element, mesh = _header(path, text), _ELEMENT.search(text), _MESH.search(text)
    if element is None or not Element.is_valid_symbol(element[1]) or mesh is None:
        raise ReadError(path, "is no .orb file of ABACUS: its header lacks the element, the mesh or its step")
    points, step = int(mesh[1]), float(mesh[2])
    cutoff = float(_CUTOFF.findall(text)[0])
    if not np.isclose((points - 1) * step, cutoff, atol=2 * step):
        raise ReadError(
            path, f"its mesh of {points} points, {step} bohr apart, does not end at the cutoff {cutoff} bohr"
        )
    functions = _functions(path, text, points)
    if tuple(degree for degree, _ in sorted(functions)) != basis.shells:
        raise ReadError(path, f"its functions are not those that its header lists, {basis.name}; is it cut off?")
    return RadialFunctions(
        source=path,
        element=element[1],
        label=path.name,
        degrees=basis.shells,
        cutoff=cutoff,
        r=np.arange(points) * step,
        values=np.array([functions[name] for name in sorted(functions)]),
        quadrature=Quadrature.ABACUS,
        bohr_angstrom=units.ABACUS_BOHR_ANGSTROM,
        hartree_ev=2 * units.ABACUS_RYDBERG_EV,
    )


def _header(path: Path, text: str) -> ElementBasis:
    header, end, _ = text.partition("SUMMARY")
    cutoff, shells = _CUTOFF.search(header), _SHELLS.findall(header)
    if not end or cutoff is None or not shells or not all(letter in _DEGREES for letter, _ in shells):
        raise ReadError(path, "is no .orb file of ABACUS: its header lacks the cutoff radius or the shells")
    degrees = tuple(_DEGREES.index(letter) for letter, count in shells for _ in range(min(int(count), 100)))
    try:
        return ElementBasis(degrees, float(cutoff[1]) * units.ABACUS_BOHR_ANGSTROM, path.name)
    except MismatchError as error:
        raise ReadError(path, str(error)) from None


def _functions(path: Path, text: str, points: int) -> dict[tuple[int, int], np.ndarray]:
    """R(r) of each degree and number, (n,)."""
    functions = {}
    starts = list(_FUNCTION.finditer(text))
    ends = [match.start() for match in starts[1:]] + [len(text)]
    for match, end in zip(starts, ends, strict=True):
        name = int(match[1]), int(match[2])
        try:
            values = np.array(text[match.end() : end].split(), dtype=float)
        except ValueError:
            values = np.empty(0)
        if len(values) != points or not np.isfinite(values).all() or name in functions:
            raise ReadError(path, f"function {name[1]} of l = {name[0]} is not {points} numbers; it is damaged")
        functions[name] = values
    return functions
