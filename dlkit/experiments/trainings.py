"""Several trainings in one folder, each finished once: the common part of ablations, sweeps and groups of seeds.

The same call continues where it stopped: a finished run is not repeated, an interrupted one is resumed. Runs can only
be compared under the same conditions: `check_comparable` refuses a folder whose runs were trained with other data,
packages, device or recipe.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlkit import atomic_io
from dlkit.config import ablation_parts, yaml_file
from dlkit.config.keys import flatten
from dlkit.config.resolve import load, with_absolute_paths
from dlkit.config.schema import MAY_CHANGE_ON_RESUME, Recipe
from dlkit.errors import DataError, DivergedError, StoppedError, UsageError
from dlkit.runs import run_creation
from dlkit.runs.run_folder import RunFolder, is_run

if TYPE_CHECKING:
    from dlkit.data.fingerprint import Files
    from dlkit.training.train import Watch

Say = Callable[[str], None]
NOT_STARTED = "to do"
EPOCHS = "train.epochs"  # may change when a run is resumed, but is then another training


def resolve_weights(recipe: Recipe, runs_dir: Path) -> Recipe:
    """The recipe with its weights run given by path, because its own runs are in another folder."""
    source = recipe.model.weights
    if source is None or not is_run(runs_dir / source):
        return recipe
    return ablation_parts.without(recipe, {"model.weights": str(runs_dir / source)})


def open_folder(folder: Path, recipe: Recipe, what: str) -> None:
    """Create a folder with the recipe in it, or check that an existing one has the same recipe.

    Raises:
        UsageError: the folder has another recipe; `what` is its kind of content.
    """
    path = folder / "recipe.yaml"
    if path.is_file():
        before = with_absolute_paths(load(path)).model_dump()  # older versions stored relative ones
        check_same(before, recipe.model_dump(), f"{folder} has another {what}")
        return
    run_creation.check_new(folder.parent, folder.name)
    with atomic_io.storage_errors(folder):
        folder.mkdir(parents=True)
    atomic_io.write_text(path, yaml_file.dump(recipe))


def check_same(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    what: str,
    advice: str = "Use another --name, or the same flags to continue.",
) -> None:
    """Raises: UsageError that names the first keys whose values differ."""
    old, new = flatten(before), flatten(now)
    differences = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    if differences:
        shown = ", ".join(f"{key} was {old.get(key)}, is {new.get(key)}" for key in differences[:3])
        raise UsageError(f"{what}: {shown}. {advice}")


def check_comparable(members: Iterable[tuple[RunFolder, Recipe]], *, retrain: bool, say: Say) -> list[RunFolder]:
    """Check that the existing runs can be compared with new ones; `retrain` removes those that cannot.

    Returns the removed runs.

    Raises:
        DataError: the data changed since a run. UsageError: the recipe, a package or the kind of device changed.
    """
    from dlkit.runs.prune import remove

    current, removed = _CurrentConditions(), []
    for run, recipe in members:
        if state_of(run) == NOT_STARTED:
            continue
        data, others = current.data_change(run, recipe), current.other_change(run, recipe)
        if not (data or others):
            continue
        if not retrain:
            kind = DataError if data else UsageError
            raise kind(
                f"{run.path} is not comparable with a new training: {data or others}. "
                "Use --retrain to train it again, or another --name to start over."
            )
        say(f"warning: {run.path} is trained again: {data or others}")
        remove(run)
        removed.append(run)
    return removed


class _CurrentConditions:
    """The current data, packages and device, each read once."""

    def __init__(self) -> None:
        self._data: dict[str, tuple[Mapping[str, str], Files]] = {}  # of a recipe's data section and seed
        self._devices: dict[str, str] = {}

    def data_change(self, run: RunFolder, recipe: Recipe) -> str:
        """How the training or validation data differ from the run's; "" if they do not."""
        from dlkit.data import fingerprint

        fingerprints, files = self._fingerprints(recipe)
        before = run.info()["data"]
        changed = [name for name, now in fingerprints.items() if before.get(name, {}).get("sha256") != now]
        if not changed:
            return ""
        if files and run.data_files.is_file():
            changes = fingerprint.describe_changes(fingerprint.changes(fingerprint.read_files(run.data_files), files))
            if changes:
                return f"the data changed ({changes})"
        name = changed[0]
        old, new = str(before.get(name, {}).get("sha256"))[:12], fingerprints[name][:12]
        return f"the {name} split changed (SHA-256 {old}…, now {new}…)"

    def other_change(self, run: RunFolder, recipe: Recipe) -> str:
        """The settings, packages and device that differ from the run's; "" if none do."""
        from dlkit.runs import provenance
        from dlkit.training import precision
        from dlkit.training.compatibility import changed_settings

        info = run.info()
        changes = changed_settings(info, recipe) or provenance.recipe_differences(
            run.recipe().model_dump(mode="json"), recipe.model_dump(mode="json")
        )
        changes = [change for change in changes if change.name not in MAY_CHANGE_ON_RESUME or change.name == EPOCHS]
        versions = provenance.versions()
        for name in versions.keys() & info["versions"].keys() - {"python"}:
            if versions[name] != info["versions"][name]:
                changes.append(provenance.Difference("package", name, info["versions"][name], versions[name]))
        device = recipe.train.device
        now = self._devices.setdefault(device, precision.choose_device(device).type)
        if now != info["device"]:
            changes.append(provenance.Difference("device", "device", info["device"], now))
        return ", ".join(map(str, changes[:3]))

    def _fingerprints(self, recipe: Recipe) -> tuple[Mapping[str, str], Files]:
        from dlkit.training.inputs import prepare, silent

        data = recipe.data.model_dump(mode="json", exclude={"augment", "workers"})
        key = json.dumps([data, recipe.train.seed], sort_keys=True)
        if key not in self._data:
            prepared = prepare(recipe, silent)
            self._data[key] = prepared.fingerprints, prepared.files
        return self._data[key]


