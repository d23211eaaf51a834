"""Progress bars."""

import io
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest
from rich.console import Console

from deeph_tracegrad import console
from deeph_tracegrad.errors import SolverError
from deeph_tracegrad.inference import bands


class Terminal(Console):
    """A console that takes itself for a terminal, with a clock of its own."""

    def __init__(self, file: IO[str]) -> None:
        self.now = 0.0
        super().__init__(file=file, force_terminal=True, width=100, get_time=lambda: self.now)


def test_items_of_minutes_have_a_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    terminal = Terminal(written)
    monkeypatch.setattr(console, "errors", terminal)
    for number in console.progress(range(4), 4, "bands"):
        terminal.now += 100.0
        end = time.monotonic() + 30
        while number and f"{number}/4" not in written.getvalue():  # told by a thread
            assert time.monotonic() < end
            time.sleep(0.02)
    assert "left 0:05:00" in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.getvalue())  # after one item


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [(SolverError("no solution"), 2, "no solution"), (KeyboardInterrupt(), 130, "interrupted")],
)
def test_the_reason_of_an_end_outlives_the_bar(
    unpacked: Callable[[str], Path],
    command: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    reason: str,
) -> None:
    def failing(*_: object) -> None:
        raise error

    monkeypatch.setattr(console, "errors", Terminal(sys.stderr))
    monkeypatch.setattr(bands, "choose_solver", lambda *_: failing)
    assert command("bands", unpacked("openmx/graphene"), "--fermi", -4, "-o", tmp_path / "x") == code
    told = capfd.readouterr().err
    assert 0 < told.rindex("\x1b[2K") < told.rindex(reason)  # no line is erased after it
