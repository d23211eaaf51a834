"""The commands in the documentation: what follows `$` in its ```console blocks."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ ((?:.*\\\n)*.*)$", re.MULTILINE)  # goes on after a backslash at the end of a line

DEEPH = {"POSCAR", "info.json", "overlap.h5"}


def commands(document: str) -> list[list[str]]:
    """The words of each command in a document."""
    text = (CHECKOUT / document).read_text(encoding="utf-8")
    found = [command for block in BLOCK.findall(text) for command in COMMAND.findall(block)]
    return [shlex.split(command.replace("\\\n", " ")) for command in found]


def run(words: Sequence[str], folder: Path) -> str:
    """What a command prints that does its work."""
    done = subprocess.run(
        words,
        cwd=folder,
        env={**os.environ, "PATH": PATH, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}{done.stderr}"
    return done.stdout
