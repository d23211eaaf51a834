"""INPUT: the parameters of an ABACUS run, one `keyword value` a line."""

from collections.abc import Mapping
from pathlib import Path

from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.preprocess.abacus.text import bare_lines
from deeph_tracegrad.text_tables import read_text

HEADING = "INPUT_PARAMETERS"


def read_input(path: Path) -> Mapping[str, str]:
    """First word of each parameter's value, by the keyword in lower case; the last occurrence counts, as in ABACUS.

    Raises:
        ReadError: the file cannot be read, or lacks its heading.
    """
    lines = bare_lines(read_text(path, errors="replace"))
    if [HEADING] not in lines:
        raise ReadError(path, f"is no INPUT of ABACUS: the line {HEADING} is missing")
    parameters = lines[lines.index([HEADING]) + 1 :]
    return {words[0].lower(): words[1] for words in parameters if len(words) > 1}
