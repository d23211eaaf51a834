"""The input file of OpenMX: keywords, blocks, and band paths."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.orbitals import SpinMode

DEFAULT_SCF_CRITERION = 1e-6
SPIN_MODES = {"off": SpinMode.NONE, "on": SpinMode.COLLINEAR, "nc": SpinMode.NONCOLLINEAR}

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class InputFile:
    """The text of an input file, taken apart. Capitals do not matter in keywords, and the first occurrence counts.

    keywords: words after each keyword, by the keyword in lower case.
    blocks: rows of words between `<Name` and `Name>`, by the name in lower case.
    """

    path: Path
    keywords: Mapping[str, tuple[str, ...]]
    blocks: Mapping[str, tuple[tuple[str, ...], ...]]

    def block(self, name: str) -> tuple[tuple[str, ...], ...]:
        """The rows of a block.

        Raises:
            ReadError: the input has no such block.
        """
        if name.lower() not in self.blocks:
            raise ReadError(self.path, f"the OpenMX input has no block <{name}")
        return self.blocks[name.lower()]

    def word(self, keyword: str, default: str) -> str:
        """The first word after a keyword, in lower case."""
        words = self.keywords.get(keyword.lower())
        return words[0].lower() if words else default

    def number(self, keyword: str, default: float) -> float:
        """The number after a keyword.

        Raises:
            ReadError: it is not a number.
        """
        word = self.word(keyword, str(default))
        try:
            return float(word)
        except ValueError:
            raise ReadError(self.path, f"the OpenMX input gives {keyword} as {word!r}, not a number") from None


@dataclass(frozen=True)
class PathSegment:
    """One line of the block Band.kpath: `points` k-points from `start` to `end`, both included.

    start, end: fractions of the reciprocal vectors. labels: names of the two ends, empty where not given.
    """

    points: int
    start: Vector
    end: Vector
    labels: tuple[str, str]


def parse_input(text: str, path: Path) -> InputFile:
    """Take the text of an input file apart; `path` is where it came from.

    Raises:
        ReadError: a block has no end.
    """
    keywords: dict[str, tuple[str, ...]] = {}
    blocks: dict[str, tuple[tuple[str, ...], ...]] = {}
    name: str | None = None
    rows: list[tuple[str, ...]] = []
    for line in text.splitlines():
        words = tuple(line.split("#", 1)[0].split())
        if not words:
            continue
        if name is None and words[0].startswith("<"):
            name, rows = words[0][1:].lower(), []
        elif name is not None and words[0].lower() == f"{name}>":
            blocks.setdefault(name, tuple(rows))
            name = None
        elif name is not None:
            rows.append(words)
        else:
            keywords.setdefault(words[0].lower(), words[1:])
    if name is not None:
        raise ReadError(path, f"the block <{name} of the OpenMX input has no end")
    return InputFile(path, keywords, blocks)


def parse_path_segment(words: Sequence[str], path: Path) -> PathSegment:
    """One line of a band path: number of points, start, end, and maybe their labels.

    Raises:
        ReadError: it is something else.
    """
    try:
        points, numbers = int(words[0]), [float(word) for word in words[1:7]]
        start, end = (numbers[0], numbers[1], numbers[2]), (numbers[3], numbers[4], numbers[5])
    except (ValueError, IndexError):
        points, start, end = 0, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0)
    if not 1 <= points <= 1_000_000 or not all(abs(number) < 1000 for number in (*start, *end)):
        raise ReadError(
            path, f"the line {' '.join(words)!r} of a band path is not 'points kx ky kz kx ky kz label label'"
        )
    labels = (*words[7:9], "", "")
    return PathSegment(points, start, end, (labels[0], labels[1]))
