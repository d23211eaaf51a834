"""Files with H(R), S(R), DM(R) or r(R) of one ionic step or of several, in any of ABACUS' layouts."""

import mmap
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.preprocess.abacus.cell_matrices import CellMatrices
from deeph_tracegrad.preprocess.abacus.csr_binary import binary_steps, parse_binary
from deeph_tracegrad.preprocess.abacus.csr_text import NEW_MARK, OLD_MARK, parse_text, text_steps

POSITION = "r"
# Every header, text or binary, is longer; in a binary one the step's number alone has a zero byte.
SNIFFED = 12

Result = TypeVar("Result")


@dataclass(frozen=True)
class Section:
    """Where a file has the matrix of one ionic step. step: counted from 0. begin, end: bytes."""

    step: int
    begin: int
    end: int


def sections(path: Path, matrix: str) -> tuple[Section, ...]:
    """What a file holds, in its order; a step that was written again occurs twice.

    matrix: H, S, DM or r, which the name of the file tells.

    Raises:
        ReadError: the file cannot be opened, or is none of ABACUS' matrix files.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise ReadError(path, f"cannot be read ({error.strerror})") from None
    return _sections(path, _components(matrix), status.st_size, status.st_mtime_ns)


def read_csr(path: Path, matrix: str, step: int | None = None) -> CellMatrices:
    """Read H(R), S(R) or DM(R).

    Args:
        path: the file, of any layout.
        matrix: "H", "S" or "DM", what the file must hold.
        step: the ionic step, counted from 0; by default the last one in the file.

    Returns:
        The entries as they stand in the file: H in Ry, orbitals in ABACUS order, spin fastest for nspin 4.

    Raises:
        ReadError: the file cannot be opened, holds something else, is cut short or is damaged, or lacks the step.
    """
    return _read(path, matrix, step)[0]


def read_position_csr(path: Path, step: int | None = None) -> list[CellMatrices]:
    """Read r(R): <i|r|j> for x, y and z, in bohr. Arguments and errors as for `read_csr`."""
    return _read(path, POSITION, step)


def _read(path: Path, matrix: str, step: int | None) -> list[CellMatrices]:
    found = [section for section in sections(path, matrix) if step in (None, section.step)]
    if not found:
        raise ReadError(path, f"does not hold step {step}")
    section = found[-1]

    def parse(data: mmap.mmap) -> list[CellMatrices]:
        own = data[section.begin : section.end]
        return parse_binary(own, _components(matrix)) if _is_binary(data) else parse_text(own, _components(matrix))

    matrices = _mapped(path, parse)
    kind = matrices[0].header.matrix
    if kind not in (None, matrix):
        raise ReadError(path, f"holds the matrix {kind}(R) where {matrix}(R) was expected")
    return matrices


# Without it each step of a long run would search the whole file for its place.
@lru_cache(maxsize=1024)
def _sections(path: Path, components: int, size: int, modified: int) -> tuple[Section, ...]:  # noqa: ARG001  it tells a changed file
    """As `sections`; size and time of change only tell a changed file from the one that was searched."""

    def search(data: mmap.mmap) -> list[tuple[int, int]]:
        return list(binary_steps(data, components) if _is_binary(data) else text_steps(data))

    found = _mapped(path, search)
    if not found:
        raise ReadError(
            path, f"is no CSR file of ABACUS: it has neither '{OLD_MARK.decode()} H(R)' nor '{NEW_MARK.decode()}'"
        )
    ends = [begin for _, begin in found[1:]] + [size]
    return tuple(Section(step, begin, end) for (step, begin), end in zip(found, ends, strict=True))


def _mapped(path: Path, use: Callable[[mmap.mmap], Result]) -> Result:
    """What `use` makes of the file's content, which is not read as a whole."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return use(data)
    except OSError as error:
        raise ReadError(path, f"cannot be read ({error.strerror})") from None
    except ValueError as error:
        reason = str(error) if path.stat().st_size else "is empty"  # which cannot be mapped
        raise ReadError(path, reason) from None


def _is_binary(data: mmap.mmap) -> bool:
    return b"\0" in data[:SNIFFED]


def _components(matrix: str) -> int:
    return 3 if matrix == POSITION else 1
