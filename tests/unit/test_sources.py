"""How runs are divided into shards."""

import os
from pathlib import Path

import pytest

from deeph_tracegrad.preprocess.runs import Run
from deeph_tracegrad.preprocess.sources import Source, divided, shard_name, sources_of


def sources(count: int, size: int) -> list[Source]:
    return [Source(Run(Path(f"run{n}"), "openmx", f"run{n}"), f"/run{n}", n, size) for n in range(count)]


@pytest.mark.parametrize(
    ("count", "size", "workers", "longest"),
    [
        (0, 1, 2, 0),
        (3, 1, 8, 1),  # every worker gets some
        (320, 1, 4, 20),
        (100_000, 250_000, 2, 1024),
        (10_000, 4 << 20, 2, 64),  # 256 MiB
        (10_000, 1 << 30, 2, 32),
    ],
)
def test_shards_of_runs(count: int, size: int, workers: int, longest: int) -> None:
    every = sources(count, size)
    tasks = divided(every, workers)
    assert [source for task in tasks for source in task] == every
    assert max(map(len, tasks), default=0) == longest


def test_the_name_tells_runs_and_times() -> None:
    every = sources(4, 1)
    names = {shard_name(part) for part in (every, every[:3], every[::-1], [*every[:3], sources(5, 1)[4]])}
    assert len(names) == 4
    assert shard_name(every) == shard_name(sources(4, 2))


def test_the_state_of_a_folder(tmp_path: Path) -> None:
    deep = tmp_path / "run" / "OUT.si"
    deep.mkdir(parents=True)
    for name, size, seconds in (("one", 10, 5), ("two", 7, 3)):
        (deep / name).write_bytes(bytes(size))
        os.utime(deep / name, (seconds, seconds))
    runs = [Run(tmp_path / "run" / f"step_{step}", "abacus", f"step_{step}", step) for step in range(2)]
    found = sources_of([*runs, Run(deep / "two", "openmx", "two")])
    assert [(source.modified, source.size) for source in found] == [(5 * 10**9, 17)] * 2 + [(3 * 10**9, 7)]
    assert found[0].path == str(tmp_path / "run" / "step_0")
