"""The learning rate over the epochs."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from deeph_tracegrad.config import ScheduleSettings

MAX_FRUITLESS_REVERTS = 10


@dataclass
class ScheduleState:
    """What a schedule remembers. scale: what the rate is multiplied by.

    smoothed, lowest: smoothed validation error, and the last one that counted as progress (plateau).
    stalled: validations since. resting: validations left of the cooldown. best: lowest validation error.
    diverged: validations in a row above twice the best.
    reverts: returns to the best weights so far. fruitless: those since the error was last at its lowest.
    """

    scale: float = 1.0
    smoothed: float | None = None
    lowest: float = math.inf
    stalled: int = 0
    resting: int = 0
    best: float = math.inf
    diverged: int = 0
    reverts: int = 0
    fruitless: int = 0


class Schedule:
    """The learning rate at any point of the training.

    learning_rate: the rate of the optimiser's settings. epochs: where cosine ends.
    """

    def __init__(self, settings: ScheduleSettings, learning_rate: float, epochs: int) -> None:
        self._settings = settings
        self._learning_rate = learning_rate
        self._epochs = epochs
        self._state = ScheduleState()

    def rate(self, progress: float) -> float:
        """The learning rate after `progress` epochs, a real number."""
        return self._state.scale * self._planned_rate(progress)

    def _planned_rate(self, progress: float) -> float:
        """That of a training in which the error gives no reason to lower it."""
        warmup = self._settings.warmup_epochs
        if progress < warmup:
            return self._learning_rate * progress / warmup
        lowest = min(self._settings.min_learning_rate, self._learning_rate)
        if self._settings.kind == "steps":
            steps = max(0, math.ceil((progress - self._settings.first_step) / self._settings.step_interval))
            return max(lowest, self._learning_rate * self._settings.factor**steps)
        if self._settings.kind != "cosine":
            return self._learning_rate
        done = min(1.0, (progress - warmup) / max(self._epochs - warmup, 1e-9))
        return lowest + (self._learning_rate - lowest) * 0.5 * (1.0 + math.cos(math.pi * done))

    @property
    def finished(self) -> bool:
        """Whether plateau has lowered the rate to its end."""
        lowered = self._settings.kind == "plateau" and self._state.scale < 1.0
        return lowered and self._learning_rate * self._state.scale <= self._settings.min_learning_rate

    @property
    def reverts(self) -> int:
        """Returns to the best weights so far."""
        return self._state.reverts

    @property
    def hopeless(self) -> bool:
        """Whether so many returns in a row led to no better weights that one more is of no use."""
        return self._state.fruitless >= MAX_FRUITLESS_REVERTS

    def validated(self, error: float) -> bool:
        """Take note of a validation error; whether to go back to the best weights, as DeepH-E3 does."""
        settings, state = self._settings, self._state
        state.diverged = state.diverged + 1 if error > 2.0 * state.best else 0
        if error < state.best:
            state.best = error
            state.fruitless = 0
        if settings.kind == "plateau":
            self._watch(error)
        return state.diverged >= settings.revert_patience

    def reverted(self) -> None:
        """Lower the rate for a return to the best weights."""
        settings, state = self._settings, self._state
        state.scale *= settings.revert_factor
        state.resting = settings.cooldown
        state.diverged = state.stalled = 0
        state.reverts += 1
        state.fruitless += 1

    def _watch(self, error: float) -> None:
        """Lower the rate where the smoothed error stalls, as torch's ReduceLROnPlateau does."""
        settings, state = self._settings, self._state
        previous = error if state.smoothed is None else state.smoothed
        state.smoothed = settings.smoothing * error + (1.0 - settings.smoothing) * previous
        if state.smoothed < state.lowest * (1.0 - settings.threshold):
            state.lowest = state.smoothed
            state.stalled = 0
        else:
            state.stalled += 1
        if state.resting > 0:
            state.resting -= 1
            state.stalled = 0
        if state.stalled > settings.patience:
            state.scale *= settings.factor
            state.resting = settings.cooldown
            state.stalled = 0

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return asdict(self._state)

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._state = ScheduleState(**content)
