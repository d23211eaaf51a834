"""How much memory an edge takes: in prediction, in training, and in training that computes each block again.

    python benchmarks/memory_per_edge.py [--cells SMALL LARGE] [--threads COUNT]

Supercells of the graphene fixture with SMALL x SMALL and LARGE x LARGE cells of 92 edges, the default network in
float32, with TraceGrad's compact form and without TraceGrad. Prediction goes as far as the blocks of H. A training step
is forward, loss, backward, clipping, optimiser, and the running average of the weights.

Memory is the peak that the process has resident (Linux) above what it had before, after the same on one cell; each kind
of work has a process of its own, in which glibc keeps no large freed arrays. What an edge takes is the slope between
the two supercells: weights and the library itself do not count, nor does the graph, whose tensors are given apart.
Times are medians on the small supercell, the kinds of work taken in turns.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from _machine import median_seconds, peak_memory
from _train_sides import CASES, Task
from torch import Tensor
from tracegrad_presets import PRESETS, new_state, training_step

from deeph_tracegrad.graph import HamiltonianGraph
from deeph_tracegrad.training.state import TrainingState

WORKS = ("prediction", "training", "recompute")
TRACEGRAD = ("off", "compact")
CELLS = [4, 11]
ROUNDS = 3
# glibc: large arrays go back to the system when freed; else the peak depends on how they happened to lie
UNPOOLED = {"MALLOC_MMAP_THRESHOLD_": str(2**20)}
CPU = torch.device("cpu")
HEADER = (
    f"{'':<24}{'peak, MiB':^20}{'KiB an':>10}{'edges in':>10}{'ms for':>12}{'time of':>10}\n"
    f"{'TraceGrad, work':<24}{'small':>10}{'large':>10}{'edge':>10}{'16 GiB':>10}{'1000 edges':>12}{'training':>10}"
)


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    if arguments.memory:
        print(*peaks(*arguments.memory, arguments.cells))
        return
    graphs = [graphene(cells).graph for cells in arguments.cells]
    small, large = (graph.num_edges for graph in graphs)
    print(
        f"supercells of {small} and {large} edges; the graph takes {size_of(graphs[1]) / large / 1024:.1f} KiB an edge"
    )
    print(HEADER)
    for preset in TRACEGRAD:
        seconds = times(preset, arguments.cells[0])
        for work in WORKS:
            before, after = peaks_of_process(preset, work, arguments)
            slope = (after - before) / (large - small)  # MiB
            print(
                f"{f'{preset}, {work}':<24}{before:10.0f}{after:10.0f}{1024 * slope:10.1f}{16 * 1024 / slope:10.0f}"
                f"{1e6 * seconds[work] / small:12.0f}{seconds[work] / seconds['training']:9.2f}x"
            )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, nargs=2, metavar=("SMALL", "LARGE"), default=CELLS)
    parser.add_argument("--threads", type=int, metavar="COUNT", default=1)
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)  # for the process of one kind of work
    return parser.parse_args()


def graphene(cells: int) -> Task:
    """A square supercell."""
    return Task(replace(CASES["graphene"], times=(cells, cells, 1)), torch.float32, CPU)


def learner(preset: str, work: str) -> Callable[[HamiltonianGraph], object]:
    """What is done with a graph: one prediction, or one training step."""
    state = new_state(preset, graphene(1).material)
    if work == "prediction":
        return lambda graph: predict(state, graph)
    state.network.recompute = work == "recompute"
    return lambda graph: training_step(state, graph, PRESETS[preset].form.loss_weight)


@torch.inference_mode()
def predict(state: TrainingState, graph: HamiltonianGraph) -> None:
    """As far as the blocks of H."""
    network = state.predictor
    network.layout.blocks(network(graph).coefficients, graph)


def times(preset: str, cells: int) -> dict[str, float]:
    """Seconds of each kind of work."""
    graph = graphene(cells).graph
    works = {work: partial(learner(preset, work), graph) for work in WORKS}
    return median_seconds(works, ROUNDS, CPU)


def peaks(preset: str, work: str, sizes: Sequence[int]) -> list[float]:
    """MiB for each supercell, the smallest first."""
    do = learner(preset, work)
    graphs = [graphene(cells).graph for cells in (1, *sizes)]
    for _ in range(2):
        do(graphs[0])
    return [peak_memory(partial(do, graph), CPU) for graph in graphs[1:]]


def peaks_of_process(preset: str, work: str, arguments: argparse.Namespace) -> list[float]:
    """The same in a fresh process."""
    options = ["--memory", preset, work, "--threads", arguments.threads, "--cells", *arguments.cells]
    command = [sys.executable, __file__, *map(str, options)]
    run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **UNPOOLED})
    return [float(number) for number in run.stdout.split()]


def size_of(graph: HamiltonianGraph) -> int:
    """Bytes of its tensors."""
    return sum(value.nbytes for _, value in graph if isinstance(value, Tensor))


if __name__ == "__main__":
    main()
