"""lr-find: the learning rate range test.

Smith, "Cyclical learning rates for training neural networks", WACV 2017 (1506.01186): train for a few steps while the
learning rate rises, and look where the loss falls and where it begins to rise again.
Differs from the paper: the rate rises geometrically and not linearly, and the loss of the training batches stands for
the accuracy. The rate at the steepest descent is suggested: the slope of the loss over a decade of the rate, up to the
smallest loss before the first rise. A network that overfits the batches of the sweep keeps a small loss far beyond the
rates that train it, so the place of the smallest loss says little; a curve that never rises shows no limit, and there
is no suggestion.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np

from dlkit.config.schema import Recipe
from dlkit.data.batches import Batch
from dlkit.data.loader import TrainingData
from dlkit.errors import DivergedError, UsageError
from dlkit.plots.lr_range import write_lr_range
from dlkit.training.assembly import batches, new_run
from dlkit.training.batch_size import with_largest_batch
from dlkit.training.distributed import World
from dlkit.training.inputs import Say, gather, ready, refuse_fitted, silent
from dlkit.training.loop import Run, Window, train_step

SCHEMA = "dlkit.lr_find/1"
LOWEST, HIGHEST, STEPS = 1e-5, 10.0, 200
SMOOTHING = 0.9  # of the loss's running mean
DIVERGED = 2.0  # times the loss at the start: it goes no further
FIRST = 5  # steps whose loss is not yet smooth
ROSE = 1.25  # times the first batch's loss: more than another batch would have
RISE = 0.25  # of what the loss has fallen by: more than noise
HARDLY = 0.95  # of the loss at the start: too little to judge by


@dataclass(frozen=True)
class Point:
    """A step of the test."""

    step: int
    lr: float
    loss: float
    smoothed: float


@dataclass(frozen=True)
class RangeTest:
    """The steps, and where the smoothed loss was smallest and the loss fell fastest before it first rose.

    Both are None if it never fell; `rose` is false if the range ended before the loss rose.
    """

    model: str
    dataset: str
    batch_size: int
    points: tuple[Point, ...]
    minimum: Point | None
    steepest: Point | None
    rose: bool = True

    @property
    def suggestion(self) -> float | None:
        """The learning rate at the steepest descent; None if the loss never fell, or never rose."""
        return float(f"{self.steepest.lr:.2g}") if self.steepest is not None and self.rose else None

    def document(self) -> dict[str, Any]:
        """The JSON form, `dlkit.lr_find/1`."""
        return {"schema": SCHEMA, "suggestion": self.suggestion, **asdict(self)}


def lr_find(
    recipe: Recipe,
    *,
    lowest: float = LOWEST,
    highest: float = HIGHEST,
    steps: int = STEPS,
    runs_dir: Path = Path("runs"),
    auto_batch: bool = False,
    say: Say = silent,
    advance: Callable[[int], object] = lambda count: None,
) -> RangeTest:
    """Train a network that is thrown away, from the recipe's start, with a learning rate that rises from step to step.

    Raises:
        UsageError: the range or the number of steps makes no sense.
    """
    if not 0 < lowest < highest < math.inf or steps < 20:
        asked = f"lr-find from {lowest:g} to {highest:g} in {steps} steps"
        raise UsageError(f"{asked}: the range must rise, from above 0, and 20 steps are the fewest.")
    refuse_fitted(recipe)
    with ready(recipe, World(), recipe.train.threads) as device:
        materials = gather(recipe, device, World(), runs_dir, say)
        if auto_batch:
            materials = with_largest_batch(materials, say)
        run, _ = new_run(materials, silent)
        run = replace(run, lr=lambda step: lowest * (highest / lowest) ** (step / (steps - 1)), averaged=None)
        data, _ = batches(run, materials.recipe, materials.data)
        points = []
        for point in measured(run, islice(endless(data), steps)):
            points.append(point)
            advance(1)
    minimum, steepest = chosen(points)
    if minimum is not None and minimum.smoothed > HARDLY * points[FIRST].smoothed:
        say(f"warning: the loss hardly fell, to {minimum.smoothed:.3g}. Use more --steps.")
    return RangeTest(
        recipe.model.name,
        recipe.data.name,
        materials.recipe.train.batch_size,
        tuple(points),
        minimum,
        steepest,
        rose=len(points) < steps or first_rise(points) < len(points),
    )


def endless(data: TrainingData) -> Iterator[Batch]:
    """Epoch after epoch."""
    for epoch in count():
        yield from data.epoch(epoch)


def measured(run: Run, given: Iterator[Batch]) -> Iterator[Point]:
    """The loss of each step and its running mean, until it diverges."""
    run.freezing.apply(run.model.train(), 0)
    mean, start = 0.0, math.inf
    for batch in given:
        lr, run.window = run.lr(run.step), Window()
        try:
            train_step(run, batch)
        except DivergedError:
            return
        loss = run.window.loss / run.window.samples
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        smoothed = mean / (1 - SMOOTHING**run.step)  # as if it had begun with the first loss
        yield Point(run.step, lr, loss, smoothed)
        if run.step == FIRST:
            start = smoothed
        if smoothed > DIVERGED * start:
            return


def first_rise(points: Sequence[Point]) -> int:
    """The index of the point at which the smoothed loss has risen by a share of its fall; their number if none."""
    settled = points[FIRST:]
    smallest = start = settled[0].smoothed if settled else 0.0
    for index, point in enumerate(settled, start=FIRST):
        smallest = min(smallest, point.smoothed)
        if smallest < HARDLY * start and point.smoothed > smallest + RISE * (start - smallest):
            return index
    return len(points)


def chosen(points: Sequence[Point]) -> tuple[Point | None, Point | None]:
    """Where the smoothed loss is smallest before its first rise, and where up to there the loss falls fastest."""
    before = points[: first_rise(points)]
    minimum = min(before[FIRST:], key=lambda point: point.smoothed, default=None)
    if minimum is None or minimum.step < FIRST + 3 or minimum.smoothed > ROSE * points[0].loss:
        return None, None
    rates, losses = np.log10([point.lr for point in before]), np.array([point.loss for point in before])
    half = max(1, round(0.5 / (rates[1] - rates[0])))  # of a decade
    last = max(min(minimum.step, len(before) - half), half + 1)
    slopes = [
        np.polyfit(rates[center - half : center + half + 1], losses[center - half : center + half + 1], 1)[0]
        for center in range(half, last)
    ]
    return minimum, before[min(half + int(np.argmin(slopes)), minimum.step - 1)]


def draw(found: RangeTest, path: Path) -> None:
    """The losses over the learning rate, as a figure."""
    losses = [(point.lr, point.loss) for point in found.points]
    smoothed = [(point.lr, point.smoothed) for point in found.points]
    write_lr_range(losses, smoothed, found.suggestion, f"Loss of {found.model} on {found.dataset}", path)
