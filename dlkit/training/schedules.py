"""Learning rates as functions of the step: nothing to save, nothing to restore."""

from __future__ import annotations

import math
from collections.abc import Callable

from dlkit.config.schema import Schedule


def learning_rate(schedule: Schedule, lr: float, total_steps: int, steps_per_epoch: int) -> Callable[[int], float]:
    """The lr of each step, counted from 0; `lr` is the highest.

    Warm-up rises linearly to `lr` over the first steps; the schedule proper runs over the rest.

        step         lr · gamma^⌊t / step_epochs⌋, or gamma to the number of milestones that t has reached
        exponential  lr · gamma^((t − warmup_epochs) / step_epochs)
        cosine       lr · (final + (1 − final) · (1 + cos πp) / 2)      Loshchilov and Hutter 2017, without restarts
        onecycle     cosine up from lr/25 over `rise`, cosine down to lr · final       Smith and Topin 2018
    with t in epochs since the start of the run, warm-up included, and p in [0, 1] the part done of what follows it.
    """
    warmup_steps = round(schedule.warmup_epochs * steps_per_epoch)
    factor = _factor(schedule, steps_per_epoch, max(total_steps - warmup_steps, 1), warmup_steps)

    def at(step: int) -> float:
        if step < warmup_steps:
            return lr * (step + 1) / (warmup_steps + 1)
        return lr * factor(step - warmup_steps)

    return at


def describe_change(
    schedule: Schedule, lr: float, steps_per_epoch: int, step: int, before: int, now: int
) -> str | None:
    """How the lr from `step` on changes if a run planned for `before` epochs trains for `now`; None if it does not."""
    old, new = (learning_rate(schedule, lr, epochs * steps_per_epoch, steps_per_epoch) for epochs in (before, now))
    end = max(before, now) * steps_per_epoch
    if all(old(later) == new(later) for later in range(step, end, steps_per_epoch)):
        return None
    return (
        f"learning rate: {schedule.name} now spans {now} epochs, not {before}: it goes on at {new(step):.3g}, after "
        f"{old(max(step - 1, 0)):.3g} at the last step, and ends at {new(now * steps_per_epoch - 1):.3g}"
    )


def _factor(schedule: Schedule, steps_per_epoch: int, steps: int, warmup_steps: int) -> Callable[[int], float]:
    """The share of the highest lr by the number of steps since the end of warm-up, of which there are `steps`."""

    def drops(step: int) -> float:
        return step / (schedule.step_epochs * steps_per_epoch)

    def drops_so_far(step: int) -> int:
        if schedule.milestones is None:
            return math.floor(drops(step + warmup_steps))
        return sum(step + warmup_steps >= round(milestone * steps_per_epoch) for milestone in schedule.milestones)

    def onecycle(step: int) -> float:
        done = step / steps
        if done < schedule.rise:
            return _cosine(1 / 25, 1.0, done / schedule.rise)
        return _cosine(1.0, schedule.final, (done - schedule.rise) / (1 - schedule.rise))

    factors: dict[str, Callable[[int], float]] = {
        "constant": lambda step: 1.0,
        "step": lambda step: float(schedule.gamma ** drops_so_far(step)),
        "exponential": lambda step: float(schedule.gamma ** drops(step)),
        "cosine": lambda step: _cosine(1.0, schedule.final, min(step / steps, 1.0)),
        "onecycle": onecycle,
    }
    return factors[schedule.name]


def _cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(part, 1.0))) / 2
