"""What a new trial tries: guesses first, then what the sampler proposes, and never what was tried before.

A proposal is a function of the sweep's seed, the trial's number and the trials before it, so it does not matter how
often a sweep was stopped. A space of choices and whole numbers is drawn from without replacement.

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
ATTEMPTS = 20  # draws of the sampler before another way is taken


def propose(
    study: Study,
    sampler: Sampler,
    space: Sequence[Parameter],
    seed: int,
    tried: Sequence[Values],
    guesses: Sequence[Values],
) -> Values | None:
    """Values that no trial has tried; None once every combination has been."""
    for guess in guesses:
        if guess not in tried:
            return guess
    every = search_space.combinations(space)
    left = None if every is None else [values for values in every if values not in tried]
    if left is not None and not left:
        return None
    number = len(tried)
    if sampler == "grid":
        assert every is not None and left is not None
        order = random.Random(seed).sample(every, len(every))  # a part of a grid is then not a corner of it
        return next(values for values in order if values in left)
    for attempt in range(ATTEMPTS):
        drawn = _draw(study, _sampler(sampler, _seed(seed, number, attempt)), space)
        if drawn not in tried:
            return drawn
    if left is not None:
        return random.Random(_seed(seed, number, ATTEMPTS)).choice(left)
    while True:  # the space has no end, so that chance alone finds something new in it
        attempt += 1
        drawn = _draw(study, _sampler("random", _seed(seed, number, attempt)), space)
        if drawn not in tried:
            return drawn


def suggested(trial: OptunaTrial, space: Sequence[Parameter]) -> Values:
    """A value for each parameter that does something beside the others."""
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


def _draw(study: Study, sampler: BaseSampler, space: Sequence[Parameter]) -> Values:
    """What a sampler proposes, asked for in a copy of the study, where a draw that is not used leaves no trial."""
    from optuna.study import create_study

    copy = create_study(direction=study.direction, pruner=study.pruner, sampler=sampler, study_name=study.study_name)
    copy.add_trials(study.get_trials(deepcopy=False))
    return suggested(copy.ask(), space)


def _sampler(kind: Sampler, seed: int) -> BaseSampler:
    from optuna.samplers import RandomSampler, TPESampler

    return TPESampler(seed=seed) if kind == "tpe" else RandomSampler(seed=seed)


def _seed(seed: int, number: int, attempt: int) -> int:
    return (fold(seed, number, attempt) if attempt else fold(seed, number)) % 2**32
