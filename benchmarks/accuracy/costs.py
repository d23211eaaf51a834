"""What a training step costs, and how long trainings took."""

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from results import write_json
from study import ROWS, DataSet, Row, Study

from deeph_tracegrad.training.distributed import joined_ranks
from deeph_tracegrad.training.interruption import Interruption
from deeph_tracegrad.training.loop import Training
from deeph_tracegrad.training.run_folder import RunFolder

STEPS = 11


@dataclass(frozen=True)
class StepCost:
    """Seconds of a training step on one structure: of a row and of faithful DeepH-E3, measured in turns."""

    seconds: float
    faithful: float

    @property
    def ratio(self) -> float:
        """To the faithful row."""
        return self.seconds / self.faithful


def step_cost(study: Study, row: Row, chosen: DataSet) -> StepCost:
    """The cost of a row's step on a set, median of some; measured once for each folder of results.

    Processor time, so that a busy machine counts less; on a CUDA device, the time until it has finished.
    """
    path = study.out / "costs" / f"{chosen.name}-{row.name}.json"
    if not path.is_file():
        write_json(path, asdict(_measured(study, row, chosen)))
    return StepCost(**json.loads(path.read_text()))


def _measured(study: Study, row: Row, chosen: DataSet) -> StepCost:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        works = {}
        for name, one in {"row": row, "faithful": ROWS[0]}.items():
            config = study.config(one, chosen, folder / name)
            config = config.model_copy(
                update={"data": config.data.model_copy(update={"train": [chosen.train[0]], "validation": []})}
            )
            ranks = stack.enter_context(joined_ranks(config))
            training = Training(config, ranks, Interruption(), RunFolder(folder / name), resume=False)
            (graph,) = training.loader.batches([list(training.split.train)])
            training.state.learning_rate = 0.0  # so that no step depends on those before
            works[name] = lambda training=training, graph=graph: training.step(graph)
        clock = time.process_time if ranks.device.type == "cpu" else _synchronised
        taken: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(STEPS + 1):
            for name, work in works.items():
                taken[name].append(_seconds(work, clock))
    row_seconds, faithful = (statistics.median(taken[name][1:]) for name in ("row", "faithful"))
    return StepCost(row_seconds, faithful if row.name != ROWS[0].name else row_seconds)


def _seconds(work: Callable[[], None], clock: Callable[[], float]) -> float:
    start = clock()
    work()
    return clock() - start


def _synchronised() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()


@contextmanager
def effort(run: Path) -> Iterator[None]:
    """Add the time that the block takes to that in the run's effort.json; it ends with a signal or an error too."""
    wall, processor = time.perf_counter(), time.process_time()
    try:
        yield
    finally:
        if run.is_dir():
            before = read_effort(run)
            spent = {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor}
            write_json(run / "effort.json", {name: before[name] + seconds for name, seconds in spent.items()})


def read_effort(run: Path) -> dict[str, float]:
    """Wall and processor seconds of a training, validations included, over all its parts."""
    path = run / "effort.json"
    return json.loads(path.read_text()) if path.is_file() else {"wall": 0.0, "processor": 0.0}
