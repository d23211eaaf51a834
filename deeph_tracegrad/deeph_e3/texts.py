"""Text files of a model folder."""

from pathlib import Path

from deeph_tracegrad.errors import ReadError


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        ReadError: the file is missing, cannot be opened, or is no text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ReadError(path, "the file is missing") from None
    except OSError as error:
        raise ReadError(path, f"cannot be opened: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ReadError(path, "is not a text file") from error
