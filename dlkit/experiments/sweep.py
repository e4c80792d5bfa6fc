"""Which settings train best: trials drawn by Optuna, the hopeless ones ended early, the best written as a recipe.

A sweep is a folder of run folders, `trial-000`, `trial-001`, …, with recipe.yaml (what all share), sweep.json,
sweep.csv, parallel.png and best.yaml. One that was killed and called again ends like one that was not, and one may ask
for more trials later; fewer remove none. A trial's value is the monitored metric at its best epoch. The best of many
such values is optimistic: confirm it under fresh seeds, and measure the winner on the test split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlkit import documents, export_metadata, statistics
from dlkit.config import search_space
from dlkit.config.resolve import with_settings
from dlkit.config.schema import Recipe
from dlkit.config.search_space import Parameter
from dlkit.errors import DivergedError, ModelFileError, UsageError
from dlkit.experiments import trainings
from dlkit.experiments.confirm import confirm as confirmed
from dlkit.experiments.evidence import Evidence, importance, noise_over_images, noise_over_seeds, tied_with
from dlkit.experiments.proposals import Sampler
from dlkit.experiments.result import BEST as BEST
from dlkit.experiments.result import SCHEMA, write_document, write_files
from dlkit.experiments.result import Sweep as Sweep
from dlkit.experiments.trainings import Say
from dlkit.experiments.trials import FINISHED, Plan, Pruner, Trial, existing, run_trials
from dlkit.runs.run_folder import RunFolder

if TYPE_CHECKING:
    from optuna import Study

MOST_TRIALS = 10_000
NETWORKS_BUILT = 32  # with ends of the space, before anything is trained


def sweep(
    recipe: Recipe,
    parameters: Sequence[str],
    *,
    trials: int = 20,
    sampler: Sampler = "tpe",
    pruner: Pruner = "median",
    seeds_per_trial: int = 1,
    enqueue: Sequence[str] = (),
    confirm: int = 0,
    retrain: bool = False,
    name: str | None = None,
    runs_dir: Path | str = "runs",
    argv: Sequence[str] = (),
    say: Say = lambda text: None,
    progress: bool = False,
) -> Sweep:
    """Train `trials` variants of a recipe; `parameters` say what varies, in the words of recipe_space.

    `enqueue` are guesses to try first. With `seeds_per_trial` a trial's value is the mean over so many seeds. `confirm`
    of the best trials are trained again under fresh seeds. `retrain` trains again what was made with other data,
    packages or settings.

    Raises:
        UsageError: the recipe does not take a parameter; the folder holds another sweep, or runs of other packages;
            Optuna is missing.
        DataError: the data changed meanwhile. DivergedError: no trial finished. BusyError: another process is at it.
        StoppedError and the rest of train's: call again to go on.
    """
    recipe = trainings.found_weights(recipe, Path(runs_dir))
    space = search_space.space(recipe, parameters)
    for flag, value, least in (("trials", trials, 1), ("seeds-per-trial", seeds_per_trial, 1), ("confirm", confirm, 0)):
        if not least <= value <= MOST_TRIALS:
            raise UsageError(f"--{flag} {value} is out of range. Give a number from {least} to {MOST_TRIALS:,}.")
    if sampler == "grid" and search_space.combinations(space) is None:
        raise UsageError("--sampler grid needs choices or short ranges of whole numbers. Write KEY=A,B,C.")
    guesses = tuple(search_space.guess(recipe, space, text) for text in enqueue)
    export_metadata.need(("optuna",), "sweep", "sweep")
    _check_data_and_networks(recipe, space, say)
    folder = Path(runs_dir) / (name or default_name(recipe))
    plan = Plan(
        folder, recipe, space, trials, argv, say, progress, sampler=sampler, pruner=pruner, seeds=seeds_per_trial,
        guesses=guesses,
    )  # fmt: skip
    trainings.open_folder(folder, recipe, "sweep")
    say(f"sweep: {folder}")
    with RunFolder(folder).locked():
        result = _run(plan, _recorded(plan), confirm, retrain)
        write_files(result, argv)
    say(f"written into {folder}: sweep.json, sweep.csv, parallel.png" + (f", {BEST}" if result.best else ""))
    if result.best is None:
        raise DivergedError(f"none of the {len(result.trials)} trials in {folder} finished. Vary less.")
    return result


def _run(plan: Plan, recorded: list[Trial], confirm: int, retrain: bool) -> Sweep:
    removed = {run.path.name for run in trainings.check_alike(existing(plan), retrain=retrain, say=plan.say)}
    recorded = [
        replace(trial, state=trainings.TO_DO, value=None, epoch=None, values=()) if trial.run in removed else trial
        for trial in recorded
    ]
    write_document(Sweep(plan, tuple(recorded)))

    def note(done: Sequence[Trial]) -> None:
        later = [trial for trial in recorded if trial.number >= len(done)]  # not read back yet, but there
        write_document(Sweep(plan, (*done, *later)))

    trials, study = run_trials(plan, recorded, note)
    result = Sweep(plan, trials)
    return replace(result, evidence=_evidence(result, study), confirmed=confirmed(plan, result.ranked, confirm))


def _evidence(result: Sweep, study: Study) -> Evidence:
    finished = [trial for trial in result.trials if trial.state == FINISHED]
    if result.best is None or result.best.value is None:
        return Evidence()
    best, monitor = result.best, result.recipe.train.monitor
    noise, over = noise_over_seeds([trial.values for trial in finished]), "seeds"
    if noise is None and monitor.startswith("val/top"):
        images = RunFolder(result.folder / best.run).info()["data"]["validation"]["samples"]
        noise, over = noise_over_images(best.value or 0.0, images), "images"
    shares, p_values = importance(study, result.space, result.recipe.train.seed)
    others = {trial.number: trial.value for trial in finished if trial is not best and trial.value is not None}
    return Evidence(
        noise=noise,
        noise_over=None if noise is None else over,
        optimism=None if noise is None else noise * statistics.expected_maximum(len(finished)),
        tied=tied_with(best.value or 0.0, others, noise),
        importance=shares,
        importance_p=p_values,
    )


def default_name(recipe: Recipe) -> str:
    """sweep-lenet5-mnist."""
    return f"sweep-{recipe.model.name.replace('/', '-')}-{recipe.data.name}"


def _check_data_and_networks(recipe: Recipe, space: Sequence[Parameter], say: Say) -> None:
    """Refuse, before hours of training, data that is not there and options that no network or regularizer takes."""
    import torch

    from dlkit import registry
    from dlkit.data.library import splits
    from dlkit.training.inputs import refuse_fitted
    from dlkit.training.restore import build

    refuse_fitted(recipe)
    spec = splits(recipe.data, log=say).spec
    _check_validation_data(recipe, space)
    built: list[tuple[Any, ...]] = []
    for values in search_space.corners(space):
        chosen = with_settings(recipe, search_space.settings(space, values))
        made = (chosen.model, chosen.regularizers)
        if made in built or len(built) == NETWORKS_BUILT:
            continue
        built.append(made)
        try:
            for name, options in chosen.regularizers.items():
                registry.load("regularizers", name).build(**registry.resolved_options("regularizers", name, options))
            with torch.device("meta"):
                build(chosen.model.name, spec, dict(chosen.model.options))
        except (UsageError, ValueError) as error:  # torch's own too, about an option's value
            words = [f"{varied.key}={varied.text}" for varied in space if varied.key.startswith(("model.", "regular"))]
            raise UsageError(f"{error} (--param {' '.join(words)})") from error


def _check_validation_data(recipe: Recipe, space: Sequence[Parameter]) -> None:
    """Refuse options of a data set that change the samples by which trials are compared."""
    from dlkit.training.inputs import prepare, silent

    varied = [parameter for parameter in space if parameter.key.startswith("data.options.")]
    options, fingerprints = list[Any](), set[str | None]()
    for values in search_space.corners(space) if varied else ():
        chosen = with_settings(recipe, search_space.settings(space, values))
        if chosen.data.options not in options:
            options.append(chosen.data.options)
            fingerprints.add(prepare(chosen, silent).fingerprints.get("validation"))
        if len(fingerprints) > 1:
            keys = ", ".join(f"--param {parameter.key}={parameter.text}" for parameter in varied)
            raise UsageError(f"{keys} cannot vary: {search_space.SAME_IMAGES}. Fix it with --set.")


def _recorded(plan: Plan) -> list[Trial]:
    """The trials that sweep.json holds.

    Raises:
        UsageError: they are of another sweep. ModelFileError: it is damaged.
    """
    path = plan.folder / "sweep.json"
    if not path.is_file():
        return []
    before = documents.read(path, SCHEMA, advice="Remove it: the runs beside it hold the same.")
    try:
        keys = ("space", "pruning", "pruner", "sampler", "seeds_per_trial")
        known = {"pruner": "median" if before["pruning"] else "none", "sampler": "tpe", "seeds_per_trial": 1, **before}
        old, new = ({key: document.get(key) for key in keys} for document in (known, Sweep(plan, ()).document()))
        trials = before["trials"]
        refused = f"{plan.folder} holds another sweep"
        trainings.refuse_other(old, new, refused)
        return [
            Trial(**{
                **trial, "parameters": search_space.within(plan.space, trial["parameters"], refused),
                "values": tuple(trial.get("values", ())),
            })
            for trial in trials
        ]  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelFileError(f"{path} is damaged: {error}. Remove it: the runs beside it hold the same.") from error
