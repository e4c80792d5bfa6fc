"""The trials of a sweep: proposed by Optuna, trained in run folders, and reported to Optuna from there.

The folders are the only storage. Each call creates a new Optuna study; the parameters of trial n are a function of the
seed, n and the trials before it, and an interrupted trial is resumed with its own recipe.

Golovin et al., "Google Vizier", KDD 2017 (the median rule for pruning); Li et al., "Hyperband", JMLR 2018.
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
from dlkit.experiments.proposals import Sampler, propose, suggest
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
    """A trial was pruned, because earlier ones were better at that epoch. Only raised and caught in this file."""


@dataclass(frozen=True)
class SweepTrial:
    """A trial's parameters, and its best monitored metric with the epoch; for several seeds the mean."""

    number: int
    run: str  # of the first seed
    state: str
    value: float | None
    epoch: int | None  # of the first seed
    parameters: Values
    values: tuple[float, ...] = ()  # one per seed


@dataclass(frozen=True)
class SweepPlan:
    """The configuration of a sweep."""

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
    initial_values: tuple[Values, ...] = ()  # tried first

    def run(self, number: int, seed: int = 0) -> RunFolder:
        """The run of a trial; `seed` is an offset from the first seed."""
        name = f"trial-{number:03}"
        return RunFolder(self.folder / (f"{name}-seed{self.recipe.train.seed + seed}" if seed else name))

    def recipe_of(self, values: Values, seed: int = 0) -> Recipe:
        """The recipe with these values; `seed` is an offset from the first seed."""
        selected = with_settings(self.recipe, search_space.settings(self.space, values))
        return with_changes(selected, {"train.seed": self.recipe.train.seed + seed}) if seed else selected


def lower_is_better(recipe: Recipe) -> bool:
    """Whether the monitored metric is minimized."""
    return recipe.train.monitor.endswith("loss")


def run_trials(
    plan: SweepPlan, previous: Sequence[SweepTrial], record: Callable[[Sequence[SweepTrial]], None]
) -> tuple[tuple[SweepTrial, ...], Study]:
    """Run all trials in order; `record` is called with the completed ones after each.

    `previous` are the recorded trials: their parameters are tried again if their runs are missing.
    """
    from optuna.samplers import RandomSampler
    from optuna.study import StudyDirection, create_study

    direction = StudyDirection.MINIMIZE if lower_is_better(plan.recipe) else StudyDirection.MAXIMIZE
    total, done = _total(plan, previous), list[SweepTrial]()
    with _silence_optuna():
        study = create_study(
            direction=direction, pruner=_pruner(plan), sampler=RandomSampler(seed=0), study_name="sweep"
        )
        while len(done) < total:
            values = _next_parameters(plan, study, done, previous)
            if values is None:
                plan.say(f"all {len(done)} combinations have been tried")
                break
            done.append(_trial(plan, study, len(done), total, values))
            record(done)
    return tuple(done), study


def existing_runs(plan: SweepPlan) -> Iterator[tuple[RunFolder, Recipe]]:
    """The existing runs, with the recipes that they should have."""
    for path in sorted(plan.folder.iterdir()):
        match = re.fullmatch(r"(?:trial|confirm)-[0-9]+(?:-seed([0-9]+))?", path.name)
        if match and (path / "run.json").is_file():
            seed = int(match[1]) - plan.recipe.train.seed if match[1] else 0
            yield RunFolder(path), plan.recipe_of(_parameters_of(plan, RunFolder(path)), seed)


def _total(plan: SweepPlan, previous: Sequence[SweepTrial]) -> int:
    """The number of trials: the requested one, or that of the existing trials if it is larger."""
    existing = len(previous)
    while trainings.state_of(plan.run(existing)) in ENDED:
        existing += 1
    combinations = search_space.combinations(plan.space)
    if existing > plan.trials:
        plan.say(f"{plan.folder} has {existing} trials: --trials {plan.trials} does not remove any")
    total = max(plan.trials, existing)
    return total if combinations is None else min(total, len(combinations))


