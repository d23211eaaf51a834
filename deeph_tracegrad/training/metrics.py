"""What a training reports after each validation: a row of metrics.csv, a line of the log, TensorBoard events."""

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from deeph_tracegrad.atomic import atomic_path
from deeph_tracegrad.parallel import world

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

HEADER = (
    "   epoch   train loss    valid. loss   valid. MAE   trace error     learning       edges        time\n"
    "                  eV²            eV²          meV                       rate  per second        left"
)


@dataclass(frozen=True)
class EpochMetrics:
    """Errors after an epoch; None where there are no samples or no trace labels to measure on.

    Losses are mean squared errors of H in eV², over all matrix elements, whatever is minimised; trace errors are mean
    absolute errors of the trace labels; the MAE is that of H's elements in global coordinates. The training errors are
    those of the batches as they came, so of changing weights. rollbacks: returns to the best weights so far.
    """

    epoch: int
    train_loss: float
    train_trace_error: float | None
    validation_loss: float | None
    validation_trace_error: float | None
    validation_mae_mev: float | None
    learning_rate: float
    edges_per_second: float
    rollbacks: int

    @property
    def decisive(self) -> float:
        """The error that tells better weights from worse: of the validation samples, if there are any."""
        return self.train_loss if self.validation_loss is None else self.validation_loss

    def known(self) -> dict[str, float]:
        """Those that were measured, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def line(self, seconds_left: float) -> str:
        """One row under `HEADER`."""
        trace = self.train_trace_error if self.validation_loss is None else self.validation_trace_error
        return (
            f"{self.epoch:8d} {self.train_loss:12.4e} {_cell(self.validation_loss, '13.4e')} "
            f"{_cell(self.validation_mae_mev, '12.4f')} {_cell(trace, '13.4f')} {self.learning_rate:12.3e} "
            f"{self.edges_per_second:11.0f} {duration(seconds_left):>11}"
        )


class MetricsWriter:
    """Appends to metrics.csv and, where tensorboard is installed, to its events; the main rank only.

    epoch: from which a resumed training goes on; rows after it are of work that was lost.
    """

    def __init__(self, path: Path, tensorboard: Path, epoch: int) -> None:
        self._path = path
        self._names = [field.name for field in fields(EpochMetrics)]
        self._events = None
        if not world().is_main:
            return
        rows = [row for row in read_metrics(path) if int(row["epoch"]) <= epoch] if path.is_file() else []
        with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._names)
            writer.writeheader()
            writer.writerows(rows)
        self._events = _events(tensorboard, epoch)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close TensorBoard's file."""
        if self._events is not None:
            self._events.close()

    def write(self, metrics: EpochMetrics) -> None:
        """Add one row."""
        if not world().is_main:
            return
        row = asdict(metrics)
        with self._path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._names).writerow(row)
        if self._events is not None:
            for name, value in metrics.known().items():
                self._events.add_scalar(name, value, metrics.epoch)


def read_metrics(path: Path) -> Sequence[dict[str, str]]:
    """The rows of a metrics.csv, as text."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def duration(seconds: float) -> str:
    """As a clock shows it: 1:02:03, or 2:03 below an hour."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def _cell(value: float | None, form: str) -> str:
    return f"{'-':>{form.partition('.')[0]}}" if value is None else f"{value:{form}}"


def _events(folder: Path, epoch: int) -> "SummaryWriter | None":
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=epoch + 1)
