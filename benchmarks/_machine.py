"""What the machine does at best, how long something takes, and how much memory: on the CPU or a CUDA device.

Shape letters: R rows, K inner, C columns of a matrix product.
"""

import ctypes
import gc
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

COPY_BYTES = {"cpu": 2**26, "cuda": 2**30}
REPEATS = 20
MIB = 2**20


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """How long one call takes."""
    if device.type == "cpu":
        start = time.perf_counter()
        work()
        return time.perf_counter() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    work()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3


def median_seconds(works: dict[str, Callable[[], object]], rounds: int, device: torch.device) -> dict[str, float]:
    """The median of each, measured in turns after one round that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds + 1):
        for name, work in works.items():
            times[name].append(seconds(work, device))
    return {name: statistics.median(taken[1:]) for name, taken in times.items()}


def product_rate(shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device) -> float:
    """FLOP/s of a matrix product (R, K) x (K, C)."""
    rows, inner, columns = shape
    left = torch.randn(rows, inner, dtype=dtype, device=device)
    right = torch.randn(inner, columns, dtype=dtype, device=device)
    result = torch.empty(rows, columns, dtype=dtype, device=device)
    taken = median_seconds({"mm": lambda: torch.mm(left, right, out=result)}, REPEATS, device)
    return 2 * rows * inner * columns / taken["mm"]


def copy_rate(device: torch.device) -> float:
    """Bytes/s, read and written, of a copy far larger than the caches."""
    source = torch.ones(COPY_BYTES[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * len(source) / median_seconds({"copy": lambda: target.copy_(source)}, REPEATS, device)["copy"]


def peak_memory(work: Callable[[], object], device: torch.device) -> float:
    """MiB that the call takes at its peak, above what is in use before: resident on the CPU (Linux), else allocated."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return (torch.cuda.max_memory_allocated(device) - before) / MIB
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what malloc kept of earlier calls is not in use
    Path("/proc/self/clear_refs").write_text("5")  # starts the peak anew
    before = _resident("VmRSS")
    work()
    return (_resident("VmHWM") - before) / MIB


def _resident(key: str) -> int:
    """Bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))
