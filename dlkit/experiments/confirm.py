"""Confirmation of the best trials under fresh seeds, whose values the search has not used for selection."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dlkit import statistics
from dlkit.errors import DivergedError
from dlkit.experiments import trainings
from dlkit.experiments.trials import FINISHED, SweepPlan, SweepTrial, lower_is_better
from dlkit.runs.run_folder import RunFolder

FRESH_SEEDS = 3  # trainings of each


@dataclass(frozen=True)
class Confirmation:
    """A trial's results under fresh seeds: the mean of the monitored metric, with Student's 95 % interval."""

    trial: int
    runs: tuple[str, ...]
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    mean: float
    low: float
    high: float


def confirm(plan: SweepPlan, ranked: Sequence[SweepTrial], count: int) -> tuple[Confirmation, ...]:
    """Train the first `count` of the ranked trials under fresh seeds; those confirmed before are seeds."""
    finished = [trial for trial in ranked if trial.state == FINISHED]
    confirmations = []
    for position, trial in enumerate(finished):
        if position < count or all(trainings.state_of(run) == FINISHED for run in _runs(plan, trial)):
            confirmation = _confirm(plan, trial)
            confirmations += [confirmation] if confirmation is not None else []
    return tuple(confirmations)


def best_confirmed(plan: SweepPlan, confirmed: Sequence[Confirmation]) -> int | None:
    """The trial with the best mean; None if none was confirmed."""
    choose = min if lower_is_better(plan.recipe) else max
    best = choose(confirmed, key=lambda confirmation: confirmation.mean, default=None)
    return None if best is None else best.trial


def _offsets(plan: SweepPlan) -> range:
    return range(plan.seeds, plan.seeds + FRESH_SEEDS)


def _runs(plan: SweepPlan, trial: SweepTrial) -> list[RunFolder]:
    first = plan.recipe.train.seed
    return [RunFolder(plan.folder / f"confirm-{trial.number:03}-seed{first + offset}") for offset in _offsets(plan)]


def _confirm(plan: SweepPlan, trial: SweepTrial) -> Confirmation | None:
    values, seeds = list[float](), list[int]()
    choose = min if lower_is_better(plan.recipe) else max
    for run, offset in zip(_runs(plan, trial), _offsets(plan), strict=True):
        recipe = plan.recipe_of(trial.parameters, offset)
        title = f"confirming {trial.run}, seed {recipe.train.seed}"
        try:
            trainings.finish(run, recipe, title, argv=plan.argv, say=plan.say, progress=plan.progress)
        except DivergedError as error:
            plan.say(f"warning: {title}: {error}")
            continue
        lines = (line.get(recipe.train.monitor) for line in run.metrics() if "weights_sha256" in line)
        values.append(choose(value for value in lines if value is not None and math.isfinite(value)))
        seeds.append(recipe.train.seed)
    if len(values) < 2:
        plan.say(f"warning: {trial.run} cannot be confirmed: its trainings diverged")
        return None
    estimate = statistics.student(values, trainings.resolution(_runs(plan, trial)[0]))
    runs = tuple(run.path.name for run in _runs(plan, trial))
    return Confirmation(trial.number, runs, tuple(seeds), tuple(values), estimate.value, estimate.low, estimate.high)
