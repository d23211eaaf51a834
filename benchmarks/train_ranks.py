"""Training steps on one rank and on several, with the same batches: where the time goes and what more ranks gain.

    OMP_NUM_THREADS=1 python benchmarks/train_ranks.py [--ranks N] [--tracegrad off|compact|paper] [--samples N]
                                                       [--rounds N]

Starts itself under mpirun, one thread a rank. The sides take turns, an epoch of four steps each; the times are medians
over the rounds, of one step, in the mean over the ranks:

    1 rank    the whole batch, while the other ranks sleep
    N ranks   shares of it, as `deeph-tracegrad train` does under mpirun
    buckets   the same, with gradients sent during the backward pass, as between machines
    no sums   the same without a message: what the machine lets several processes do at once

The efficiency is the time on one rank over N times that on N ranks. `of CPU` is the processor time on one rank over
that of all N: other programs on the machine have less influence on it, and it leaves out waiting. The parts of a step:
waiting for the next batch; forward pass and errors; summing the errors, which waits for the slower rank; backward pass;
sending gradients, as far as that is not done by then; gradient norm, optimiser and running average. Then the time of
single all-reduces.

Graphene of 18 displaced atoms and about 845 edges, from the test fixtures; the network is the default one.
"""

import argparse
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _fixtures import read_fixture
from _ranks import on_ranks
from pymatgen.core import Structure

from deeph_tracegrad.config import Config, parse_config
from deeph_tracegrad.console import say
from deeph_tracegrad.dataset import GraphDataset
from deeph_tracegrad.deeph_format import write_deeph
from deeph_tracegrad.nn.network import HamiltonianNetwork
from deeph_tracegrad.parallel import world
from deeph_tracegrad.preprocess.build import build_dataset
from deeph_tracegrad.testing import repeated
from deeph_tracegrad.training import loop
from deeph_tracegrad.training.batches import GraphLoader
from deeph_tracegrad.training.distributed import Ranks, joined_ranks
from deeph_tracegrad.training.gradients import GradientSum
from deeph_tracegrad.training.interruption import Interruption
from deeph_tracegrad.training.run_folder import RunFolder
from deeph_tracegrad.training.state import WeightAverage

CELLS = (3, 3, 1)
DISPLACEMENT = 0.05  # Å
STEPS = 4
PARTS = ("data", "forward", "waiting", "backward", "sending", "update")
MESSAGES = [40, 2**16, 2**20, 2**22, 2**24, 2**26]  # bytes
REPEATS = 20
BUCKET_BYTES = 2**20


class Clock:
    """Seconds spent in the parts of steps since the last `reset`."""

    def __init__(self) -> None:
        self.reset()
        self._watch(GraphLoader, "batches", "data", iterated=True)
        self._watch(HamiltonianNetwork, "forward", "forward")
        self._watch(loop, "error_sums", "forward")
        self._watch(Ranks, "sum", "waiting")
        self._watch(torch.Tensor, "backward", "backward")
        self._watch(GradientSum, "finish", "sending")
        self._watch(loop, "clip_grad_norm_", "update")
        self._watch(torch.optim.AdamW, "step", "update")
        self._watch(WeightAverage, "update", "update")

    def reset(self) -> None:
        """Begin to count."""
        self._start, self._processor = time.perf_counter(), time.process_time()
        self._seconds: Counter[str] = Counter()

    def read(self) -> dict[str, float]:
        """Each part, all of the time, and the processor's."""
        whole = {"step": time.perf_counter() - self._start, "CPU": time.process_time() - self._processor}
        return dict.fromkeys(PARTS, 0.0) | self._seconds | whole

    def _watch(self, owner: Any, name: str, part: str, *, iterated: bool = False) -> None:
        function = getattr(owner, name)

        def watched(*arguments: Any, **keywords: Any) -> Any:
            start = time.perf_counter()
            result = function(*arguments, **keywords)
            self._seconds[part] += time.perf_counter() - start
            return self._items(result, part) if iterated else result

        setattr(owner, name, watched)

    def _items(self, items: Iterator[Any], part: str) -> Iterator[Any]:
        while True:
            start = time.perf_counter()
            try:
                item = next(items)
            except StopIteration:
                return
            self._seconds[part] += time.perf_counter() - start
            yield item


class Alone(Interruption):
    """Never asked to stop, and asks nobody."""

    def on_any_rank(self) -> bool:
        """False."""
        return False


class Sent:
    """A message that needed no time."""

    def wait(self) -> None:
        """Return at once."""


class Silent(Ranks):
    """Ranks that divide the work, and tell each other nothing of it."""

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """This rank's."""
        return values

    def begin_sum(self, values: torch.Tensor) -> Any:  # noqa: ARG002
        """Nothing to wait for."""
        return Sent()

    def of_main(self, values: torch.Tensor) -> torch.Tensor:
        """This rank's."""
        return values


def main() -> None:
    arguments = parse()
    if arguments.folder:
        work(arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        make_dataset(Path(folder), STEPS * arguments.samples)
        on_ranks(arguments.ranks, "--folder", folder)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--tracegrad", choices=["off", "compact", "paper"], default="off")
    parser.add_argument("--samples", type=int, default=4, help="in a batch")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)  # for the ranks
    return parser.parse_args()


