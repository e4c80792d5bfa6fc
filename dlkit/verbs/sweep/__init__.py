"""Which settings train best: trials drawn by Optuna, the hopeless ones ended early, the best written as a recipe.

A sweep is a folder of run folders, `trial-000`, `trial-001`, …, with recipe.yaml (what all share), sweep.json,
sweep.csv, parallel.png and best.yaml. One that was killed and called again ends like one that was not, and one may ask
for more trials later. A trial's value is the monitored metric at its best epoch: the best of many such values flatters,
so judge the winner on the test split.
"""

from __future__ import annotations

import csv
import io
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dlkit import durable, exported, recipe_file, recipe_space
from dlkit.engine.run_folder import RunFolder
from dlkit.errors import DivergedError, UsageError
from dlkit.recipe import Recipe, over
from dlkit.recipe_space import Parameter
from dlkit.verbs import trainings
from dlkit.verbs.sweep.trials import FINISHED, Plan, Trial, lower_is_better, run_trials
from dlkit.verbs.trainings import Say

SCHEMA = "dlkit.sweep/1"
MOST_TRIALS = 10_000
NETWORKS_BUILT = 32  # with ends of the space, before anything is trained
BEST = "best.yaml"


@dataclass(frozen=True)
class Sweep:
    """What a sweep found."""

    folder: Path
    recipe: Recipe
    space: tuple[Parameter, ...]
    pruning: bool
    trials: tuple[Trial, ...]
    importance: Mapping[str, float]  # of each parameter, summing to 1; empty where too few trials finished

    @property
    def ranked(self) -> list[Trial]:
        """The trials, the best first; those that were ended early after those that were not."""
        sign = 1 if lower_is_better(self.recipe) else -1

        def place(trial: Trial) -> tuple[bool, float]:
            return trial.state != FINISHED, math.inf if trial.value is None else sign * trial.value

        return sorted(self.trials, key=place)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of what a row holds."""
        return ("trial", "state", self.recipe.train.monitor, "epoch", *(found.key for found in self.space), "run")

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row for each trial, the best first."""
        return [
            {
                "trial": trial.number,
                "state": trial.state,
                self.recipe.train.monitor: trial.value,
                "epoch": trial.epoch,
                **trial.parameters,
                "run": trial.run,
            }
            for trial in self.ranked
        ]

    @property
    def best(self) -> Trial | None:
        """The best of the trials that finished."""
        first = next(iter(self.ranked), None)
        return first if first is not None and first.state == FINISHED else None

    def document(self) -> dict[str, Any]:
        """The JSON form, `dlkit.sweep/1`."""
        best = self.best
        return {
            "schema": SCHEMA,
            "sweep": self.folder.name,
            "model": self.recipe.model.name,
            "dataset": self.recipe.data.name,
            "metric": self.recipe.train.monitor,
            "lower_is_better": lower_is_better(self.recipe),
            "seed": self.recipe.train.seed,
            "pruning": self.pruning,
            "space": {parameter.key: parameter.text for parameter in self.space},
            "trials": [asdict(trial) for trial in self.trials],
            "importance": dict(self.importance),
            "best": None if best is None else {**asdict(best), "recipe": str(self.folder / BEST)},
        }


def sweep(
    recipe: Recipe,
    parameters: Sequence[str],
    *,
    trials: int = 20,
    pruning: bool = True,
    name: str | None = None,
    runs_dir: Path | str = "runs",
    argv: Sequence[str] = (),
    say: Say = lambda text: None,
    progress: bool = False,
) -> Sweep:
    """Train `trials` variants of a recipe; `parameters` say what varies, in the words of recipe_space.

    Raises:
        UsageError: the recipe does not take a parameter; the folder holds another sweep; Optuna is missing.
        DivergedError: no trial finished. BusyError: another process is at it.
        StoppedError and the rest of train's: call again to go on.
    """
    recipe = trainings.found_weights(recipe, Path(runs_dir))
    space = recipe_space.space(recipe, parameters)
    if not 1 <= trials <= MOST_TRIALS:
        raise UsageError(f"--trials {trials}: it is a number of trainings, 1 to {MOST_TRIALS:,}.")
    exported.need(("optuna",), "sweep", "sweep")
    _check_data_and_networks(recipe, space, say)
    folder = Path(runs_dir) / (name or default_name(recipe))
    plan = Plan(folder, recipe, space, pruning, trials, argv, say, progress)
    _open(plan)
    say(f"sweep: {folder}")
    with RunFolder(folder).locked():
        done, importance = run_trials(plan, lambda trials: _note(_so_far(plan, trials)))
        found = _so_far(plan, done, importance)
        _write(found, argv)
    say(f"written into {folder}: sweep.json, sweep.csv, parallel.png" + (f", {BEST}" if found.best else ""))
    if found.best is None:
        raise DivergedError(f"none of the {trials} trials in {folder} finished: nothing is best. Vary less.")
    return found


