"""Words and numbers in the small text files of an ABACUS run."""

import math
import re
from collections.abc import Sequence
from pathlib import Path

from deeph_tracegrad.errors import ReadError


def bare_lines(text: str) -> list[list[str]]:
    """The words of each line that has some, without comments (# or //)."""
    lines = (re.split(r"#|//", line, maxsplit=1)[0].split() for line in text.splitlines())
    return [words for words in lines if words]


def numbers(path: Path, words: Sequence[str], count: int, what: str) -> list[float]:
    """The first `count` words as finite numbers.

    Raises:
        ReadError: there are fewer, or one is no such number.
    """
    try:
        values = [float(word) for word in words[:count]]
    except ValueError:
        values = []
    if len(values) < count or not all(map(math.isfinite, values)):
        raise ReadError(path, f"{what} should be {count} numbers where the file has '{' '.join(words)[:80]}'")
    return values