def make_dataset(folder: Path, samples: int) -> None:
    """Copies of a cell, each displaced in its own way. H stays that of the perfect crystal: any labels do here."""
    material = repeated(read_fixture("graphene"), CELLS)
    structure = material.structure
    for number in range(samples):
        moves = np.random.default_rng(number).normal(scale=DISPLACEMENT, size=(len(structure), 3))
        coordinates = structure.cart_coords + moves
        moved = Structure(structure.lattice, structure.species, coordinates, coords_are_cartesian=True)
        write_deeph(replace(material, structure=moved), folder / "runs" / str(number))
    build_dataset([str(folder / "runs")], folder / "dataset", workers=1)


def configuration(arguments: argparse.Namespace, run: str) -> Config:
    dataset = arguments.folder / "dataset"
    largest = int(GraphDataset(dataset).edge_counts.max())  # they differ by a few edges
    data = {"train": 1.0, "validation": 0.0, "test": 0.0, "max_edges": largest * arguments.samples}
    preset = {"enabled": False} if arguments.tracegrad == "off" else {"preset": arguments.tracegrad}
    content = {
        "data": {"dataset": str(dataset), **data},
        "model": {"tracegrad": preset},
        "training": {"run": str(arguments.folder / run), "device": "cpu", "threads": 1},
    }
    return parse_config(content, __file__)


def work(arguments: argparse.Namespace) -> None:
    """What each rank does."""
    with joined_ranks(configuration(arguments, "none")) as ranks:
        kinds = {
            "1 rank": (Ranks(0, 1, ranks.device), Alone()),
            f"{ranks.size} ranks": (ranks, Interruption()),
            "buckets": (ranks, Interruption()),
            "no sums": (Silent(ranks.rank, ranks.size, ranks.device), Alone()),
        }
        sides = {
            name: loop.Training(
                configuration(arguments, name), kind, request, RunFolder(arguments.folder / name), resume=False
            )
            for name, (kind, request) in kinds.items()
        }
        sides["buckets"].gradients.bucket_bytes = BUCKET_BYTES
        clock = Clock()
        times: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
        for _ in range(arguments.rounds + 1):
            for name, side in sides.items():
                torch.distributed.barrier()
                if side.ranks.size > 1 or world().is_main:
                    clock.reset()
                    side.train_epoch()
                    times[name].append(clock.read())
        report(times, sides)
        message_times(ranks, sum(parameter.nbytes for parameter in sides["1 rank"].parameters))


def report(times: dict[str, list[dict[str, float]]], sides: dict[str, loop.Training]) -> None:
    """The table of steps, from the main rank."""
    first = next(iter(sides.values()))
    edges = int(first.edge_counts.sum()) // STEPS
    weights = sum(parameter.numel() for parameter in first.parameters)
    say(f"{edges} edges a batch, {weights} weights in {first.settings.dtype}; ms of a step")
    say(
        f"{'':10}{'step':>8}{'edges/s':>9}{'efficiency':>12}{'of CPU':>8}"
        + "".join(f"{part:>10}" for part in (*PARTS, "CPU"))
    )
    alone, processor = world().broadcast([median(times["1 rank"], part) for part in ("step", "CPU")])
    for name, rows in times.items():
        by_rank = [rows for rows in world().gather(rows) if rows]
        mean = {part: statistics.fmean(median(rows, part) for rows in by_rank) for part in by_rank[0][0]}
        share, mean["CPU"] = alone / mean["step"] / len(by_rank), mean["CPU"] * len(by_rank)
        say(
            f"{name:10}{1e3 * mean['step']:8.1f}{edges / mean['step']:9.0f}{share:12.3f}{processor / mean['CPU']:8.3f}"
            + "".join(f"{1e3 * mean[part]:10.2f}" for part in (*PARTS, "CPU"))
        )


def median(rows: list[dict[str, float]], part: str) -> float:
    """Seconds of one step; the first epoch does not count."""
    return statistics.median([row[part] for row in rows[1:]] or [0.0]) / STEPS


def message_times(ranks: Ranks, gradients: int) -> None:
    """The table of all-reduces."""
    say(f"\n{'all-reduce of':>14}{'ms':>10}{'MB/s':>10}")
    for size in sorted([*MESSAGES, gradients]):
        values = torch.zeros(size // 4)
        taken = median_of(lambda values=values: ranks.sum(values))
        say(f"{size:14}{1e3 * taken:10.3f}{size / taken / 1e6:10.0f}{'  all gradients' if size == gradients else ''}")
    say(f"asking all ranks whether to stop: {1e3 * median_of(Interruption().on_any_rank):.3f} ms")


def median_of(message: Callable[[], object]) -> float:
    """Seconds, from a barrier on."""
    taken = []
    for _ in range(REPEATS):
        torch.distributed.barrier()
        start = time.perf_counter()
        message()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[1:])


if __name__ == "__main__":
    main()
