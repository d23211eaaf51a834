"""What became of a training, from the files of its run folder, finished or broken."""

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deeph_tracegrad.atomic import atomic_path
from deeph_tracegrad.config import Config, load_config
from deeph_tracegrad.console import count
from deeph_tracegrad.errors import ReadError, WriteError
from deeph_tracegrad.training.rank_log import faults_of_last_run
from deeph_tracegrad.training.run_folder import Event, RunFolder

PICTURE = "losses.png"

_REMEDIES = {
    Event.STARTED: "It runs, or was ended without a chance to tell (kill -9, out of memory); --resume goes on.",
    Event.STOPPED: "The same command with --resume goes on.",
    Event.FAILED: "Mend what the message says; --resume goes on from last.pt, if there is one.",
}


@dataclass(frozen=True)
class Row:
    """One validation; losses in eV², rate the learning rate, speed in edges a second."""

    epoch: int
    train: float
    validation: float | None
    rate: float
    speed: float

    @property
    def decisive(self) -> float:
        """The error that chooses the best weights."""
        return self.train if self.validation is None else self.validation


@dataclass(frozen=True)
class Happening:
    """One row of events.csv."""

    epoch: int | None
    event: Event
    text: str


@dataclass(frozen=True)
class RunReport:
    """A run folder as it was read."""

    folder: RunFolder
    config: Config
    rows: Sequence[Row]
    happenings: Sequence[Happening]

    @classmethod
    def read(cls, path: Path) -> "RunReport":
        """Of a run folder.

        Raises:
            ReadError: a file in it is damaged.
            ConfigError: its config.toml is.
        """
        folder = RunFolder(path)
        rows = [_row(fields, folder.metrics) for fields in _table(folder.metrics)]
        happenings = [_happening(fields, folder.events) for fields in _table(folder.events)]
        return cls(folder, load_config(path / "config.toml"), rows, happenings)

    def findings(self) -> Iterator[tuple[str, str, str | None]]:
        """Name, value, and what is to be done about it."""
        training, model = self.config.training, self.config.model
        tracegrad = f"TraceGrad ({model.tracegrad.preset})" if model.tracegrad.enabled else "no TraceGrad"
        yield "dataset", str(self.config.data.dataset), None
        yield "network", f"{count(model.blocks, 'block')} of {model.trunk}, {tracegrad}", None
        rate = f"learning rate {training.optimizer.learning_rate:g}"
        yield "optimisation", f"{training.optimizer.name}, {rate}, {training.schedule.kind}, {training.dtype}", None
        yield self._state()
        yield "epochs", f"{self.rows[-1].epoch if self.rows else 0} of {training.epochs}", None
        if self.rows:
            best = min(self.rows, key=lambda row: row.decisive if math.isfinite(row.decisive) else math.inf)
            yield "lowest error", f"{best.decisive:.4e} eV² after epoch {best.epoch}", None
            yield "last error", f"{self.rows[-1].decisive:.4e} eV²; train loss {self.rows[-1].train:.4e} eV²", None
            yield "speed", f"{np.median([row.speed for row in self.rows]):.0f} edges per second", None
        starts = [happening.text for happening in self._all(Event.STARTED)]
        yield "started", "; ".join(dict.fromkeys(starts)) + f" ({count(len(starts), 'time')})", None
        yield "interruptions", str(len(self._all(Event.STOPPED))), None
        rollbacks = self._all(Event.ROLLBACK)
        yield "rollbacks", str(len(rollbacks)), rollbacks[-1].text if rollbacks else None
        for message, ranks in faults_of_last_run(self.folder.rank_logs).items():
            if ranks != [0]:  # whose fault is the state
                numbers = ", ".join(map(str, sorted(ranks)))
                yield "fault", f"of rank {numbers}: {message}", f"The traceback is in {self.folder.rank_logs}."

    def _state(self) -> tuple[str, str, str | None]:
        ends = [happening for happening in self.happenings if happening.event is not Event.ROLLBACK]
        if not ends:
            return "state", "unknown: no events.csv", None
        last = ends[-1]
        if last.event is Event.STARTED:
            return "state", "started, no end recorded", _REMEDIES[last.event]
        text = f"{last.event}: {last.text}"
        return "state", text, _REMEDIES.get(last.event)

    def _all(self, event: Event) -> list[Happening]:
        return [happening for happening in self.happenings if happening.event is event]

    def draw(self) -> str:
        """Draw the loss curves into the folder; what became of it, in words."""
        from matplotlib.figure import Figure

        if not self.rows:
            return "nothing to draw yet"
        epochs = [row.epoch for row in self.rows]
        figure = Figure(figsize=(8, 5), layout="constrained")
        axes = figure.subplots()
        axes.plot(epochs, [row.train for row in self.rows], label="training", marker=".")
        if self.rows[-1].validation is not None:
            axes.plot(epochs, [row.decisive for row in self.rows], label="validation", marker=".")
        for event, colour in ((Event.ROLLBACK, "tab:red"), (Event.STOPPED, "tab:gray")):
            for place, happening in enumerate(self._all(event)):
                if happening.epoch is not None:
                    axes.axvline(happening.epoch, color=colour, linestyle=":", label=None if place else str(event))
        axes.set_yscale("log")
        axes.set_xlabel("epoch")
        axes.set_ylabel("mean squared error of H in eV²")
        rates = axes.twinx()
        rates.plot(epochs, [row.rate for row in self.rows], color="tab:green", alpha=0.5)
        rates.set_ylabel("learning rate", color="tab:green")
        axes.legend()
        picture = self.folder.path / PICTURE
        try:
            with atomic_path(picture) as temporary:
                figure.savefig(temporary, dpi=150)
        except WriteError as error:
            return f"not drawn: {error}"
        return str(picture)


def _table(path: Path) -> list[dict[str, str | None]]:
    """The rows of a CSV file; none of one that is missing. A last one that was cut off by a kill is left out."""
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ReadError(path, f"damaged table ({error})") from error
    return rows[:-1] if rows and None in rows[-1].values() else rows


def _row(fields: dict[str, str | None], path: Path) -> Row:
    try:
        validation = fields["validation_loss"]
        return Row(
            epoch=int(fields["epoch"] or ""),
            train=float(fields["train_loss"] or ""),
            validation=float(validation) if validation else None,
            rate=float(fields["learning_rate"] or ""),
            speed=float(fields["edges_per_second"] or ""),
        )
    except (KeyError, ValueError) as error:
        raise ReadError(path, f"damaged table ({error})") from error


def _happening(fields: dict[str, str | None], path: Path) -> Happening:
    try:
        epoch = fields["epoch"]
        return Happening(int(epoch) if epoch else None, Event(fields["event"] or ""), fields["text"] or "")
    except (KeyError, ValueError) as error:
        raise ReadError(path, f"damaged table ({error})") from error
