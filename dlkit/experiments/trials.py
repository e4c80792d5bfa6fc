"""The trials of a sweep: proposed by Optuna, trained in run folders, reported back to Optuna from there.

The folders are all the memory there is. Optuna's own is made anew by each call; what trial n tries is a function of the
seed, n and the trials before it, and a trial that was broken off is trained on as its recipe has it.

Golovin et al., "Google Vizier", KDD 2017 (the median rule that ends a trial); Li et al., "Hyperband", JMLR 2018.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dlkit.config import search_space
from dlkit.config.resolve import with_changes, with_settings
from dlkit.config.schema import Recipe
from dlkit.config.search_space import Parameter, Values
from dlkit.errors import DivergedError, DlkitError, OutOfMemoryError
from dlkit.experiments import trainings
from dlkit.experiments.proposals import Sampler, propose, suggested
from dlkit.experiments.trainings import Say
from dlkit.runs.run_folder import RunFolder

if TYPE_CHECKING:
    from optuna import Study
    from optuna import Trial as OptunaTrial
    from optuna.pruners import BasePruner

    from dlkit.training.train import Watch

Pruner = Literal["median", "hyperband", "none"]
FINISHED, PRUNED, DIVERGED, NO_MEMORY = "finished", "pruned", "diverged", "out of memory"
ENDED = (FINISHED, PRUNED, DIVERGED)  # as a run's status


class PrunedError(DlkitError):
    """A trial was ended, as those before it were better at that epoch. It leaves this file in no other way."""


@dataclass(frozen=True)
class Trial:
    """What a trial tried, and the monitored metric at its best and the epoch of that; with several seeds the mean."""

    number: int
    run: str  # of the first seed
    state: str
    value: float | None
    epoch: int | None  # of the first seed
    parameters: Values
    values: tuple[float, ...] = ()  # one per seed


@dataclass(frozen=True)
class Plan:
    """A sweep as it was ordered, and where its trainings report to."""

    folder: Path
    recipe: Recipe
    space: tuple[Parameter, ...]
    trials: int
    argv: Sequence[str]
    say: Say
    progress: bool
    sampler: Sampler = "tpe"
    pruner: Pruner = "median"
    seeds: int = 1  # trainings per trial
    guesses: tuple[Values, ...] = ()  # to try first

    def run(self, number: int, seed: int = 0) -> RunFolder:
        """The run of a trial's first seed, or of the one so many above it."""
        name = f"trial-{number:03}"
        return RunFolder(self.folder / (f"{name}-seed{self.recipe.train.seed + seed}" if seed else name))

    def recipe_of(self, values: Values, seed: int = 0) -> Recipe:
        """The recipe with these values, under the first seed or the one so many above it."""
        chosen = with_settings(self.recipe, search_space.settings(self.space, values))
        return with_changes(chosen, {"train.seed": self.recipe.train.seed + seed}) if seed else chosen


def lower_is_better(recipe: Recipe) -> bool:
    """Whether the monitored metric is one to be made small."""
    return recipe.train.monitor.endswith("loss")


def run_trials(
    plan: Plan, recorded: Sequence[Trial], note: Callable[[Sequence[Trial]], None]
) -> tuple[tuple[Trial, ...], Study]:
    """Every trial in its turn; `note` writes down those that have ended, each time that one more has.

    `recorded` are those that were noted before: what they tried is tried again if their runs are gone.
    """
    from optuna.samplers import RandomSampler
    from optuna.study import StudyDirection, create_study

    direction = StudyDirection.MINIMIZE if lower_is_better(plan.recipe) else StudyDirection.MAXIMIZE
    total, done = _total(plan, recorded), list[Trial]()
    with _quiet_optuna():
        study = create_study(
            direction=direction, pruner=_pruner(plan), sampler=RandomSampler(seed=0), study_name="sweep"
        )
        while len(done) < total:
            values = _values(plan, study, done, recorded)
            if values is None:
                plan.say(f"all {len(done)} combinations have been tried: there are no more trials")
                break
            done.append(_trial(plan, study, len(done), total, values))
            note(done)
    return tuple(done), study


def existing(plan: Plan) -> Iterator[tuple[RunFolder, Recipe]]:
    """The runs that are there, with the recipes that they should have been trained with."""
    for path in sorted(plan.folder.iterdir()):
        named = re.fullmatch(r"(?:trial|confirm)-[0-9]+(?:-seed([0-9]+))?", path.name)
        if named and (path / "run.json").is_file():
            seed = int(named[1]) - plan.recipe.train.seed if named[1] else 0
            yield RunFolder(path), plan.recipe_of(_known(plan, RunFolder(path)), seed)


def _total(plan: Plan, recorded: Sequence[Trial]) -> int:
    """How many trials there will be: those ordered, or those that are there already if these are more."""
    there = len(recorded)
    while trainings.state_of(plan.run(there)) in ENDED:
        there += 1
    every = search_space.combinations(plan.space)
    if there > plan.trials:
        plan.say(f"{plan.folder} holds {there} trials: --trials {plan.trials} removes none of them")
    return max(plan.trials, there) if every is None else min(max(plan.trials, there), len(every))


