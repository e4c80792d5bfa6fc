"""The trials of a sweep: drawn by Optuna, trained in run folders, told back to Optuna from there.

The folders are all the memory there is. Optuna's own is made anew by each call; what trial n tries is a function of the
seed, n and the trials before it, and a trial that was broken off is drawn again as its recipe has it.

Bergstra et al., "Algorithms for Hyper-Parameter Optimization", NeurIPS 2011 (the tree-structured Parzen estimator that
draws); Golovin et al., "Google Vizier", KDD 2017 (the median rule that ends a trial).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlkit import recipe_space
from dlkit.data.randomness import fold
from dlkit.engine.run_folder import RunFolder
from dlkit.errors import DivergedError, DlkitError, OutOfMemoryError, UsageError
from dlkit.recipe import Recipe, over
from dlkit.recipe_space import Choice, Parameter, Values
from dlkit.verbs import trainings
from dlkit.verbs.trainings import Say

if TYPE_CHECKING:
    from optuna import Study
    from optuna import Trial as Asked

ENOUGH_FOR_IMPORTANCE = 16  # finished trials
FINISHED, PRUNED, DIVERGED, NO_MEMORY = "finished", "pruned", "diverged", "out of memory"


class PrunedError(DlkitError):
    """A trial was ended, as those before it were better at that epoch. It leaves this file in no other way."""


@dataclass(frozen=True)
class Trial:
    """What a trial tried, and what it reached: the monitored metric at its best, and the epoch of that."""

    number: int
    run: str
    state: str
    value: float | None
    epoch: int | None
    parameters: Values


@dataclass(frozen=True)
class Plan:
    """A sweep as it was asked for, and whom its trainings speak to."""

    folder: Path
    recipe: Recipe
    space: tuple[Parameter, ...]
    pruning: bool
    trials: int
    argv: Sequence[str]
    say: Say
    progress: bool


Result = tuple[tuple[Trial, ...], Mapping[str, float]]  # the trials, and how much each parameter mattered


def lower_is_better(recipe: Recipe) -> bool:
    """Whether the monitored metric is one to be made small."""
    return recipe.train.monitor.endswith("loss")


def run_trials(plan: Plan, note: Callable[[Sequence[Trial]], None]) -> Result:
    """Every trial in its turn; `note` writes down those that have ended, each time that one more has."""
    from optuna.pruners import MedianPruner, NopPruner
    from optuna.samplers import TPESampler
    from optuna.study import StudyDirection, create_study

    direction = StudyDirection.MINIMIZE if lower_is_better(plan.recipe) else StudyDirection.MAXIMIZE
    unjudged = 1 + plan.recipe.train.epochs // 10  # the first tenth of the epochs says little
    pruner = MedianPruner(n_warmup_steps=unjudged) if plan.pruning else NopPruner()
    done: list[Trial] = []
    with _quiet_optuna():
        study = create_study(direction=direction, pruner=pruner)
        for number in range(plan.trials):
            study.sampler = TPESampler(seed=fold(plan.recipe.train.seed, number) % 2**32)
            done.append(_trial(plan, study, number, done))
            note(done)
        return tuple(done), _importance(study, plan.space)


class _Course:
    """A trial's monitored metric, epoch by epoch, told to Optuna as it comes."""

    def __init__(self, asked: Asked, recipe: Recipe) -> None:
        self.asked, self.metric, self.lowest_is_best = asked, recipe.train.monitor, lower_is_better(recipe)
        self.epochs = recipe.train.epochs  # of this trial, where they vary
        self.values: dict[int, float] = {}

    def note(self, line: Mapping[str, Any]) -> None:
        """A line of metrics.jsonl. Those of an epoch's end alone count: they hold the weights' digest."""
        value, epoch = line.get(self.metric), line["epoch"]
        if "weights_sha256" in line and epoch not in self.values and value is not None and math.isfinite(value):
            self.values[epoch] = value
            self.asked.report(value, epoch)

    def watch(self, line: Mapping[str, Any]) -> None:
        """A line as it is logged.

        Raises:
            PrunedError: the trials before this one were better at this epoch.
        """
        self.note(line)
        epoch = line["epoch"]
        if epoch in self.values and epoch < self.epochs and self.asked.should_prune():
            told = f"{self.metric} {self.values[epoch]:.4f} is worse than the median of the trials before"
            raise PrunedError(f"pruned after epoch {epoch} of {self.epochs}: {told}")

    def best(self) -> tuple[float | None, int | None]:
        """The metric at its best, and the epoch of that."""
        choose = min if self.lowest_is_best else max
        epoch = choose(self.values, key=self.values.__getitem__, default=None)
        return (None, None) if epoch is None else (self.values[epoch], epoch)


