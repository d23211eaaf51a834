"""How fast ABACUS runs are read, on one core.

For each matrix file: MB/s of `read_csr` (to numbers) and of a plain reader that goes line by line and calls `float`
for each number, on the same file in the same run, and their ratio. For each run: MB/s of `read_abacus`, everything
included.

    OMP_NUM_THREADS=1 python benchmarks/read_abacus.py [RUN ...]

Without arguments the runs in tests/data are taken.
"""

import lzma
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from deeph_tracegrad.preprocess.abacus.csr import read_csr
from deeph_tracegrad.preprocess.abacus.reader import read_abacus

FIXTURES = Path(__file__).parents[1] / "tests" / "data" / "abacus"
REPEATS = 9


def read_plainly(path: Path) -> list[tuple[list[complex], list[int], list[int]]]:
    """The numbers of a file of the older layout, one line at a time."""
    blocks = []
    with path.open() as file:
        lines = [next(file) for _ in range(3)]
        for _ in range(int(lines[2].split()[-1])):
            if int(next(file).split()[3]):
                values: list[complex] = []
                for word in next(file).split():
                    if word.startswith("("):
                        real, imaginary = word[1:-1].split(",")
                        values.append(complex(float(real), float(imaginary)))
                    else:
                        values.append(float(word))
                columns = [int(word) for word in next(file).split()]
                pointers = [int(word) for word in next(file).split()]
                blocks.append((values, columns, pointers))
    return blocks


def fastest(*functions: Callable[[], object]) -> list[float]:
    """Seconds of processor time that each takes at best, called in turn."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(REPEATS):
        for function, own in zip(functions, times, strict=True):
            started = time.process_time()
            function()
            own.append(time.process_time() - started)
    return [min(own) for own in times]


def report(run: Path) -> None:
    """Print the lines of one run."""
    files = sorted((run / "OUT.ABACUS").glob("data-[HS]R-sparse_SPIN*.csr"))
    for path in files:
        size = path.stat().st_size / 1e6
        bulk, plain = fastest(partial(read_csr, path, path.name[5]), partial(read_plainly, path))
        name = f"{run.name}/{path.name}"
        print(f"{name:40} {size:8.2f} {size / bulk:10.0f} {size / plain:10.0f} {plain / bulk:8.1f}")
    size = sum(path.stat().st_size for path in files) / 1e6
    (whole,) = fastest(partial(read_abacus, run))
    print(f"{run.name + ', whole run':40} {size:8.2f} {size / whole:10.0f}")


def main() -> None:
    print(f"{'file':40} {'MB':>8} {'MB/s':>10} {'plain MB/s':>10} {'ratio':>8}")
    with tempfile.TemporaryDirectory() as folder:
        runs = [Path(argument) for argument in sys.argv[1:]]
        if not runs:
            unpacked = Path(shutil.copytree(FIXTURES, Path(folder) / "abacus"))
            for packed in unpacked.rglob("*.xz"):
                packed.with_suffix("").write_bytes(lzma.decompress(packed.read_bytes()))
            runs = sorted(path.parent for path in unpacked.glob("*/OUT.ABACUS") if list(path.glob("data-*.csr")))
        for run in runs:
            report(run)


if __name__ == "__main__":
    main()
