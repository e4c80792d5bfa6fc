"""Statistics about a sweep: the optimism of its best value, ties, and the importance of its parameters.

The best of many noisy values is biased: among N equally good trials it lies expected_maximum(N) standard deviations
above their mean. A parameter is important if PED-ANOVA (Watanabe et al., IJCAI 2023) finds more in the trials' values
than in the same values in random order.
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dlkit import statistics
from dlkit.config.search_space import Parameter

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

ENOUGH_FOR_IMPORTANCE = 16  # finished trials
PERMUTATIONS = 199


@dataclass(frozen=True)
class Evidence:
    """The noise of a trial's value, its effect on the best one, and the importance of each parameter."""

    noise: float | None = None  # standard deviation of a trial's value, all else equal; None: not measured
    noise_over: str | None = None  # seeds, or images, which excludes the variance of training
    optimism: float | None = None  # by how much the best would exceed the mean if all trials were equally good
    tied: tuple[int, ...] = ()  # trials whose values are not distinguishable from the best
    importance: Mapping[str, float] = field(
        default_factory=dict
    )  # summing to 1; empty: not distinguishable from chance
    importance_p: Mapping[str, float] = field(default_factory=dict)  # by permutation, Holm-adjusted

    def sentence(self, metric: str, trials: int) -> str:
        """A remark on the best value."""
        others = f"; {len(self.tied)} more {'are' if len(self.tied) > 1 else 'is'} not distinguishable from it"
        tied = others if self.tied else ""
        if self.optimism is None:
            return f"best of {trials}: its {metric} is optimistic by an unknown amount (--confirm 3 measures it){tied}"
        return (
            f"best of {trials}: if all were equally good, its {metric} would look about {self.optimism:.2g} too good "
            f"(noise over {self.noise_over} {self.noise:.2g}){tied}"
        )


def importance_sentence(evidence: Evidence) -> str:
    """The important parameters; "" if there were too few trials."""
    if not evidence.importance_p:
        return ""
    if not evidence.importance:
        return "what mattered: not distinguishable from chance"
    percentages = ", ".join(
        f"{key} {100 * fraction:.0f} % (p {evidence.importance_p[key]:.2g})"
        if evidence.importance_p[key] < statistics.LEVEL
        else f"{key} not distinguishable from chance"
        for key, fraction in evidence.importance.items()
    )
    return f"what mattered: {percentages}"


def noise_over_seeds(values: Sequence[Sequence[float]]) -> float | None:
    """The standard deviation of a trial's mean over its seeds, pooled over trials of two seeds or more."""
    squares, freedom, seeds = 0.0, 0, 1
    for group in values:
        if len(group) > 1:
            mean = math.fsum(group) / len(group)
            squares += math.fsum((value - mean) ** 2 for value in group)
            freedom, seeds = freedom + len(group) - 1, len(group)
    return math.sqrt(squares / freedom / seeds) if freedom else None


def noise_over_images(accuracy: float, images: int) -> float:
    """The standard deviation of an accuracy over that many images."""
    return math.sqrt(max(accuracy * (1 - accuracy), 1 / (4 * images)) / images)


def find_ties(best: float, others: Mapping[int, float], noise: float | None) -> tuple[int, ...]:
    """The trials whose values do not differ significantly from the best."""
    reach = statistics.Z95 * math.sqrt(2) * (noise or 0.0)
    return tuple(number for number, value in others.items() if abs(value - best) <= reach)


def importance(study: Study, space: Sequence[Parameter], seed: int) -> tuple[dict[str, float], dict[str, float]]:
    """Each parameter's importance and p-value; without importances if none is significant, empty for few trials."""
    from optuna.trial import TrialState, create_trial

    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(finished) < ENOUGH_FOR_IMPORTANCE or len(space) < 2:
        return {}, {}
    values = [trial.value or 0.0 for trial in finished]
    generator, exceeded = random.Random(seed), dict[str, int]()
    measured = _divergences(study)
    for _ in range(PERMUTATIONS):
        shuffled = generator.sample(values, len(values))
        trials = [
            create_trial(params=trial.params, distributions=trial.distributions, value=value)
            for trial, value in zip(finished, shuffled, strict=True)
        ]
        chance = _divergences(_study_like(study, trials))
        for key, value in measured.items():
            exceeded[key] = exceeded.get(key, 0) + (chance.get(key, 0.0) >= value)
    raw = [(1 + exceeded[key]) / (1 + PERMUTATIONS) for key in measured]
    p_values = dict(zip(measured, statistics.holm(raw), strict=True))
    total = sum(measured.values())
    if not total or min(p_values.values()) >= statistics.LEVEL:
        return {}, p_values
    return {key: value / total for key, value in measured.items()}, p_values


def _divergences(study: Study) -> dict[str, float]:
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this part of Optuna is experimental
        evaluator = PedAnovaImportanceEvaluator(target_quantile=0.3)
        return get_param_importances(study, evaluator=evaluator, normalize=False)


def _study_like(study: Study, trials: Sequence[FrozenTrial]) -> Study:
    from optuna.study import create_study

    copy = create_study(direction=study.direction)
    copy.add_trials(trials)
    return copy
