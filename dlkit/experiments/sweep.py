"""Hyperparameter search: trials proposed by Optuna, the worse ones pruned, the best written as a recipe.

A sweep is a folder of run folders, `trial-000`, `trial-001`, …, with recipe.yaml (their common part), sweep.json,
sweep.csv, parallel.png and best.yaml. A sweep that is interrupted and called again gives the same result, and more
trials can be requested later; fewer remove none. A trial's value is the monitored metric at its best epoch. The best of
many such values is optimistic: confirm it under fresh seeds, and evaluate the winner on the test split.
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
from dlkit.experiments.confirm import confirm as confirm_trials
from dlkit.experiments.evidence import Evidence, find_ties, importance, noise_over_images, noise_over_seeds
from dlkit.experiments.proposals import Sampler
from dlkit.experiments.result import BEST as BEST
from dlkit.experiments.result import SCHEMA, write_document, write_files
from dlkit.experiments.result import Sweep as Sweep
from dlkit.experiments.trainings import Say
from dlkit.experiments.trials import FINISHED, Pruner, SweepPlan, SweepTrial, existing_runs, run_trials
from dlkit.runs.run_folder import RunFolder

if TYPE_CHECKING:
    from optuna import Study

MAX_TRIALS = 10_000
MAX_NETWORKS_CHECKED = 32  # built from corners of the space before training


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
    """Train `trials` variants of a recipe; `parameters` define the search space, as in config.search_space.

    `enqueue` are values to try first. With `seeds_per_trial` a trial's value is the mean over that many seeds. The
    `confirm` best trials are trained again under fresh seeds. `retrain` trains runs with other data, packages or
    settings again.

    Raises:
        UsageError: the recipe does not take a parameter; the folder has another sweep, or runs of other packages;
            Optuna is missing.
        DataError: the data has changed. DivergedError: no trial finished. BusyError: another process uses the folder.
        StoppedError and other errors of train: call again to continue.
    """
    recipe = trainings.resolve_weights(recipe, Path(runs_dir))
    space = search_space.space(recipe, parameters)
    for flag, value, low in (("trials", trials, 1), ("seeds-per-trial", seeds_per_trial, 1), ("confirm", confirm, 0)):
        if not low <= value <= MAX_TRIALS:
            raise UsageError(f"--{flag} {value} is out of range. Use a number from {low} to {MAX_TRIALS:,}.")
    if sampler == "grid" and search_space.combinations(space) is None:
        raise UsageError("--sampler grid needs choices or short ranges of integers. Write KEY=A,B,C.")
    initial_values = tuple(search_space.guess(recipe, space, text) for text in enqueue)
    export_metadata.need(("optuna",), "sweep", "sweep")
    _check_data_and_networks(recipe, space, say)
    folder = Path(runs_dir) / (name or default_name(recipe))
    plan = SweepPlan(
        folder, recipe, space, trials, argv, say, progress, sampler=sampler, pruner=pruner, seeds=seeds_per_trial,
        initial_values=initial_values,
    )  # fmt: skip
    trainings.open_folder(folder, recipe, "sweep")
    say(f"sweep: {folder}")
    with RunFolder(folder).locked():
        result = _run(plan, _read_trials(plan), confirm, retrain)
        write_files(result, argv)
    say(f"wrote {folder}: sweep.json, sweep.csv, parallel.png" + (f", {BEST}" if result.best else ""))
    if result.best is None:
        raise DivergedError(
            f"none of the {len(result.trials)} trials in {folder} finished. Use a smaller search space."
        )
    return result


def _run(plan: SweepPlan, previous: list[SweepTrial], confirm: int, retrain: bool) -> Sweep:
    removed = {run.path.name for run in trainings.check_comparable(existing_runs(plan), retrain=retrain, say=plan.say)}
    previous = [
        replace(trial, state=trainings.NOT_STARTED, value=None, epoch=None, values=())
        if trial.run in removed
        else trial
        for trial in previous
    ]
    write_document(Sweep(plan, tuple(previous)))

    def record(done: Sequence[SweepTrial]) -> None:
        later = [
            trial for trial in previous if trial.number >= len(done)
        ]  # recorded earlier, not yet read in this call
        write_document(Sweep(plan, (*done, *later)))

    trials, study = run_trials(plan, previous, record)
    result = Sweep(plan, trials)
    return replace(result, evidence=_evidence(result, study), confirmed=confirm_trials(plan, result.ranked, confirm))


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
        tied=find_ties(best.value or 0.0, others, noise),
        importance=shares,
        importance_p=p_values,
    )


def default_name(recipe: Recipe) -> str:
    """sweep-lenet5-mnist."""
    return f"sweep-{recipe.model.name.replace('/', '-')}-{recipe.data.name}"


def _check_data_and_networks(recipe: Recipe, space: Sequence[Parameter], say: Say) -> None:
    """Refuse missing data and invalid options of networks and regularizers before hours of training."""
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
        variant = with_settings(recipe, search_space.settings(space, values))
        parts = (variant.model, variant.regularizers)
        if parts in built or len(built) == MAX_NETWORKS_CHECKED:
            continue
        built.append(parts)
        try:
            for name, options in variant.regularizers.items():
                registry.load("regularizers", name).build(**registry.resolved_options("regularizers", name, options))
            with torch.device("meta"):
                build(variant.model.name, spec, dict(variant.model.options))
        except (UsageError, ValueError) as error:  # torch raises ValueError for some options
            words = [f"{varied.key}={varied.text}" for varied in space if varied.key.startswith(("model.", "regular"))]
            raise UsageError(f"{error} (--param {' '.join(words)})") from error


def _check_validation_data(recipe: Recipe, space: Sequence[Parameter]) -> None:
    """Refuse data set options that change the samples on which trials are compared."""
    from dlkit.training.inputs import prepare, silent

    varied = [parameter for parameter in space if parameter.key.startswith("data.options.")]
    options, fingerprints = list[Any](), set[str | None]()
    for values in search_space.corners(space) if varied else ():
        variant = with_settings(recipe, search_space.settings(space, values))
        if variant.data.options not in options:
            options.append(variant.data.options)
            fingerprints.add(prepare(variant, silent).fingerprints.get("validation"))
        if len(fingerprints) > 1:
            keys = ", ".join(f"--param {parameter.key}={parameter.text}" for parameter in varied)
            raise UsageError(f"{keys} cannot vary: {search_space.SAME_IMAGES}. Fix it with --set.")


def _read_trials(plan: SweepPlan) -> list[SweepTrial]:
    """The trials in sweep.json.

    Raises:
        UsageError: it is of another sweep. ModelFileError: it is damaged.
    """
    path = plan.folder / "sweep.json"
    if not path.is_file():
        return []
    before = documents.read(path, SCHEMA, advice="Remove it: the run folders hold the same.")
    try:
        keys = ("space", "pruning", "pruner", "sampler", "seeds_per_trial")
        known = {"pruner": "median" if before["pruning"] else "none", "sampler": "tpe", "seeds_per_trial": 1, **before}
        old, new = ({key: document.get(key) for key in keys} for document in (known, Sweep(plan, ()).document()))
        trials = before["trials"]
        refused = f"{plan.folder} has another sweep"
        trainings.check_same(old, new, refused)
        return [
            SweepTrial(**{
                **trial, "parameters": search_space.within(plan.space, trial["parameters"], refused),
                "values": tuple(trial.get("values", ())),
            })
            for trial in trials
        ]  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelFileError(f"{path} is damaged: {error}. Remove it: the run folders hold the same.") from error
