"""The folder of one training: configuration, versions, split, logs, events, metrics, checkpoints."""

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from deeph_tracegrad.annotated_config import annotated_toml
from deeph_tracegrad.atomic import atomic_path
from deeph_tracegrad.config import Config, differing_keys
from deeph_tracegrad.console import say, warnings_heard
from deeph_tracegrad.errors import MismatchError, PreemptionError, TrainingError
from deeph_tracegrad.parallel import world
from deeph_tracegrad.training.checkpoint import Checkpoint, load_checkpoint
from deeph_tracegrad.training.rank_log import RankLog, describe

Resume = Literal["never", "auto", "always"]

_CONFIG = "config.toml"
_EVENT_FIELDS = ("time", "epoch", "event", "text")


class Event(StrEnum):
    """What happens to a training as a whole."""

    STARTED = "started"
    ROLLBACK = "rollback"
    STOPPED = "stopped"
    FAILED = "failed"
    FINISHED = "finished"


# What a resumed training must not change: its steps would not follow from the earlier ones.
_DEFINING_KEYS = (
    "data.train",
    "data.validation",
    "data.test",
    "data.split_seed",
    "data.max_edges",
    "model.",
    "training.seed",
    "training.dtype",
)


class RunFolder:
    """The files of one training. The main rank writes them, and each rank a log of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last = path / "last.pt"
        self.best = path / "best.pt"
        self.metrics = path / "metrics.csv"
        self.tensorboard = path / "tensorboard"
        self.events = path / "events.csv"
        self.rank_logs = path / "logs"
        self.rank_log = RankLog(self.rank_logs)
        self._log = path / "train.log"
        self._in_use = False

    def goes_on(self, resume: Resume) -> bool:
        """Whether to go on with the training in the folder; auto does if there is one."""
        return resume == "always" or (resume == "auto" and world().broadcast(self.last.is_file()))

    def begin(self, config: Config, split: dict[str, list[str]], facts: dict[str, Any]) -> None:
        """Make the folder and write what stays the same; one whose training never got to a checkpoint is used again.

        facts: versions and the like, for versions.json.

        Raises:
            TrainingError: the folder holds a training, or something else.
        """
        if world().is_main:
            if self.last.exists():
                raise TrainingError(
                    f"{self.path} holds a training already; --resume goes on with it, another training.run starts a "
                    "new one"
                )
            if self.path.exists() and not (self.path / _CONFIG).is_file() and _has_content(self.path):
                raise TrainingError(f"{self.path} exists and is no training; choose another training.run")
            self._write(config, split, facts)
            for earlier in (self._log, self.metrics, self.events, *self.rank_logs.glob("rank_*.log")):
                earlier.unlink(missing_ok=True)
        self._in_use = True
        world().barrier()

    def resume(
        self, config: Config, fingerprint: str, split: dict[str, list[str]], facts: dict[str, Any]
    ) -> Checkpoint:
        """The last checkpoint, if this configuration and dataset go on with it.

        Raises:
            TrainingError: there is no checkpoint.
            MismatchError: the dataset, the split or a key that defines the training is another one.
        """
        if not self.last.is_file():
            raise TrainingError(f"{self.path} holds no last.pt to resume from; leave --resume out to start")
        checkpoint = load_checkpoint(self.last)
        changed = [key for key in differing_keys(checkpoint.config, config) if key.startswith(_DEFINING_KEYS)]
        if changed:
            raise MismatchError(
                f"{self.last} was trained with another {', '.join(changed)}; restore the values that are in "
                f"{self.path / _CONFIG}, or start a new training.run"
            )
        if (checkpoint.fingerprint, checkpoint.split) != (fingerprint, split):
            raise MismatchError(
                f"{config.data.dataset} is not the dataset that {self.last} was trained on, or has changed since "
                f"(fingerprint {fingerprint}, was {checkpoint.fingerprint}); start a new training.run"
            )
        world().barrier()  # every rank has read before one writes
        if world().is_main:
            self._write(config, split, facts)
        self._in_use = True
        return checkpoint

    def say(self, text: str) -> None:
        """A line on the terminal and in train.log."""
        say(text)
        if world().is_main:
            with self._log.open("a", encoding="utf-8") as log:
                log.write(f"{text}\n")

    def note(self, event: Event, epoch: int | None, text: str) -> None:
        """A row of events.csv."""
        if world().is_main:
            new = not self.events.exists()
            with self.events.open("a", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                if new:
                    writer.writerow(_EVENT_FIELDS)
                writer.writerow((datetime.now(UTC).isoformat(timespec="seconds"), epoch, event, text))

    @contextmanager
    def faults(self) -> Iterator[None]:
        """Keep what ends the training in this folder, in events.csv and each rank's log; there warnings, too."""
        try:
            with warnings_heard(self._take_warning):
                yield
        except PreemptionError:
            raise
        except Exception as error:
            if self._in_use:
                with suppress(OSError):  # of a full disk, which may be the error
                    self.rank_log.failed(error)
                self.note(Event.FAILED, None, describe(error))
            raise

    def _take_warning(self, text: str) -> None:
        if self._in_use:
            self.rank_log.say(f"warning: {text}")

    def _write(self, config: Config, split: dict[str, list[str]], facts: dict[str, Any]) -> None:
        for leftover in self.path.glob(".*.part*"):  # of a process that was killed while it wrote
            leftover.unlink(missing_ok=True)
        for name, text in [
            (_CONFIG, annotated_toml(config)),
            ("split.json", json.dumps(split, indent=1, ensure_ascii=False)),
            ("versions.json", json.dumps(facts, indent=1)),
        ]:
            with atomic_path(self.path / name) as temporary:
                temporary.write_text(text, encoding="utf-8")


def _has_content(path: Path) -> bool:
    return not path.is_dir() or any(path.iterdir())