def _pruner(plan: Plan) -> BasePruner:
    from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner

    epochs = plan.recipe.train.epochs
    if plan.pruner == "median":
        return MedianPruner(n_warmup_steps=1 + epochs // 10)  # the first tenth of the epochs says little
    return HyperbandPruner(min_resource=1, max_resource=epochs) if plan.pruner == "hyperband" else NopPruner()


class _Course:
    """A trial's monitored metric, epoch by epoch, reported to Optuna as it comes."""

    def __init__(self, trial: OptunaTrial | None, recipe: Recipe) -> None:
        self.trial, self.metric, self.lowest_is_best = trial, recipe.train.monitor, lower_is_better(recipe)
        self.epochs = recipe.train.epochs
        self.values: dict[int, float] = {}
        self.hopeless: set[int] = set()  # epochs at which the pruner would end the trial

    def note(self, line: Mapping[str, Any]) -> None:
        """A line of metrics.jsonl; only those of an epoch's end count, which hold the weights' digest.

        The pruner is asked about each of them once, when a run is read back too: it remembers what it was asked.
        """
        value, epoch = line.get(self.metric), line["epoch"]
        if "weights_sha256" not in line or epoch in self.values or value is None or not math.isfinite(value):
            return
        self.values[epoch] = value
        if self.trial is not None:
            self.trial.report(value, epoch)
            if epoch < self.epochs and self.trial.should_prune():
                self.hopeless.add(epoch)

    def watch(self, line: Mapping[str, Any]) -> None:
        """A line as it is logged, which may be again after a resume.

        Raises:
            PrunedError: the trials before this one were better at this epoch.
        """
        self.note(line)
        epoch = line["epoch"]
        if epoch in self.hopeless and "weights_sha256" in line:
            reason = f"{self.metric} {self.values[epoch]:.4f} is worse than others were"
            raise PrunedError(f"pruned after epoch {epoch} of {self.epochs}: {reason}")

    def best(self) -> tuple[float | None, int | None]:
        """The metric at its best, and the epoch of that."""
        choose = min if self.lowest_is_best else max
        epoch = choose(self.values, key=self.values.__getitem__, default=None)
        return (None, None) if epoch is None else (self.values[epoch], epoch)


def _values(plan: Plan, study: Study, done: Sequence[Trial], recorded: Sequence[Trial]) -> Values | None:
    """What the next trial tries: as its run has it, as it was recorded, or something new."""
    run = plan.run(len(done))
    if trainings.state_of(run) != trainings.TO_DO:
        return _known(plan, run)
    tried = [trial.parameters for trial in done]
    recalled = [trial.parameters for trial in recorded if trial.number == len(done)]
    return propose(study, plan.sampler, plan.space, plan.recipe.train.seed, tried, [*recalled, *plan.guesses])


def _known(plan: Plan, run: RunFolder) -> Values:
    recipe = run.recipe()
    own = {parameter.key: search_space.value_in(recipe, parameter.key) for parameter in plan.space}
    return search_space.within(plan.space, own, f"{run.path} holds a trial of another sweep")


def _trial(plan: Plan, study: Study, number: int, total: int, values: Values) -> Trial:
    """One trial: trained under each seed in turn, or trained on, or read back as it is."""
    from optuna.trial import TrialState

    study.enqueue_trial({p.key: search_space.named(p, values) for p in plan.space if p.key in values})
    asked = study.ask()
    suggested(asked, plan.space)
    title = f"trial {number + 1} of {total}, {plan.run(number).name}"
    courses: list[_Course] = []
    for seed in range(plan.seeds):
        courses.append(_Course(None if seed else asked, plan.recipe_of(values)))
        state = _trained(plan, plan.run(number, seed), plan.recipe_of(values, seed), values, courses[-1], title)
        if state != FINISHED:
            break
    best, epoch = courses[0].best()
    reached = tuple(value for value in (course.best()[0] for course in courses) if value is not None)
    if state == FINISHED:
        best = math.fsum(reached) / len(reached)
        study.tell(asked, best)
    else:
        study.tell(asked, state=TrialState.PRUNED)  # one that diverged too, so that its neighbors are drawn less
    return Trial(number, plan.run(number).name, state, best, epoch, values, reached)


def _trained(plan: Plan, run: RunFolder, recipe: Recipe, values: Values, course: _Course, title: str) -> str:
    """Have the trial's run trained to its end, wherever that is; returns its state."""
    for line in run.metrics() if trainings.state_of(run) != trainings.TO_DO else ():
        course.note(line)
    if trainings.state_of(run) == PRUNED:
        plan.say(f"{title}: pruned before")
        return PRUNED
    shown = ", ".join(f"{key}={_shown(value)}" for key, value in values.items())
    seed = f", seed {recipe.train.seed}" if plan.seeds > 1 else ""
    try:
        trainings.finish(
            run, recipe, f"{title}{seed}: {shown}", argv=plan.argv, say=plan.say, progress=plan.progress,
            watch=_watch(course),
        )  # fmt: skip
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


def _watch(course: _Course) -> Watch:
    from dlkit.training.train import Watch

    return Watch(line=course.watch)


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
