"""What the number of species costs: a training step with 1, 2, 10 and 60, and e3nn's one-hot self-connection.

    python benchmarks/many_elements.py [--species COUNT ...] [--cells COUNT] [--threads COUNT] [--profile]

The graphene fixture as a supercell of CELLS x CELLS cells (3 by default: 18 atoms, 828 edges) whose atoms are drawn at
random from the first so many elements, all with carbon's shells: same graph, same targets, other weights. The network
is that of the preset deeph-e3 in float32. The self-connection of edges has weights for each ordered pair of species, as
in DeepH-E3: what goes through the weights, the optimiser above all, grows with the square of the species, whatever the
edges. Activations are what a forward pass keeps for the backward pass. The gradients of pairs that no edge is of are
zeros that the system need not store until the optimiser, or the clipping of gradients, goes over them.

Then the self-connection of the edges of the trunk alone, forward and backward: ours by species index, and
e3nn's FullyConnectedTensorProduct with one-hot scalars, as the official program has it.

Times are medians. Memory is the peak that the process has resident (Linux) above what it had before, after the same on
one cell; each number of species and each kind of self-connection has a process of its own. --profile: where the step
with the most species spends its time.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch
from _machine import MIB, median_seconds, peak_memory
from _train_sides import CASES, Ours, Task
from e3nn import o3
from pymatgen.core import Element, Structure
from torch import Tensor, nn
from torch.nn.functional import one_hot
from torch.profiler import ProfilerActivity, profile

from deeph_tracegrad.material import Material
from deeph_tracegrad.nn.layout import Layout
from deeph_tracegrad.nn.linear import IrrepLinear
from deeph_tracegrad.orbitals import Basis

SPECIES = [1, 2, 10, 60]
CELLS = 3
ROUNDS = 3
PROFILED_ROWS = 15
CPU = torch.device("cpu")
STEP_HEADER = (
    f"{'':<9}{'pairs':>6}{'weights,':>10}{'ms':^36}{'activations,':>14}{'peak of a':>11}{'all':>11}\n"
    f"{'species':<9}{'met':>6}{'million':>10}{'forward':>10}{'+ backward':>12}{'optimiser':>14}"
    f"{'KiB an edge':>14}{'step, MiB':>11}{'gradients':>11}"
)
CONNECTION_HEADER = f"{'self-connection':<24}{'ms':>10}{'peak, MiB':>12}{'all gradients':>19}"


@dataclass(frozen=True)
class ManyElements(Task):
    """A task whose atoms are of so many species."""

    species: int = 1

    @cached_property
    def material(self) -> Material:
        """The supercell with other elements and carbon's blocks: any labels do to measure speed."""
        material = super().material
        elements = [Element.from_Z(number).symbol for number in range(1, self.species + 1)]
        structure = material.structure
        drawn = np.random.default_rng(0).choice(elements, len(structure))
        return replace(
            material,
            structure=Structure(structure.lattice, drawn, structure.frac_coords),
            basis=Basis.of(dict.fromkeys(elements, material.basis["C"])),
        )

    @cached_property
    def pairs(self) -> Tensor:
        """(E,) the ordered pair of species of each edge."""
        source, destination = self.graph.species[self.graph.edge_index]
        return source * self.species + destination


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    if arguments.alone:
        print(ALONE[arguments.alone](task(arguments.species[0], arguments.cells)))
        return
    print(f"{task(1, arguments.cells).graph.num_edges} edges", STEP_HEADER, sep="\n")
    for species in arguments.species:
        print(in_process("step", species, arguments))
    print(CONNECTION_HEADER)
    for name in CONNECTIONS:
        for species in arguments.species:
            print(f"{f'{name}, {species} species':<24}{in_process(name, species, arguments)}")
    if arguments.profile:
        print(profile_of(Ours(task(arguments.species[-1], arguments.cells)).step))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
    parser.add_argument("--species", nargs="+", type=int, metavar="COUNT", default=SPECIES)
    parser.add_argument("--cells", type=int, metavar="COUNT", default=CELLS)
    parser.add_argument("--threads", type=int, metavar="COUNT", default=1)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--alone", choices=ALONE, help=argparse.SUPPRESS)  # for the process of one line
    return parser.parse_args()