def _trial(plan: Plan, study: Study, number: int, before: Sequence[Trial]) -> Trial:
    """One trial: drawn, or what its run folder says was drawn; then trained, or gone on with, or left as it is.

    One that draws what was drawn before is not trained: it would end with the same bits.
    """
    from optuna.trial import TrialState

    run = RunFolder(plan.folder / f"trial-{number:03}")
    title = f"trial {number + 1} of {plan.trials}, {run.name}"
    there = trainings.state_of(run) != trainings.TO_DO
    if there:
        study.enqueue_trial(_known(run, plan.space))
    asked = study.ask()
    values, course = _drawn(asked, plan.space), _Course(asked, plan.recipe)
    found = next((trial for trial in before if trial.parameters == values), None)
    if found is not None:
        plan.say(f"{title}: the same as {found.run}")
        found = replace(found, number=number)
    else:
        for line in run.metrics() if there else ():
            course.note(line)
        state = _trained(plan, run, values, course, title)
        found = Trial(number, run.name, state, *course.best(), values)
    if found.state == FINISHED:
        study.tell(asked, found.value)
    else:
        study.tell(asked, state=TrialState.PRUNED)  # one that diverged too, so that its neighbours are drawn less
    return found


def _known(run: RunFolder, space: Sequence[Parameter]) -> dict[str, Any]:
    """What a run's recipe has for the parameters, as Optuna knows it."""
    recipe, values = run.recipe(), dict[str, Any]()
    for parameter in space:
        if recipe_space.active(parameter, values):
            value = recipe_space.value_in(recipe, parameter.key)
            if isinstance(parameter, Choice) and value not in parameter.values:
                raise UsageError(f"{run.path} has {parameter.key} {value}, which is none of the choices. Move it away.")
            values[parameter.key] = value
    return {parameter.key: recipe_space.named(parameter, values) for parameter in space if parameter.key in values}


def _drawn(asked: Asked, space: Sequence[Parameter]) -> dict[str, Any]:
    """A value for each parameter that does something beside the others."""
    values: dict[str, Any] = {}
    for parameter in space:
        if recipe_space.active(parameter, values):
            values[parameter.key] = _suggested(asked, parameter)
    return values


def _suggested(asked: Asked, parameter: Parameter) -> Any:
    if isinstance(parameter, Choice):
        return parameter.named(asked.suggest_categorical(parameter.key, parameter.names))
    if parameter.whole:
        return asked.suggest_int(parameter.key, int(parameter.low), int(parameter.high), log=parameter.log)
    return asked.suggest_float(parameter.key, parameter.low, parameter.high, log=parameter.log)


def _trained(plan: Plan, run: RunFolder, values: Values, course: _Course, title: str) -> str:
    """Have the trial's run trained to its end, wherever that is; returns its state."""
    from dlkit.verbs.train import Watch

    if trainings.state_of(run) == PRUNED:
        plan.say(f"{title}: pruned before")
        return PRUNED
    chosen = over(plan.recipe, recipe_space.settings(plan.space, values))
    course.epochs = chosen.train.epochs
    watch = Watch(line=course.watch) if plan.pruning else Watch(line=course.note)
    told = ", ".join(f"{key}={_shown(value)}" for key, value in values.items())
    try:
        trainings.finish(
            run, chosen, f"{title}: {told}", argv=plan.argv, say=plan.say, progress=plan.progress, watch=watch
        )
    except PrunedError as error:
        run.update(status=PRUNED)
        plan.say(f"{title}: {error}")
        return PRUNED
    except (DivergedError, OutOfMemoryError) as error:
        plan.say(f"warning: {title}: {error}")
        return DIVERGED if isinstance(error, DivergedError) else NO_MEMORY
    if not course.values:
        plan.say(f"warning: {title}: diverged: {course.metric} was never finite")
    return FINISHED if course.values else DIVERGED


def _importance(study: Study, space: Sequence[Parameter]) -> dict[str, float]:
    """How far each parameter told the best third of the trials from the rest: PED-ANOVA (Watanabe et al. 2023)."""
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
    from optuna.trial import TrialState

    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(finished) < ENOUGH_FOR_IMPORTANCE or len(space) < 2:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Optuna: that this is new
        return get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(target_quantile=0.3))


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Optuna logs each study and trial to stderr, where our own lines say it."""
    from optuna import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
