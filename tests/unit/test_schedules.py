"""The learning rate: warm-up, cosine, and DeepH-E3's plateau against torch's own."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from deeph_tracegrad.config import ScheduleSettings
from deeph_tracegrad.training.schedules import Schedule


def test_warm_up_then_constant() -> None:
    schedule = Schedule(ScheduleSettings(kind="constant", warmup_epochs=4.0), 0.1, 10)
    assert schedule.rate(1.0) == pytest.approx(0.025)
    assert schedule.rate(4.0) == schedule.rate(9.9) == 0.1
    assert not schedule.finished


def test_cosine_arrives_at_the_lowest_rate() -> None:
    schedule = Schedule(ScheduleSettings(kind="cosine", warmup_epochs=2.0, min_learning_rate=1e-3), 0.1, 12)
    assert schedule.rate(2.0) == 0.1
    assert schedule.rate(7.0) == pytest.approx((0.1 + 1e-3) / 2)
    assert schedule.rate(12.0) == pytest.approx(1e-3)
    rates = [schedule.rate(progress) for progress in np.linspace(2.0, 12.0, 50)]
    assert all(later < earlier for earlier, later in pairwise(rates))


def test_cosine_with_nothing_left_after_the_warm_up() -> None:
    schedule = Schedule(ScheduleSettings(kind="cosine", warmup_epochs=5.0), 0.1, 3)
    assert [schedule.rate(epoch) for epoch in (1, 3)] == pytest.approx([0.02, 0.06])


@pytest.mark.parametrize("seed", range(5))
def test_plateau_is_torchs_on_the_smoothed_error(seed: int) -> None:
    settings = ScheduleSettings(
        kind="plateau", warmup_epochs=0.0, patience=4, cooldown=3, threshold=0.05, smoothing=0.1, revert_patience=10_000
    )
    schedule = Schedule(settings, 1.0, 1000)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=4, cooldown=3, threshold=0.05
    )
    errors = np.exp(-np.arange(200) / 60) * np.random.default_rng(seed).uniform(0.5, 1.5, 200)
    smoothed = None
    for error in errors.tolist():
        smoothed = error if smoothed is None else 0.1 * error + 0.9 * smoothed
        reference.step(smoothed)
        assert not schedule.validated(error)
        assert schedule.rate(0.0) == optimizer.param_groups[0]["lr"]
    assert schedule.rate(0.0) < 0.5


def test_plateau_ends_at_the_lowest_rate() -> None:
    settings = ScheduleSettings(
        kind="plateau", warmup_epochs=0.0, patience=1, cooldown=0, min_learning_rate=0.3, revert_patience=10_000
    )
    schedule = Schedule(settings, 1.0, 1000)
    finished = []
    for _ in range(7):
        schedule.validated(1.0)
        finished.append(schedule.finished)
    assert finished == [False] * 4 + [True] * 3


def test_plateau_goes_back_after_errors_above_twice_the_best() -> None:
    settings = ScheduleSettings(kind="plateau", warmup_epochs=0.0, revert_patience=3, revert_factor=0.8)
    schedule = Schedule(settings, 1.0, 1000)
    errors = [1.0, 2.1, 2.1, 1.9, 2.1, 2.1, 2.1]
    assert [schedule.validated(error) for error in errors] == [False] * 6 + [True]
    schedule.reverted()
    assert schedule.rate(0.0) == pytest.approx(0.8)
    assert not schedule.validated(2.1)


@pytest.mark.parametrize("kind", ["constant", "cosine", "steps"])
def test_other_kinds_follow_the_error_only_back_to_the_best_weights(kind: str) -> None:
    schedule = Schedule(ScheduleSettings(kind=kind, revert_patience=3, revert_factor=0.5), 1.0, 100)
    before = schedule.rate(50.0)
    assert not any(schedule.validated(error) for error in [1.0] + [1.9] * 200 + [2.1] * 2)
    assert schedule.rate(50.0) == before
    assert schedule.validated(2.1)
    schedule.reverted()
    assert schedule.rate(50.0) == pytest.approx(0.5 * before)
    assert not schedule.finished


def test_returns_that_lead_to_nothing_better_are_counted() -> None:
    schedule = Schedule(ScheduleSettings(), 1.0, 100)
    schedule.validated(1.0)
    for _ in range(9):
        schedule.reverted()
    assert not schedule.hopeless
    schedule.validated(0.9)
    for _ in range(9):
        schedule.reverted()
    assert not schedule.hopeless
    schedule.validated(0.95)
    schedule.reverted()
    assert schedule.hopeless
    assert schedule.reverts == 19


def test_state_goes_on_where_it_was() -> None:
    settings = ScheduleSettings(kind="plateau", warmup_epochs=0.0, patience=3, cooldown=2, revert_patience=4)
    errors = np.random.default_rng(0).uniform(0.5, 2.0, 100).tolist()
    whole, first = Schedule(settings, 1.0, 100), Schedule(settings, 1.0, 100)
    for error in errors[:40]:
        whole.validated(error)
        first.validated(error)
    second = Schedule(settings, 1.0, 100)
    second.load_state_dict(first.state_dict())
    for error in errors[40:]:
        assert whole.validated(error) == second.validated(error)
        assert whole.rate(0.0) == second.rate(0.0)


def test_steps_lower_the_rate_at_their_epochs():
    settings = ScheduleSettings(
        kind="steps", warmup_epochs=0.0, first_step=10, step_interval=5, factor=0.5, min_learning_rate=0.02
    )
    schedule = Schedule(settings, 0.1, 100)
    rates = [schedule.rate(progress) for progress in (9.9, 10.0, 10.1, 15.0, 15.1, 40.0)]
    assert rates == pytest.approx([0.1, 0.1, 0.05, 0.05, 0.025, 0.02])
