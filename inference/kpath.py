"""Paths in k-space: the type, and reading one from the command line, a file, or a list of k-points.

Shape letters: K k-points, P segments. k is in units of the reciprocal lattice vectors of the cell at hand, lengths in
k-space are in 1/Å without the factor 2π.
"""

import itertools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from pymatgen.core.lattice import Lattice
from pymatgen.core.structure import Structure

from deeph_tracegrad.errors import ConfigError, ReadError
from deeph_tracegrad.inference.brillouin import automatic_corners
from deeph_tracegrad.text_tables import read_text
from deeph_tracegrad.units import OPENMX_BOHR_ANGSTROM

GAMMA = {"G", "g", "GAMMA", "Gamma", "gamma", r"\Gamma", "Γ"}
EXAMPLE = "'G 0 0 0, K 1/3 1/3 0, M 1/2 0 0' with '|' in place of ',' for a break"

DENSITY = 200.0  # k-points for each 1/Å of path
STEPS = 12  # on a segment, on average, where a k-point takes long; a moiré cell's zone is too small for a density
LARGEST_COORDINATE = 1000.0  # beyond, a path would have more points than anyone wants

Corner = tuple[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class KPath:
    """Straight segments, one after another; the point where two meet belongs to both.

    k: (K, 3). counts: (P,) points in each segment. labels: (P,) names of its ends.
    reciprocal: (3, 3) rows b_i, 1/Å, with the factor 2π.
    """

    k: np.ndarray
    counts: np.ndarray
    labels: tuple[tuple[str, str], ...]
    reciprocal: np.ndarray

    @property
    def corners(self) -> np.ndarray:
        """The ends of each segment, (P, 2, 3)."""
        last = np.cumsum(self.counts)
        return np.stack([self.k[last - self.counts], self.k[last - 1]], axis=1)

    @property
    def corner_distance(self) -> np.ndarray:
        """Path length at the ends of the segments, (P+1,); breaks take no length."""
        return np.concatenate([[0.0], np.cumsum(self._lengths(np.diff(self.corners, axis=1)[:, 0]))])

    @property
    def distance(self) -> np.ndarray:
        """Path length at each k-point, (K,)."""
        segment = np.repeat(np.arange(len(self.counts)), self.counts)
        return self.corner_distance[segment] + self._lengths(self.k - self.corners[segment, 0])

    @property
    def segments(self) -> list[slice]:
        """The k-points of each segment."""
        last = np.cumsum(self.counts)
        return [slice(int(end - count), int(end)) for end, count in zip(last, self.counts, strict=True)]

    @property
    def ticks(self) -> list[str]:
        """What to write at each of `corner_distance`: `X`, or `X|U` at a break."""
        starts, ends = zip(*self.labels, strict=True)
        inner = [end if end == start else f"{end}|{start}" for end, start in zip(ends[:-1], starts[1:], strict=True)]
        return [starts[0], *inner, ends[-1]]

    def name(self, number: int) -> str:
        """The label of a corner, or those of the corners between which a k-point lies."""
        segment = int(np.searchsorted(np.cumsum(self.counts), number, side="right"))
        labels, corners = self.labels[segment], self.corners[segment]
        for label, corner in zip(labels, corners, strict=True):
            if np.allclose(self.k[number], corner):
                return label
        return f"between {labels[0]} and {labels[1]}"

    def _lengths(self, k: np.ndarray) -> np.ndarray:
        return np.linalg.norm(k @ self.reciprocal, axis=1) / (2 * np.pi)


def path_between(corners: Sequence[Sequence[Corner]], lattice: Lattice, density: float | None) -> KPath:
    """Straight lines between labelled corners; `corners` holds one list for each unbroken part.

    density: k-points for each 1/Å; None: so many that a segment has `STEPS` steps on average. A part of one corner is a
    single k-point.
    """
    reciprocal = lattice.reciprocal_lattice.matrix
    ends = [pair for part in corners for pair in (itertools.pairwise(part) if part[1:] else [(part[0], part[0])])]
    lengths = [float(np.linalg.norm((end - start) @ reciprocal)) / (2 * np.pi) for (_, start), (_, end) in ends]
    if density is None:
        density = STEPS * len(lengths) / sum(lengths) if any(lengths) else 0.0
    k, labels = [], []
    for ((start_label, start), (end_label, end)), length in zip(ends, lengths, strict=True):
        count = max(2, round(density * length) + 1) if length > 0 else 1
        k.append(np.linspace(start, end, count))
        labels.append((start_label, end_label))
    return KPath(np.concatenate(k), np.array([len(part) for part in k]), tuple(labels), reciprocal)


def choose_path(request: str, structure: Structure, density: float | None) -> KPath:
    """The path that the user asks for: 'auto', the name of a file, or corners; density as for `path_between`.

    Raises:
        ConfigError: the text is none of the three.
        ReadError: the file cannot be read as a path.
    """
    if request == "auto":
        return path_between(automatic_corners(structure), structure.lattice, density)
    if os.path.isfile(request):  # noqa: PTH113  Path.is_file fails on a text too long for a name
        return read_path(Path(request), structure.lattice, density)
    return path_between(parse_corners(request), structure.lattice, density)


def parse_corners(text: str) -> list[list[Corner]]:
    """Corners such as 'G 0 0 0, K 1/3 1/3 0 | X 1/2 0 0, G 0 0 0'; coordinates may be fractions.

    Raises:
        ConfigError: the text is something else.
    """
    parts = [[corner.split() for corner in part.split(",")] for part in text.split("|")]
    try:
        corners = [[(_label(words[0]), _vector(words[1:])) for words in part] for part in parts]
    except (ValueError, IndexError, ArithmeticError):
        raise ConfigError(
            f"the k-path {text!r} is neither 'auto', nor a file that exists, nor corners as in {EXAMPLE}"
        ) from None
    if any(len(part) < 2 for part in corners):
        raise ConfigError(f"the k-path {text!r} has a part with one corner; a line needs two, as in {EXAMPLE}")
    return corners


def read_path(path: Path, lattice: Lattice, density: float | None) -> KPath:
    """A file: an OpenMX input with a Band.kpath, a K_PATH of DeepH-dock, or one corner 'label x y z' a line.

    The first two say themselves how many points a segment has. In the last, blank lines break the path.

    Raises:
        ReadError: the file holds no path.
    """
    lines = [line.split("#", 1)[0].strip() for line in read_text(path).splitlines()]
    block = _block(lines, "Band.kpath")
    try:
        if block is not None:
            return _from_segments(block, lattice, _openmx_basis(lines, lattice))
        if any(len(line.split()) == 9 for line in lines):
            return _from_segments([line for line in lines if line], lattice, np.eye(3))
        parts = re.split(r"\n\s*\n", "\n".join(lines).strip())
        return path_between(parse_corners("|".join(",".join(part.split("\n")) for part in parts)), lattice, density)
    except (ValueError, IndexError, ArithmeticError, np.linalg.LinAlgError, ConfigError):
        raise ReadError(
            path,
            "holds no k-path. Expected an OpenMX input with a block <Band.kpath, lines "
            "`points kx ky kz kx' ky' kz' LABEL LABEL'`, or one corner `LABEL kx ky kz` a line, blank lines as breaks",
        ) from None


def path_through(
    k: np.ndarray, structure: Structure, labels: Sequence[tuple[str, str]] = ()
) -> tuple[KPath, np.ndarray]:
    """The path that a list of k-points (K, 3) follows, and which of them stands at each of its points.

    A segment ends where the list bends, or holds a point twice. A bend that the list holds once appears twice in the
    path: at the end of one segment and at the start of the next.

    labels: names of the ends of the segments, where known; otherwise those of the automatic path.
    """
    reciprocal = structure.lattice.reciprocal_lattice.matrix
    step = np.diff(k, axis=0) @ reciprocal
    tolerance = 1e-4 * np.linalg.norm(step, axis=1).max(initial=0.0)
    moves = np.linalg.norm(step, axis=1) > tolerance
    turns = (np.linalg.norm(np.diff(step, axis=0), axis=1) > tolerance) & moves[1:] & moves[:-1]
    starts = np.sort(np.concatenate([[0], np.flatnonzero(~moves) + 1, np.flatnonzero(turns) + 1]))
    ends = np.sort(np.concatenate([np.flatnonzero(~moves), np.flatnonzero(turns) + 1, [len(k) - 1]]))
    source = np.concatenate([np.arange(start, end + 1) for start, end in zip(starts, ends, strict=True)])
    if len(labels) == len(starts):
        names = tuple((_label(start), _label(end)) for start, end in labels)
    else:
        known = [(label, star(point, reciprocal)) for part in automatic_corners(structure) for label, point in part]
        names = tuple(
            (_name(k[start], reciprocal, known), _name(k[end], reciprocal, known))
            for start, end in zip(starts, ends, strict=True)
        )
    return KPath(k[source], ends - starts + 1, names, reciprocal), source


def star(k: np.ndarray, reciprocal: np.ndarray) -> np.ndarray:
    """The shortest lengths |k + G|, ascending: equal for points that a symmetry of the lattice takes to one another."""
    shifts = np.array(list(itertools.product(range(-2, 3), repeat=3)))
    return np.sort(np.linalg.norm((k - np.round(k) + shifts) @ reciprocal, axis=1))[:16]


def _name(k: np.ndarray, reciprocal: np.ndarray, known: Sequence[tuple[str, np.ndarray]]) -> str:
    """The label of the known point that is equivalent to k; else its coordinates."""
    own = star(k, reciprocal)
    for label, lengths in known:
        if np.allclose(own, lengths, rtol=1e-4, atol=1e-4):
            return label
    return " ".join(str(Fraction(float(value)).limit_denominator(24)) for value in k)


def _from_segments(lines: list[str], lattice: Lattice, basis: np.ndarray) -> KPath:
    """Lines `points kx ky kz kx' ky' kz' LABEL LABEL'`; `basis` (3, 3) takes their k to that of the lattice."""
    k, labels = [], []
    for line in lines:
        words = line.split()
        if len(words) != 9 or int(words[0]) < 2:
            raise ValueError(line)
        k.append(np.linspace(_vector(words[1:4]) @ basis, _vector(words[4:7]) @ basis, int(words[0])))
        labels.append((_label(words[7]), _label(words[8])))
    return KPath(
        np.concatenate(k), np.array([len(part) for part in k]), tuple(labels), lattice.reciprocal_lattice.matrix
    )


def _openmx_basis(lines: list[str], lattice: Lattice) -> np.ndarray:
    """What takes k in units of the reciprocal vectors of Band.KPath.UnitCell, where given, to those of the lattice."""
    cell = _block(lines, "Band.KPath.UnitCell")
    if cell is None:
        return np.eye(3)
    units = [line.split()[1].lower() for line in lines if line.lower().startswith("atoms.unitvectors.unit")]
    vectors = np.array([_vector(line.split()) for line in cell])
    if units and units[0] == "au":
        vectors = vectors * OPENMX_BOHR_ANGSTROM
    return np.linalg.inv(vectors).T @ lattice.matrix.T


def _block(lines: list[str], name: str) -> list[str] | None:
    """The lines of an OpenMX block, None where there is none."""
    lowered = [line.lower() for line in lines]
    if f"<{name}".lower() not in lowered:
        return None
    start = lowered.index(f"<{name}".lower())
    return [line for line in lines[start + 1 : lowered.index(f"{name}>".lower(), start)] if line]


def _vector(words: Sequence[str]) -> np.ndarray:
    vector = np.array([float(Fraction(word)) for word in words])
    if vector.shape != (3,) or (abs(vector) > LARGEST_COORDINATE).any():
        raise ValueError(words)
    return vector


def _label(word: str) -> str:
    return "Γ" if word in GAMMA else word
