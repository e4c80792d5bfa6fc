from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler as schedulers
from torch.optim.lr_scheduler import LRScheduler

from dlkit.config.schema import Schedule
from dlkit.training.schedules import describe_change, learning_rate

NAMES = ["constant", "step", "cosine", "onecycle", "exponential"]


def test_step_drops_by_gamma_every_step_epochs() -> None:
    lr = learning_rate(Schedule(name="step", step_epochs=2.0, gamma=0.1), 1.0, 60, 10)
    assert [lr(step) for step in (0, 19)] == [1.0, 1.0]
    assert lr(20) == pytest.approx(0.1) and lr(59) == pytest.approx(0.01)


def test_step_drops_at_its_milestones() -> None:
    lr = learning_rate(Schedule(name="step", milestones=(3.0, 4.5), gamma=0.1), 1.0, 60, 10)
    assert [lr(step) for step in (0, 29)] == [1.0, 1.0]
    assert [lr(step) for step in (30, 44)] == pytest.approx([0.1, 0.1]) and lr(45) == lr(59) == pytest.approx(0.01)


def test_exponential_falls_by_gamma_over_step_epochs() -> None:
    lr = learning_rate(Schedule(name="exponential", step_epochs=1.0, gamma=0.5), 1.0, 100, 10)
    assert lr(5) == pytest.approx(0.5**0.5) and lr(10) == pytest.approx(0.5)


def test_cosine_equals_torchs_scheduler() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50, eta_min=0.03)
    lr = learning_rate(Schedule(name="cosine", final=0.1), 0.3, 50, 5)
    for step in range(50):
        assert lr(step) == pytest.approx(reference.get_last_lr()[0])
        optimizer.step()
        reference.step()


def test_onecycle_rises_to_the_highest_lr_and_falls_to_the_final_one() -> None:
    lr = learning_rate(Schedule(name="onecycle", rise=0.3, final=0.01), 2.0, 1000, 100)
    values = [lr(step) for step in range(1000)]
    assert values[0] == pytest.approx(2.0 / 25) and max(values) == pytest.approx(2.0)
    assert values.index(max(values)) == 300 and values[-1] == pytest.approx(0.02, rel=0.01)


WARMUP, EPOCHS, STEPS = 2, 10, 7  # epochs, epochs, steps an epoch
ORACLES: dict[str, tuple[dict[str, Any], Callable[[torch.optim.Optimizer], LRScheduler]]] = {
    "constant": ({}, lambda optimizer: schedulers.ConstantLR(optimizer, factor=1.0)),
    "milestones": (
        {"name": "step", "milestones": (2.0, 4.0, 6.5), "gamma": 0.3},
        lambda optimizer: schedulers.MultiStepLR(optimizer, [0, 2 * STEPS, round(4.5 * STEPS)], gamma=0.3),
    ),
    "step": (
        {"name": "step", "step_epochs": 3.0, "gamma": 0.5},
        lambda optimizer: schedulers.MultiStepLR(optimizer, [1 * STEPS, 4 * STEPS, 7 * STEPS], gamma=0.5),
    ),
    "exponential": (
        {"name": "exponential", "step_epochs": 3.0, "gamma": 0.5},
        lambda optimizer: schedulers.ExponentialLR(optimizer, gamma=0.5 ** (1 / (3 * STEPS))),
    ),
    "cosine": (
        {"name": "cosine", "final": 0.1},
        lambda optimizer: schedulers.CosineAnnealingLR(optimizer, (EPOCHS - WARMUP) * STEPS, eta_min=0.04),
    ),
}


@pytest.mark.parametrize("name", ORACLES)
def test_with_warmup_epochs_count_from_the_start_of_the_run_as_in_torchs_sequential_schedulers(name: str) -> None:
    """SequentialLR's second scheduler counts from its own start: its milestones are ours less the warm-up."""
    settings, scheduler = ORACLES[name]
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.4)
    steps = WARMUP * STEPS
    warmup = schedulers.LinearLR(optimizer, 1 / (steps + 1), 1.0, total_iters=steps)
    reference = schedulers.SequentialLR(optimizer, [warmup, scheduler(optimizer)], [steps])
    ours = learning_rate(Schedule(warmup_epochs=WARMUP, **settings), 0.4, EPOCHS * STEPS, STEPS)
    for step in range(EPOCHS * STEPS):
        assert ours(step) == pytest.approx(reference.get_last_lr()[0], rel=1e-6), step
        optimizer.step()
        reference.step()


@pytest.mark.parametrize("name", ["step", "cosine", "onecycle"])
def test_a_longer_run_reports_its_learning_rate_if_it_changes(name: str) -> None:
    schedule = Schedule(name=name)  # type: ignore[arg-type]
    note = describe_change(schedule, 0.4, STEPS, 2 * STEPS, 2, 4)
    if name == "step":
        assert note is None
    else:
        before, now = (learning_rate(schedule, 0.4, epochs * STEPS, STEPS) for epochs in (2, 4))
        assert note is not None and f"now spans 4 epochs, not 2: it goes on at {now(2 * STEPS):.3g}" in note
        assert f"after {before(2 * STEPS - 1):.3g} at" in note and f"ends at {now(4 * STEPS - 1):.3g}" in note
    assert describe_change(schedule, 0.4, STEPS, 2 * STEPS, 4, 4) is None


@pytest.mark.parametrize("name", NAMES)
def test_warmup_rises_evenly_and_meets_the_schedule(name: str) -> None:
    lr = learning_rate(Schedule(name=name, warmup_epochs=2.0, step_epochs=3.0), 1.0, 100, 10)  # type: ignore[arg-type]
    rises = [lr(step + 1) - lr(step) for step in range(19)]
    assert all(math.isclose(rise, rises[0]) and rise > 0 for rise in rises)
    assert lr(20) == pytest.approx(1.0 if name != "onecycle" else 1 / 25)


@pytest.mark.parametrize("name", NAMES)
def test_every_schedule_is_positive_and_at_most_lr(name: str) -> None:
    lr = learning_rate(Schedule(name=name, warmup_epochs=0.5), 0.7, 100, 10)  # type: ignore[arg-type]
    values = [lr(step) for step in range(100)]
    assert all(0 < value <= 0.7 + 1e-12 for value in values)
