"""Small text files, most of them of numbers, read so that a damaged one is noticed."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deeph_tracegrad.errors import ReadError


def read_text(path: Path, errors: str = "strict") -> str:
    """The text of a file.

    errors: what becomes of bytes that are not UTF-8, as for `bytes.decode`: "replace" where a program or its user
        may have written a comment in another encoding.

    Raises:
        ReadError: the file is missing, cannot be opened, or is no text.
    """
    try:
        text = path.read_text(encoding="utf-8", errors=errors)
    except FileNotFoundError:
        raise ReadError(path, "the file is missing") from None
    except OSError as error:
        raise ReadError(path, f"cannot be opened: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ReadError(path, "is not a text file") from error
    if "\0" in text:
        raise ReadError(path, "is not a text file")
    return text


def read_lines(path: Path) -> list[str]:
    """The lines of a text file.

    Raises:
        ReadError: it cannot be read, is not text, or its last line does not end: then a number may have lost digits.
    """
    text = read_text(path)
    if not text.endswith("\n"):
        raise ReadError(
            path, "the last line does not end with a line break, so the file may be cut off; add one if not"
        )
    return text.split("\n")[:-1]


def read_numbers(path: Path, words: Sequence[str], count: int) -> list[float]:
    """Exactly `count` finite numbers.

    Raises:
        ReadError: there are fewer or more, or one is no finite number.
    """
    try:
        numbers = [float(word.replace("D", "e").replace("d", "e")) for word in words]
    except ValueError:
        numbers = []
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise ReadError(path, f"{count} numbers were expected where the file has {' '.join(words)!r}")
    return numbers


def read_table(path: Path) -> np.ndarray:
    """A rectangular table of numbers, (rows, columns); empty lines are skipped.

    Raises:
        ReadError: the file is no such table.
    """
    rows = [line.split() for line in read_lines(path) if line.strip()]
    if not rows:
        raise ReadError(path, "the file holds no numbers")
    return np.array([read_numbers(path, row, len(rows[0])) for row in rows])
