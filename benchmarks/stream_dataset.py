"""A dataset of many small graphs: how fast it opens and streams in random order, and what a training takes of it.

    python benchmarks/stream_dataset.py [--graphs COUNT] [--shard COUNT]

The graphs are those of the real runs demo/runs/a_* (2 atoms) and b_* (8 atoms), three of the first for one of the
second, repeated under other labels. A shard has 1024 samples, as `preprocess` makes them of small runs, or --shard. The
files, 4 GB for 100,000 graphs, are written to a temporary folder and then removed.

Everything is measured in a fresh process, in processor time of all its threads, as if it had one core; only opening
(`GraphDataset`) is given as it lasts, the best of three. Memory is the peak above that before. Samples: as stored, in
the order of the dataset and shuffled. Graphs: with targets. Batches: of 4000 edges by `GraphLoader`, as a training
reads them with `data.memory_limit = 0`, for one whole epoch. Files: open at the end of it. Step: the default network on
such batches kept in memory, and the same while they are streamed.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from _machine import peak_memory
from tracegrad_presets import training_step

from deeph_tracegrad.config import Config
from deeph_tracegrad.dataset import GraphDataset, IndexEntry, index_content, write_index
from deeph_tracegrad.graph import HamiltonianGraph
from deeph_tracegrad.preprocess.build import build_dataset
from deeph_tracegrad.shards import write_shard
from deeph_tracegrad.training.batches import GraphLoader, pack, shuffled
from deeph_tracegrad.training.state import TrainingState

RUNS = Path(__file__).parents[1] / "demo" / "runs"
GRAPHS = 100_000
SHARD = 1024
TIMED_SAMPLES = 10_000
STEPS, ROUNDS = 6, 3
CPU = torch.device("cpu")
HEADER = (
    f"{'':<8}{'open':^14}{'samples/s':^18}{'graphs/s':>9}{'batches, one epoch':^34}{'step, edges/s':^20}{'read /':>8}\n"
    f"{'shards':<8}{'s':>7}{'MiB':>7}{'in order':>10}{'mixed':>8}{'mixed':>9}"
    f"{'graphs/s':>10}{'edges/s':>9}{'MiB':>7}{'files':>8}{'kept':>10}{'streamed':>10}{'kept':>8}"
)


def main() -> None:
    arguments = parse()
    if arguments.measure:
        print(measured(arguments.measure))
        return
    with tempfile.TemporaryDirectory() as folder:
        dataset = Path(folder) / "dataset"
        edges = make(dataset, arguments.graphs, arguments.shard)
        print(f"{arguments.graphs} graphs of {edges} edges\n{HEADER}", flush=True)
        subprocess.run([sys.executable, __file__, "--measure", str(dataset)], check=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", type=int, metavar="COUNT", default=GRAPHS)
    parser.add_argument("--shard", type=int, metavar="COUNT", default=SHARD, help="samples in a shard")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)  # for the process that measures
    return parser.parse_args()


def make(folder: Path, graphs: int, size: int) -> int:
    """Write the dataset; returns its edges."""
    with tempfile.TemporaryDirectory() as real:
        build_dataset([str(RUNS / "a_*"), str(RUNS / "b_*")], Path(real) / "dataset", workers=1)
        dataset = GraphDataset(Path(real) / "dataset")
        small, large = ([dataset.sample(n) for n in range(len(dataset)) if dataset.atom_counts[n] == a] for a in (2, 8))
    rng = np.random.default_rng(0)
    samples = [(large if n % 4 == 0 else small)[rng.integers(len(small))] for n in rng.permutation(size)]
    names = [f"{number:016x}.h5" for number in range(-(-graphs // size))]
    with write_shard(folder / "shards" / names[0], dataset.spin) as writer:
        for sample in samples:
            writer.append(sample)
    for name in names[1:]:
        shutil.copyfile(folder / "shards" / names[0], folder / "shards" / name)
    entries = [
        IndexEntry(
            label=f"molecular_dynamics/run_{graph:06}",
            shard=names[graph // size],
            place=graph % size,
            atoms=len(samples[graph % size].positions),
            edges=len(samples[graph % size].pairs),
            digest=f"{graph:032x}",
            source=f"/scratch/project/runs/molecular_dynamics/run_{graph:06}",
            modified=1_700_000_000_000_000_000 + graph,
        )
        for graph in range(graphs)
    ]
    write_index(folder, index_content(dataset.basis, dataset.spin, dataset.reach, entries))
    return sum(entry.edges for entry in entries)


def measured(folder: Path) -> str:
    """One row of the table."""
    torch.set_num_threads(1)
    opened: list[GraphDataset] = []
    open_peak = peak_memory(lambda: opened.append(GraphDataset(folder)), CPU)
    opened.clear()
    open_seconds = min(seconds(lambda: GraphDataset(folder), time.perf_counter) for _ in range(3))
    streamed: list[float] = []
    peak = peak_memory(lambda: streamed.append(epoch(opened, folder)), CPU)
    (dataset,) = opened
    files = sum(".h5" in os.path.realpath(link) for link in Path("/proc/self/fd").iterdir())
    mixed = shuffled(range(len(dataset)), 0, 1)[:TIMED_SAMPLES]
    in_order, at_random = (each(dataset.sample, places) for places in (range(len(mixed)), mixed))
    graphs = each(dataset.__getitem__, mixed)
    edges = float(dataset.edge_counts.sum())
    kept_rate, streamed_rate = step_rates(dataset)
    return (
        f"{len(list(folder.glob('shards/*'))):<8}{open_seconds:7.2f}{open_peak:7.0f}"
        f"{in_order:10.0f}{at_random:8.0f}{graphs:9.0f}"
        f"{len(dataset) / streamed[0]:10.0f}{edges / streamed[0]:9.0f}{peak:7.0f}{files:8}"
        f"{kept_rate:10.0f}{streamed_rate:10.0f}{edges / streamed[0] / kept_rate:7.1f}x"
    )


def epoch(opened: list[GraphDataset], folder: Path) -> float:
    """Open the dataset and read all of it once; seconds of the reading."""
    opened.append(GraphDataset(folder))
    return seconds(lambda: [None for _ in batches(opened[0], epoch=0)])


def batches(dataset: GraphDataset, epoch: int) -> Iterable[HamiltonianGraph | None]:
    """The batches of an epoch, read as they are asked for."""
    config = Config()
    dtype = getattr(torch, config.training.dtype)
    loader = GraphLoader(dataset, CPU, dtype, config.model.tracegrad, memory_limit=0.0)
    order = shuffled(range(len(dataset)), config.training.seed, epoch)
    return loader.batches(pack(order, dataset.edge_counts, config.data.max_edges))


def step_rates(dataset: GraphDataset) -> tuple[float, float]:
    """Edges/s of training steps on batches kept in memory, and on streamed ones; the best of some rounds in turns."""
    config = Config()
    state = TrainingState(config, dataset.basis, dataset.spin, CPU)
    kept = list(islice(batches(dataset, epoch=2), STEPS))
    rates: tuple[list[float], list[float]] = ([], [])
    for number in range(ROUNDS + 1):
        for source, found in zip((kept, islice(batches(dataset, number), STEPS)), rates, strict=True):
            start, edges = time.process_time(), 0
            for graph in source:
                training_step(state, graph, config.model.tracegrad.form.loss_weight)
                edges += graph.num_edges
            found.append(edges / (time.process_time() - start))
    return max(rates[0][1:]), max(rates[1][1:])


def each(read: Callable[[int], object], places: Iterable[int]) -> float:
    """Samples a second."""
    places = list(places)
    return len(places) / seconds(lambda: [read(place) and None for place in places])


def seconds(work: Callable[[], object], clock: Callable[[], float] = time.process_time) -> float:
    start = clock()
    work()
    return clock() - start


if __name__ == "__main__":
    main()
