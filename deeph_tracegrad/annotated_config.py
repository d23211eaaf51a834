"""Configurations as TOML files in which every key is preceded by its description."""

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deeph_tracegrad.config import PRESETS, Config, Section


def annotated_toml(config: Config) -> str:
    """The configuration as a TOML file in which every key is preceded by its description."""
    return "\n\n".join(_table(config, ())) + "\n"


def write_presets(folder: Path | str) -> None:
    """Write the files of `configs/`."""
    for name, config in PRESETS.items():
        (Path(folder) / f"{name}.toml").write_text(annotated_toml(config), encoding="utf-8")


def _table(section: Section, path: tuple[str, ...]) -> Iterator[str]:
    """The blocks of lines of one table and of those inside it."""
    if path:
        yield f"{_comment(type(section).__doc__ or '')}\n[{'.'.join(path)}]"
    fields = type(section).model_fields
    for name, value in section:
        if not isinstance(value, Section):
            assignment = f"# {name} =" if value is None else f"{name} = {_toml(value)}"
            yield f"{_comment(fields[name].description or '')}\n{assignment}"
    for name, value in section:
        if isinstance(value, Section):
            yield from _table(value, (*path, name))


def _comment(text: str) -> str:
    return "\n".join(textwrap.wrap(" ".join(text.split()), width=100, initial_indent="# ", subsequent_indent="# "))


def _toml(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str | Path):
        # JSON's escapes are TOML's, but for the one control character that JSON leaves as it is
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)