def task(species: int, cells: int) -> ManyElements:
    """What is learnt."""
    return ManyElements(replace(CASES["graphene"], times=(cells, cells, 1)), torch.float32, CPU, species)


def in_process(what: str, species: int, arguments: argparse.Namespace) -> str:
    """What a fresh process says."""
    options = {"alone": what, "species": species, "cells": arguments.cells, "threads": arguments.threads}
    command = [sys.executable, __file__, *(f"--{name}={value}" for name, value in options.items())]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.rstrip()


def step_line(task: ManyElements) -> str:
    """Times and memory of a training step."""
    learner = Ours(task.unit_cell)

    def forward_backward() -> None:
        learner.optimizer.zero_grad()
        learner.loss().backward()

    for _ in range(2):
        learner.step()
    learner.take(task)
    learner.optimizer.zero_grad()
    activations = peak_memory(learner.loss, CPU)
    peak = peak_memory(forward_backward, CPU)
    works = {"forward": learner.loss, "both": forward_backward, "optimiser": learner.optimizer.step}
    times = median_seconds(works, ROUNDS, CPU)
    weights = sum(parameter.numel() for parameter in learner.network.parameters())
    edges = task.graph.num_edges
    return (
        f"{task.species:<9}{len(task.pairs.unique()):6}{weights / 1e6:10.2f}"
        f"{1e3 * times['forward']:10.1f}{1e3 * times['both']:12.1f}{1e3 * times['optimiser']:14.1f}"
        f"{1024 * activations / edges:14.1f}{peak:11.0f}{4 * weights / MIB:11.0f}"
    )


def by_index(task: ManyElements) -> tuple[nn.Module, Callable[[ManyElements], tuple[object, ...]]]:
    """Our self-connection of the trunk's edges, and what it takes besides their features."""
    layout = Layout.parse(task.case.trunk)
    connection = IrrepLinear(layout, layout, bias=False, kinds=task.species**2)
    return connection, lambda task: (task.graph.arrangement.edges,)


def by_one_hot(task: ManyElements) -> tuple[nn.Module, Callable[[ManyElements], tuple[object, ...]]]:
    """The official program's."""
    trunk, kinds = o3.Irreps(task.case.trunk), task.species**2
    connection = o3.FullyConnectedTensorProduct(trunk, f"{kinds}x0e", trunk)
    return connection, lambda task: (one_hot(task.pairs, kinds).to(task.dtype),)


def connection_line(task: ManyElements, kind: str) -> str:
    """Time and memory of a self-connection, forward and backward."""
    connection, kinds_of = CONNECTIONS[kind](task)

    def work_on(task: ManyElements) -> Callable[[], None]:
        features = torch.randn(task.graph.num_edges, o3.Irreps(task.case.trunk).dim, requires_grad=True)
        kinds = kinds_of(task)

        def work() -> None:
            features.grad = None
            connection.zero_grad()
            connection(features, *kinds).sum().backward()

        return work

    for _ in range(2):
        work_on(task.unit_cell)()
    connection.zero_grad()
    work = work_on(task)
    peak = peak_memory(work, CPU)
    seconds = median_seconds({kind: work}, ROUNDS, CPU)[kind]
    gradients = 4 * sum(weight.numel() for weight in connection.parameters()) / MIB
    return f"{1e3 * seconds:10.1f}{peak:12.0f}{gradients:19.0f}"


def profile_of(step: Callable[[], object]) -> str:
    """The operations that take most of a step."""
    step()
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        step()
    return recorded.key_averages().table(sort_by="self_cpu_time_total", row_limit=PROFILED_ROWS)


CONNECTIONS = {"index": by_index, "one-hot": by_one_hot}
ALONE = {"step": step_line, **{kind: partial(connection_line, kind=kind) for kind in CONNECTIONS}}


if __name__ == "__main__":
    main()
