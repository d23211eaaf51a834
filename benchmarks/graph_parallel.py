"""Memory and time of a training step on one large structure, by one rank and by groups of ranks that share it.

    OMP_NUM_THREADS=1 python benchmarks/graph_parallel.py [--twist M N] [--groups G ...] [--tracegrad off|compact|paper]
                                                          [--recompute] [--rounds N]

Starts itself under mpirun once for each size of group, one thread a rank. The default network in float32; a step is
that of `deeph-tracegrad train`: forward, loss, backward, sums over the ranks, optimiser, running average.

    memory  the peak that a rank has resident (Linux) above what it had before the step: weights, optimiser and graph do
            not count. The largest of the ranks; glibc keeps no large freed arrays here.
    graph   the tensors that a rank keeps of its part, on the rank with most
    step    median seconds of a step; CPU, the processor time of all ranks together

Twisted bilayer graphene, C6.0-s2p2d1; (2, 3) has 76 atoms.
"""

import argparse
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

from _bilayer import twisted_graphene
from _machine import MIB, peak_memory
from _ranks import on_ranks
from memory_per_edge import UNPOOLED, size_of

from deeph_tracegrad.config import Config, parse_config
from deeph_tracegrad.console import say
from deeph_tracegrad.deeph_format import write_deeph
from deeph_tracegrad.parallel import world
from deeph_tracegrad.preprocess.build import build_dataset
from deeph_tracegrad.training.distributed import joined_ranks
from deeph_tracegrad.training.interruption import Interruption
from deeph_tracegrad.training.loop import Training
from deeph_tracegrad.training.run_folder import RunFolder

HEADER = f"{'ranks':>5}{'edges a rank':>14}{'memory, MiB':>13}{'graph, MiB':>12}{'step, s':>10}{'CPU, s':>10}"


def main() -> None:
    arguments = parse()
    if arguments.folder:
        work(arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        material = twisted_graphene(*arguments.twist)
        write_deeph(material, Path(folder) / "runs" / "bilayer")
        build_dataset([f"{folder}/runs"], Path(folder) / "dataset", workers=1)
        print(HEADER, flush=True)
        for group in arguments.groups:
            on_ranks(group, "--folder", folder, "--group", str(group), **UNPOOLED)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--twist", type=int, nargs=2, metavar=("M", "N"), default=[2, 3])
    parser.add_argument("--groups", type=int, nargs="+", metavar="G", default=[1, 2], help="ranks that share it")
    parser.add_argument("--tracegrad", choices=["off", "compact", "paper"], default="compact")
    parser.add_argument("--recompute", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)  # for the ranks
    parser.add_argument("--group", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def configuration(arguments: argparse.Namespace) -> Config:
    preset = {"enabled": False} if arguments.tracegrad == "off" else {"preset": arguments.tracegrad}
    run = {"run": str(arguments.folder / str(arguments.group)), "device": "cpu", "threads": 1}
    content = {
        "data": {"dataset": str(arguments.folder / "dataset"), "train": 1.0, "validation": 0.0, "test": 0.0},
        "model": {"tracegrad": preset},
        "training": {**run, "recompute": arguments.recompute},
        "parallel": {"graph": arguments.group},
    }
    return parse_config(content, __file__)


def work(arguments: argparse.Namespace) -> None:
    """What each rank does: a row of the table, from the main rank."""
    config = configuration(arguments)
    with joined_ranks(config) as ranks:
        training = Training(config, ranks, Interruption(), RunFolder(config.training.run), resume=False)
        (graph,) = training.loader.batches([[0]])
        step = partial(training.step, graph)
        step()
        memory = peak_memory(step, ranks.device)
        times = [timed(step) for _ in range(arguments.rounds)]
        medians = map(statistics.median, zip(*times, strict=True))
        rows = world().gather((graph.num_edges, memory, size_of(graph) / MIB, *medians))
    edges, peaks, sizes, seconds, processor = zip(*rows, strict=True)
    say(
        f"{len(rows):5}{'-'.join(map(str, sorted({min(edges), max(edges)}))):>14}{max(peaks):13.0f}{max(sizes):12.1f}"
        f"{max(seconds):10.2f}{sum(processor):10.2f}"
    )


def timed(step: partial[None]) -> tuple[float, float]:
    """Seconds, of the clock and of this rank's processor."""
    world().barrier()
    start, processor = time.perf_counter(), time.process_time()
    step()
    return time.perf_counter() - start, time.process_time() - processor


if __name__ == "__main__":
    main()
