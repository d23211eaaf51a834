"""DeepH-E3's network on e3nn, as the official program has it, against ours: one forward pass and one training step.

    python benchmarks/train_step.py [--quick] [--device cuda] [--profile] [--variants NAME ...]
                                    [--case NAME ...] [--dtype NAME ...] [--threads COUNT ...]

Both have the default irreps and the same weights, and the benchmark stops unless H and all gradients agree. A forward
pass ends with the coefficients of H, without gradients; a step is forward, loss, backward, optimiser: theirs the mean
squared error of H's elements after Wigner-Eckart and torch's Adam, ours what a training with the preset deeph-e3 does.
Cases: 18 atoms of graphene (828 edges) and of bismuth with spin-orbit coupling (450 edges), the OpenMX fixtures as
supercells with displaced atoms. Times are medians of calls in turns.

Memory is the peak of two training steps above what the process had before them: a process of its own for each side,
after two steps on the unit cell; resident on the CPU (Linux), allocated on a GPU. FLOP/s and bytes/s count what the
forward pass needs at least (`_work.py`), against a matrix product and a copy timed in the same run.

--quick: graphene in float32 with one thread, few repetitions. --profile: where our step's time goes. --variants: our
step in other ways, on a GPU all of them: float32, tf32 and bf16 (matrix products), compile (torch.compile), graph
(CUDA graphs; GPU only), or several joined by +. bf16 is torch's autocast around the network: its products of rotations
are in bfloat16 too. Asked for on a CPU, the benchmark leaves the compiled kernels aside, as on a GPU. On a GPU it also
says whether a step waits for the device.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import product
from typing import NamedTuple

import torch
from _agreement import TOLERANCE, agreement, share_weights
from _machine import copy_rate, median_seconds, peak_memory, product_rate
from _train_sides import CASES, SIDES, Ours, Task, Theirs
from _train_variants import MODIFIERS, ON_CPU, ON_CUDA, measure_variants
from _work import forward_work
from torch.profiler import ProfilerActivity, profile

from deeph_tracegrad.nn.kernels.library import SWITCH

DTYPES = {"float32": torch.float32, "float64": torch.float64}
ROUNDS, QUICK_ROUNDS = 9, 3
PROFILED_STEPS, PROFILED_ROWS = 5, 20


class Row(NamedTuple):
    """One line of the table. Times in s and memory in MiB, theirs and ours; rates in FLOP/s and bytes/s.

    best_flops, best_bytes: what a matrix product and a copy reach.
    """

    name: str
    edges: int
    forward: tuple[float, float]
    step: tuple[float, float]
    memory: tuple[float, float]
    flops: float
    best_flops: float
    bytes: float
    best_bytes: float

    def __str__(self) -> str:
        """As printed below `HEADER`."""
        (theirs, ours), memory = (self.edges / seconds for seconds in self.step), self.memory
        times = "".join(f"{1e3 * a:8.1f}{1e3 * b:8.1f}{a / b:6.1f}x" for a, b in (self.forward, self.step))
        return (
            f"{self.name:<20}{times}{theirs:8.0f}{ours:8.0f}"
            f"{memory[0]:8.0f}{memory[1]:7.0f}{memory[1] / memory[0]:6.2f}x"
            f"{self.flops / 1e9:9.1f}{self.flops / self.best_flops:5.0%}"
            f"{self.bytes / 1e9:7.2f}{self.bytes / self.best_bytes:5.0%}"
        )


HEADER = (
    f"{'':<20}{'forward, ms':^23}{'step, ms':^23}{'step, edges/s':^16}{'peak memory, MiB':^22}{'our forward':^26}\n"
    f"{'case, type, threads':<20}" + f"{'theirs':>8}{'ours':>8}{'':7}" * 2 + f"{'theirs':>8}{'ours':>8}"
    f"{'theirs':>8}{'ours':>7}{'':7}{'GFLOP/s':>9}{'mm':>5}{'GB/s':>7}{'copy':>5}"
)


def main() -> None:
    arguments = parse()
    device = torch.device(arguments.device)
    if arguments.variants:
        os.environ[SWITCH] = "0"
    if arguments.memory:
        torch.set_num_threads(1)
        print(step_memory(Task(CASES[arguments.case[0]], DTYPES[arguments.dtype[0]], device), arguments.memory))
        return
    rounds = QUICK_ROUNDS if arguments.quick else ROUNDS
    rows = []
    for case, dtype in product(arguments.case, arguments.dtype):
        task = Task(CASES[case], DTYPES[dtype], device)
        theirs, ours = sides(task)
        memory = [memory_of_process(case, dtype, side, arguments.device) for side in SIDES]
        for threads in arguments.threads:
            torch.set_num_threads(threads)
            rows.append(measure(f"{case} {dtype} {threads}", task, theirs, ours, memory, rounds))
        if arguments.profile:
            print(profile_of(ours.step, arguments.device))
        if arguments.variants and dtype == "float32":
            print(*measure_variants(arguments.variants, task, theirs, rounds), sep="\n")
    print(HEADER, *rows, sep="\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--variants", nargs="+", metavar="NAME")
    parser.add_argument("--case", nargs="+", choices=CASES)
    parser.add_argument("--dtype", nargs="+", choices=DTYPES)
    parser.add_argument("--threads", nargs="+", type=int, metavar="COUNT")
    parser.add_argument("--memory", choices=SIDES, help=argparse.SUPPRESS)  # for the process of one side
    arguments = parser.parse_args()
    on_cuda = arguments.device == "cuda"
    arguments.case = arguments.case or (["graphene"] if arguments.quick else list(CASES))
    arguments.dtype = arguments.dtype or (["float32"] if arguments.quick else list(DTYPES))
    arguments.threads = arguments.threads or ([1] if arguments.quick or on_cuda else [1, 2])
    arguments.variants = arguments.variants or (ON_CUDA if on_cuda else [])
    for modifier in {part for name in arguments.variants for part in name.split("+")}:
        if modifier not in (MODIFIERS if on_cuda else ON_CPU):
            parser.error(f"there is no variant {modifier!r} on {arguments.device}")
    return arguments


def sides(task: Task) -> tuple[Theirs, Ours]:
    """Both, with the same weights; ends the benchmark unless they compute the same."""
    theirs, ours = Theirs(task), Ours(task)
    share_weights(theirs, ours)
    found, tolerance = agreement(theirs, ours), TOLERANCE[task.dtype]
    print(f"{task.case.fixture} {task.dtype}: H agrees to {found.hamiltonian:.1e}, gradients to {found.gradients:.1e}")
    if not max(found) < tolerance:
        sys.exit(f"the two networks should agree to {tolerance:.0e}")
    return theirs, ours


def measure(name: str, task: Task, theirs: Theirs, ours: Ours, memory: Sequence[float], rounds: int) -> Row:
    """One line of the table."""
    prediction = torch.no_grad()
    works = {
        "theirs": prediction(theirs.forward),
        "ours": prediction(ours.forward),
        "their step": theirs.step,
        "our step": ours.step,
    }
    times = median_seconds(works, rounds, task.device)
    edges, inner = task.graph.num_edges, theirs.network.edge_update_blocks[1].conv.tp.tp
    shape = (edges, inner.irreps_in1.num_irreps, inner.irreps_out.num_irreps)
    work = forward_work(theirs.network, task.graph.num_nodes, edges)
    return Row(
        name,
        edges,
        (times["theirs"], times["ours"]),
        (times["their step"], times["our step"]),
        (memory[0], memory[1]),
        flops=work.operations / times["ours"],
        best_flops=product_rate(shape, task.dtype, task.device),
        bytes=work.numbers * task.dtype.itemsize / times["ours"],
        best_bytes=copy_rate(task.device),
    )


def step_memory(task: Task, side: str) -> float:
    """MiB at the peak of two steps."""
    learner = SIDES[side](task.unit_cell)
    for _ in range(2):
        learner.step()
    learner.take(task)
    return peak_memory(lambda: [learner.step() for _ in range(2)], task.device)


def memory_of_process(case: str, dtype: str, side: str, device: str) -> float:
    """The same in a fresh process."""
    options = ["--memory", side, "--case", case, "--dtype", dtype, "--device", device]
    run = subprocess.run([sys.executable, __file__, *options], check=True, stdout=subprocess.PIPE, text=True)
    return float(run.stdout)


def profile_of(step: Callable[[], object], device: str) -> str:
    """The operations that take most of the time."""
    step()
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA] if device == "cuda" else [ProfilerActivity.CPU]
    with profile(activities=activities) as recorded:
        for _ in range(PROFILED_STEPS):
            step()
    return recorded.key_averages().table(sort_by=f"self_{device}_time_total", row_limit=PROFILED_ROWS)


if __name__ == "__main__":
    main()