def default_name(recipe: Recipe) -> str:
    """sweep-lenet5-mnist."""
    return f"sweep-{recipe.model.name.replace('/', '-')}-{recipe.data.name}"


def _check_data_and_networks(recipe: Recipe, space: Sequence[Parameter], say: Say) -> None:
    """Refuse, before hours of training, data that is not there and options that no network or regularizer takes."""
    import torch

    from dlkit import catalog
    from dlkit.engine.restore import build
    from dlkit.verbs.dataset import splits
    from dlkit.verbs.train.materials import refuse_fitted

    refuse_fitted(recipe)
    spec = splits(recipe.data, say=say).spec
    built: list[tuple[Any, ...]] = []
    for values in recipe_space.corners(space):
        chosen = over(recipe, recipe_space.settings(space, values))
        made = (chosen.model, chosen.regularizers)
        if made in built or len(built) == NETWORKS_BUILT:
            continue
        built.append(made)
        try:
            for name, options in chosen.regularizers.items():
                catalog.load("regularizers", name).build(**catalog.resolved_options("regularizers", name, options))
            with torch.device("meta"):
                build(chosen.model.name, spec, dict(chosen.model.options))
        except (UsageError, ValueError) as error:  # torch's own too, about an option's value
            words = [f"{varied.key}={varied.text}" for varied in space if varied.key.startswith(("model.", "regular"))]
            raise UsageError(f"{error} (--param {' '.join(words)})") from error


def _open(plan: Plan) -> None:
    """A new folder, or one that was made for the same sweep; it may ask for more trials than before."""
    trainings.open_folder(plan.folder, plan.recipe, "sweep")
    path, found = plan.folder / "sweep.json", _so_far(plan)
    if not path.is_file():
        _note(found)
        return
    before, now = json.loads(path.read_bytes()), found.document()
    old, new = ({key: document.get(key) for key in ("space", "pruning")} for document in (before, now))
    trainings.refuse_other(old, new, f"{plan.folder} holds another sweep")


def _so_far(plan: Plan, trials: Sequence[Trial] = (), importance: Mapping[str, float] | None = None) -> Sweep:
    return Sweep(plan.folder, plan.recipe, plan.space, plan.pruning, tuple(trials), importance or {})


def _note(found: Sweep) -> None:
    durable.write_json(found.folder / "sweep.json", found.document())


def _write(found: Sweep, argv: Sequence[str]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, found.columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(found.rows)
    durable.write_text(found.folder / "sweep.csv", text.getvalue())
    _draw(found, found.folder / "parallel.png")
    if found.best is not None:
        durable.write_text(found.folder / BEST, _best_recipe(found, found.best, argv))
    _note(found)


def _best_recipe(found: Sweep, best: Trial, argv: Sequence[str]) -> str:
    """The recipe of the best trial, under a few lines about where it comes from."""
    from dlkit.engine.receipts import without_passwords

    recipe = over(found.recipe, recipe_space.settings(found.space, best.parameters))
    command = f"Found by: {shlex.join(['dlkit', *without_passwords(argv)[1:]])}"
    header = [
        f"The best of {len(found.trials)} trials of {found.folder.name}: {recipe.model.name} on {recipe.data.name}.",
        f"{found.recipe.train.monitor} {best.value:.4f} at epoch {best.epoch} of {best.run}, seed {recipe.train.seed}.",
        "The best of many flatters: test it on images that no trial has seen.",
        *([command] if argv else []),
        "Varied:",
        *(f"  {varied.key}={varied.text}" for varied in found.space),
    ]
    lines = ("# " + "".join(letter if letter.isprintable() else "?" for letter in line) for line in header)
    return "\n".join(lines) + "\n" + recipe_file.dump(recipe)


def _draw(found: Sweep, path: Path) -> None:
    from dlkit.verbs.sweep.parallel import Trace, parallel, upright

    uprights = [
        upright(varied, all(varied.key in trial.parameters for trial in found.trials)) for varied in found.space
    ]
    traces = [
        Trace(
            [recipe_space.named(varied, trial.parameters) for varied in found.space],
            trial.value,
            trial.state == FINISHED,
        )
        for trial in reversed(found.ranked)
    ]
    title = f"{found.recipe.model.name} on {found.recipe.data.name}: {len(traces)} trials"
    parallel(uprights, traces, title, found.recipe.train.monitor, path, lower_is_better=lower_is_better(found.recipe))