def _pruner(plan: SweepPlan) -> BasePruner:
    from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner

    epochs = plan.recipe.train.epochs
    if plan.pruner == "median":
        return MedianPruner(n_warmup_steps=1 + epochs // 10)  # the first tenth of the epochs is not informative
    return HyperbandPruner(min_resource=1, max_resource=epochs) if plan.pruner == "hyperband" else NopPruner()


class _TrialMonitor:
    """A trial's monitored metric, reported to Optuna epoch by epoch."""

    def __init__(self, trial: OptunaTrial | None, recipe: Recipe) -> None:
        self.trial, self.metric, self.minimize = trial, recipe.train.monitor, lower_is_better(recipe)
        self.epochs = recipe.train.epochs
        self.values: dict[int, float] = {}
        self.pruned_epochs: set[int] = set()  # at which the pruner would end the trial

    def record(self, line: Mapping[str, Any]) -> None:
        """Record a line of metrics.jsonl; only lines at the end of an epoch count, which have the weights' digest.

        The pruner is consulted once for each, also when the log of a run is read: it depends on its earlier calls.
        """
        value, epoch = line.get(self.metric), line["epoch"]
        if "weights_sha256" not in line or epoch in self.values or value is None or not math.isfinite(value):
            return
        self.values[epoch] = value
        if self.trial is not None:
            self.trial.report(value, epoch)
            if epoch < self.epochs and self.trial.should_prune():
                self.pruned_epochs.add(epoch)

    def on_line(self, line: Mapping[str, Any]) -> None:
        """Record a line during training; after a resume a line may be repeated.

        Raises:
            PrunedError: earlier trials were better at this epoch.
        """
        self.record(line)
        epoch = line["epoch"]
        if epoch in self.pruned_epochs and "weights_sha256" in line:
            reason = f"{self.metric} {self.values[epoch]:.4f} is worse than in earlier trials"
            raise PrunedError(f"pruned after epoch {epoch} of {self.epochs}: {reason}")

    def best(self) -> tuple[float | None, int | None]:
        """The best value of the metric, and its epoch."""
        choose = min if self.minimize else max
        epoch = choose(self.values, key=self.values.__getitem__, default=None)
        return (None, None) if epoch is None else (self.values[epoch], epoch)


def _next_parameters(
    plan: SweepPlan, study: Study, done: Sequence[SweepTrial], previous: Sequence[SweepTrial]
) -> Values | None:
    """The parameters of the next trial: those of its run, the recorded ones, or new ones."""
    run = plan.run(len(done))
    if trainings.state_of(run) != trainings.NOT_STARTED:
        return _parameters_of(plan, run)
    tried = [trial.parameters for trial in done]
    recalled = [trial.parameters for trial in previous if trial.number == len(done)]
    return propose(study, plan.sampler, plan.space, plan.recipe.train.seed, tried, [*recalled, *plan.initial_values])


def _parameters_of(plan: SweepPlan, run: RunFolder) -> Values:
    recipe = run.recipe()
    own = {parameter.key: search_space.value_in(recipe, parameter.key) for parameter in plan.space}
    return search_space.within(plan.space, own, f"{run.path} is a trial of another sweep")


def _trial(plan: SweepPlan, study: Study, number: int, total: int, values: Values) -> SweepTrial:
    """One trial under each seed: trained, resumed, or read if it is finished."""
    from optuna.trial import TrialState

    study.enqueue_trial({p.key: search_space.named(p, values) for p in plan.space if p.key in values})
    optuna_trial = study.ask()
    suggest(optuna_trial, plan.space)
    title = f"trial {number + 1} of {total}, {plan.run(number).name}"
    monitors: list[_TrialMonitor] = []
    for seed in range(plan.seeds):
        monitors.append(_TrialMonitor(None if seed else optuna_trial, plan.recipe_of(values)))
        state = _train(plan, plan.run(number, seed), plan.recipe_of(values, seed), values, monitors[-1], title)
        if state != FINISHED:
            break
    best, epoch = monitors[0].best()
    values_by_seed = tuple(value for value in (monitor.best()[0] for monitor in monitors) if value is not None)
    if state == FINISHED:
        best = math.fsum(values_by_seed) / len(values_by_seed)
        study.tell(optuna_trial, best)
    else:
        study.tell(
            optuna_trial, state=TrialState.PRUNED
        )  # diverged trials too, so that similar parameters are sampled less
    return SweepTrial(number, plan.run(number).name, state, best, epoch, values, values_by_seed)


def _train(plan: SweepPlan, run: RunFolder, recipe: Recipe, values: Values, monitor: _TrialMonitor, title: str) -> str:
    """Train or resume the trial's run; returns its state."""
    for line in run.metrics() if trainings.state_of(run) != trainings.NOT_STARTED else ():
        monitor.record(line)
    if trainings.state_of(run) == PRUNED:
        plan.say(f"{title}: already pruned")
        return PRUNED
    settings = ", ".join(f"{key}={_format_value(value)}" for key, value in values.items())
    seed = f", seed {recipe.train.seed}" if plan.seeds > 1 else ""
    try:
        trainings.finish(
            run, recipe, f"{title}{seed}: {settings}", argv=plan.argv, say=plan.say, progress=plan.progress,
            watch=_callbacks(monitor),
        )  # fmt: skip
    except PrunedError as error:
        run.update(status=PRUNED)
        plan.say(f"{title}: {error}")
        return PRUNED
    except (DivergedError, OutOfMemoryError) as error:
        plan.say(f"warning: {title}: {error}")
        return DIVERGED if isinstance(error, DivergedError) else NO_MEMORY
    if not monitor.values:
        plan.say(f"warning: {title}: diverged: {monitor.metric} was never finite")
    return FINISHED if monitor.values else DIVERGED


def _callbacks(monitor: _TrialMonitor) -> Watch:
    from dlkit.training.train import Watch

    return Watch(line=monitor.on_line)


@contextmanager
def _silence_optuna() -> Iterator[None]:
    """Optuna logs each study and trial to stderr, in addition to our own messages."""
    from optuna import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _format_value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
