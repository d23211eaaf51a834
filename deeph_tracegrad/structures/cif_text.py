"""The syntax of CIF 1.1: data blocks of names with one value or, in a loop, a column of them.

Hall, Allen, Brown, Acta Cryst. A47 (1991) 655; https://www.iucr.org/resources/cif/spec/version1.1/cifsyntax
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from deeph_tracegrad.errors import ReadError
from deeph_tracegrad.text_tables import read_lines

# a quote ends where white space follows it; # begins a comment where white space precedes it
WORD = re.compile(
    r"""\s*(?:(?P<comment>\#.*)|'(?P<single>(?:[^']|'(?=\S))*)'(?=\s|$)|"(?P<double>(?:[^"]|"(?=\S))*)"(?=\s|$)"""
    r"""|(?P<open>['"])|(?P<bare>\S+))"""
)

Word = tuple[str, bool]


@dataclass
class Block:
    """A data block. items: the values of each name, in lower case and with _ in place of the dots of newer CIF."""

    name: str
    items: dict[str, list[str]] = field(default_factory=dict)


def read_blocks(path: Path) -> list[Block]:
    """The data blocks of a CIF.

    Raises:
        ReadError: it cannot be read or is no CIF.
    """
    blocks: list[Block] = []
    names: list[str] = []
    values: list[str] = []
    in_loop = False

    def close() -> None:
        if in_loop and (not names or len(values) % len(names)):
            raise ReadError(path, f"a loop of {len(names)} names has {len(values)} values; the file is damaged")
        if names and not in_loop and not values:
            raise ReadError(path, f"{names[0]} has no value; the file is damaged")
        for column, name in enumerate(names):
            blocks[-1].items[name.lower().replace(".", "_")] = values[column :: len(names)]

    for text, bare in _words(path):
        keyword = text.lower() if bare else ""
        starts_block = keyword.startswith("data_")
        if not blocks and not starts_block:
            raise ReadError(path, f"a CIF begins with data_, and this file with {text[:40]!r}")
        if starts_block or keyword == "loop_":
            close()
            names, values, in_loop = [], [], not starts_block
            if starts_block:
                blocks.append(Block(text[5:]))
        elif keyword.startswith("_"):
            if not in_loop or values:
                close()
                names, values, in_loop = [], [], False
            names.append(text)
        elif not names or (values and not in_loop):
            raise ReadError(path, f"the value {text[:40]!r} follows no name; the file is damaged")
        else:
            values.append(text)
    close()
    return blocks


def _words(path: Path) -> Iterator[Word]:
    """Each word, and whether it stands without quotes."""
    field_lines: list[str] | None = None
    for line in read_lines(path):
        rest = line
        if line.startswith(";"):
            if field_lines is None:
                field_lines = [line[1:]]
                continue
            yield "\n".join(field_lines), False
            field_lines, rest = None, line[1:]
        if field_lines is not None:
            field_lines.append(line)
            continue
        for word in WORD.finditer(rest):
            kind = word.lastgroup
            if kind == "open":
                raise ReadError(path, f"a quotation does not end in the line {line.strip()[:60]!r}")
            if kind != "comment":
                yield word[str(kind)], kind == "bare"
    if field_lines is not None:
        raise ReadError(path, "a text between semicolons does not end; the file is cut off")
