"""The exceptions a user can meet.

Each message is one or more sentences: what was read, where, what was expected, what to do.
The command line prints the message alone and exits with 2.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Failure:
    """One input among many that could not be used, and why."""

    path: Path
    reason: str

    @classmethod
    def of(cls, path: Path, error: "TracegradError") -> "Failure":
        """That of an error, whose message may begin with the path."""
        return cls(path, str(error).removeprefix(f"{path}: "))


class TracegradError(Exception):
    """Base of every error that the user, not the program, can mend."""


class ReadError(TracegradError):
    """A file or folder that could not be read as what it should be."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = Path(path)
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[Path, str]]:
        """Survive the way from a worker process: the message alone would not rebuild both arguments."""
        return type(self), (self.path, self.reason)


class WriteError(TracegradError):
    """A file or folder that could not be written."""


class WorkerError(TracegradError):
    """A worker process that the system ended."""


class ConfigError(TracegradError):
    """A configuration that names an unknown key or holds a value of the wrong kind."""


class MismatchError(TracegradError):
    """Two things that do not fit together: runs, a dataset and a checkpoint, a checkpoint and a structure."""


class TrainingError(TracegradError):
    """A training that cannot go on."""


class LaunchError(TracegradError):
    """Processes that were started together, but cannot find or reach each other."""


class LostRankError(TracegradError):
    """A rank that ended, or went out of reach, while others needed it."""


class DeviceError(TracegradError):
    """A device whose memory does not suffice."""


class SolverError(TracegradError):
    """An eigenproblem that cannot be solved as posed."""


class InterruptionError(TracegradError):
    """A calculation that the user, or the queue, ended; the message says how to go on."""


class PreemptionError(InterruptionError):
    """A training that the queue ended by SIGTERM, on all ranks alike; its state is kept."""
