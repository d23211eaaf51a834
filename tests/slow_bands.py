"""The command `bands` with every result kept and at a pace at which it can be interrupted; a program."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deeph_tracegrad import cli
from deeph_tracegrad.inference import bands, kept_results

SLOW_BANDS = Path(__file__)


def wait_for_results(folder: Path, number: int) -> None:
    """Until a folder holds so many kept results."""
    end = time.monotonic() + 100
    while len(list(folder.glob("results-*"))) < number:
        assert time.monotonic() < end
        time.sleep(0.02)


def _slowed(choose: Callable[..., Callable]) -> Callable[..., Callable]:
    def choose_slowed(*arguments: Any) -> Callable:
        solver = choose(*arguments)

        def solve(*matrices: Any) -> Any:
            time.sleep(0.2)
            return solver(*matrices)

        return solve

    return choose_slowed


if __name__ == "__main__":
    kept_results.KEEP_SECONDS = 0.0
    bands.choose_solver = _slowed(bands.choose_solver)
    cli.main()
