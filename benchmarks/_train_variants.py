"""Our training step in other ways: reduced precision in matrix products, compiled, as a CUDA graph."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from _agreement import share_weights
from _machine import copy_rate, median_seconds, product_rate
from _train_sides import Ours, Task, Theirs
from _work import STEP, forward_work
from torch import Tensor

MODIFIERS = ("float32", "tf32", "bf16", "compile", "graph")
ON_CPU = ("float32", "bf16", "compile")
ON_CUDA = [*MODIFIERS, "tf32+graph", "bf16+graph"]
LARGE = {"cpu": 1024, "cuda": 8192}
HEADER = (
    f"{'':<16}{'H differs':>10}{'forward, ms':>13}{'step, ms':>10}{'GFLOP/s':>10}{'of mm':>7}"
    f"{'GB/s':>8}{'of copy':>9}  waits for the device"
)


class Variant(NamedTuple):
    """Two timed calls, and how far H is from theirs, relative to the largest H."""

    forward: Callable[[], object]
    step: Callable[[], object]
    deviation: float


def measure_variants(names: Sequence[str], task: Task, theirs: Theirs, rounds: int) -> Iterator[str]:
    """The lines of a table; a variant that fails says why."""
    work = forward_work(theirs.network, task.graph.num_nodes, task.graph.num_edges)
    copying = copy_rate(task.device)
    with torch.no_grad():
        expected = theirs.elements()
    yield HEADER
    for name in names:
        torch.backends.cuda.matmul.allow_tf32 = "tf32" in name
        try:
            ours = make_variant(name, task, theirs, expected)
            waits = waiting(ours.step) if task.device.type == "cuda" else "-"
            times = median_seconds({"forward": ours.forward, "step": ours.step}, rounds, task.device)
        except RuntimeError as error:  # of torch.compile and of CUDA
            yield f"{name:<16}fails: {str(error).splitlines()[0]}"
            continue
        size = LARGE[task.device.type]
        best = product_rate((size, size, size), torch.bfloat16 if "bf16" in name else task.dtype, task.device)
        flops = STEP * work.operations / times["step"]
        moved = STEP * work.numbers * task.dtype.itemsize / times["step"]
        yield (
            f"{name:<16}{ours.deviation:10.1e}{1e3 * times['forward']:13.2f}{1e3 * times['step']:10.2f}"
            f"{flops / 1e9:10.1f}{flops / best:7.1%}{moved / 1e9:8.1f}{moved / copying:9.1%}  {waits}"
        )
    torch.backends.cuda.matmul.allow_tf32 = False


def make_variant(name: str, task: Task, theirs: Theirs, expected: Tensor) -> Variant:
    """Ours in another way, with their weights."""
    modifiers = name.split("+")
    ours = Ours(task)
    share_weights(theirs, ours)
    ours.autocast = "bf16" in modifiers
    if "compile" in modifiers:
        ours.network.compile()
    with torch.no_grad():
        deviation = (ours.elements() - expected).abs().max() / expected.abs().max()
    forward, step = torch.no_grad()(ours.forward), ours.step
    if "graph" in modifiers:
        for group in ours.optimizer.param_groups:
            group["capturable"] = True
        forward, step = captured(forward), captured(step)
    return Variant(forward, step, deviation.item())


def captured(work: Callable[[], object]) -> Callable[[], None]:
    """The same work as a CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):  # what is made once must not be captured
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def waiting(step: Callable[[], object]) -> str:
    """Whether the host waits for the device inside a step, or why."""
    step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    except RuntimeError as error:
        return f"yes: {str(error).splitlines()[0]}"
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return "no"