def state_of(run: RunFolder) -> str:
    """ "to do", or the status of the run: running (or killed), stopped, failed, diverged, finished."""
    return run.status() if is_run(run.path) else NOT_STARTED


def finish(
    run: RunFolder,
    recipe: Recipe,
    title: str,
    *,
    argv: Sequence[str],
    say: Say,
    progress: bool,
    watch: Watch | None = None,
) -> None:
    """Train or resume the run unless it is finished.

    Raises:
        DivergedError: it diverged, now or before. StoppedError: call again to continue.
        UsageError: the run has another recipe.
    """
    from dlkit.training.train import NOBODY, resume_run, train_recipe

    state, watch = state_of(run), watch or NOBODY
    if state != NOT_STARTED:
        before = with_absolute_paths(run.recipe()).model_dump()
        check_same(before, recipe.model_dump(), f"{run.path} has another recipe", "Move it away.")
    if state == "diverged":
        raise DivergedError(str(run.info().get("error", "training diverged")))
    if state == "finished":
        say(f"{title}: finished before")
        return
    say(title)
    try:
        if state == NOT_STARTED:
            train_recipe(
                recipe, name=run.path.name, runs_dir=run.path.parent, argv=argv, say=say, progress=progress, watch=watch
            )
        else:
            resume_run(run, changes={}, inexact=False, say=say, progress=progress, argv=argv, watch=watch)
    except StoppedError as error:
        advice = f"{title}: stopped; everything is saved. The same command continues."
        raise StoppedError(advice, error.exit_code - 128) from error


def resolution(run: RunFolder) -> float:
    """The step of the monitored metric: one validation sample of an accuracy; 0 for a loss or a mean over classes."""
    is_count = run.recipe().train.monitor.startswith("val/top")
    return 1 / int(run.info()["data"]["validation"]["samples"]) if is_count else 0.0
