"""The parameters of a new trial: initial values first, then those that the sampler proposes, without repetition.

A proposal is a function of the sweep's seed, the trial's number and the trials before it, so it does not depend on how
often a sweep was interrupted. A space of choices and integers is sampled without replacement.

Bergstra et al., "Algorithms for Hyper-Parameter Optimization", NeurIPS 2011 (the tree-structured Parzen estimator).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from dlkit.config import search_space
from dlkit.config.search_space import Choice, Parameter, Values
from dlkit.data.rng import fold

if TYPE_CHECKING:
    from optuna import Study
    from optuna import Trial as OptunaTrial
    from optuna.samplers import BaseSampler

Sampler = Literal["tpe", "random", "grid"]
ATTEMPTS = 20  # of the sampler, before a random choice


def propose(
    study: Study,
    sampler: Sampler,
    space: Sequence[Parameter],
    seed: int,
    tried: Sequence[Values],
    initial_values: Sequence[Values],
) -> Values | None:
    """Values that no trial has tried; None after all combinations."""
    for initial in initial_values:
        if initial not in tried:
            return initial
    combinations = search_space.combinations(space)
    remaining = None if combinations is None else [values for values in combinations if values not in tried]
    if remaining is not None and not remaining:
        return None
    number = len(tried)
    if sampler == "grid":
        assert combinations is not None and remaining is not None
        # shuffled, so that a part of the grid is not a corner of it
        order = random.Random(seed).sample(combinations, len(combinations))
        return next(values for values in order if values in remaining)
    for attempt in range(ATTEMPTS):
        values = _ask(study, _sampler(sampler, _seed(seed, number, attempt)), space)
        if values not in tried:
            return values
    if remaining is not None:
        return random.Random(_seed(seed, number, ATTEMPTS)).choice(remaining)
    while True:  # the space is infinite, so random sampling finds new values
        attempt += 1
        values = _ask(study, _sampler("random", _seed(seed, number, attempt)), space)
        if values not in tried:
            return values


def suggest(trial: OptunaTrial, space: Sequence[Parameter]) -> Values:
    """A value for each parameter that is active given the others."""
    values: dict[str, Any] = {}
    for parameter in space:
        if search_space.active(parameter, values):
            values[parameter.key] = _suggest(trial, parameter)
    return values


def _suggest(trial: OptunaTrial, parameter: Parameter) -> Any:
    if isinstance(parameter, Choice):
        return parameter.named(trial.suggest_categorical(parameter.key, parameter.names))
    if parameter.whole:
        return trial.suggest_int(parameter.key, int(parameter.low), int(parameter.high), log=parameter.log)
    return trial.suggest_float(parameter.key, parameter.low, parameter.high, log=parameter.log)


def _ask(study: Study, sampler: BaseSampler, space: Sequence[Parameter]) -> Values:
    """A sampler's proposal in a copy of the study, so that an unused one leaves no trial."""
    from optuna.study import create_study

    copy = create_study(direction=study.direction, pruner=study.pruner, sampler=sampler, study_name=study.study_name)
    copy.add_trials(study.get_trials(deepcopy=False))
    return suggest(copy.ask(), space)


def _sampler(kind: Sampler, seed: int) -> BaseSampler:
    from optuna.samplers import RandomSampler, TPESampler

    return TPESampler(seed=seed) if kind == "tpe" else RandomSampler(seed=seed)


def _seed(seed: int, number: int, attempt: int) -> int:
    return (fold(seed, number, attempt) if attempt else fold(seed, number)) % 2**32
