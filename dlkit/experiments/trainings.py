"""Many trainings in one folder, each finished once: what an ablation, a sweep and a group of seeds share.

The same call goes on where it stopped: a run that has finished is not repeated, one that was broken off is resumed.
Trainings that are compared must have been made alike: `check_alike` refuses a folder in which the data, the packages,
the device or a recipe are no longer those of the runs that are there.
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
TO_DO = "to do"
EPOCHS = "train.epochs"  # may change when a run goes on, but makes another training of it


def found_weights(recipe: Recipe, runs_dir: Path) -> Recipe:
    """The recipe with a run that it starts from by its path, as its own runs lie elsewhere."""
    source = recipe.model.weights
    if source is None or not is_run(runs_dir / source):
        return recipe
    return ablation_parts.without(recipe, {"model.weights": str(runs_dir / source)})


def open_folder(folder: Path, recipe: Recipe, what: str) -> None:
    """A new folder with the recipe in it, or one that was made for the same recipe.

    Raises:
        UsageError: it was made for another one; `what` says what it holds.
    """
    path = folder / "recipe.yaml"
    if path.is_file():
        before = with_absolute_paths(load(path)).model_dump()  # older versions noted relative ones
        refuse_other(before, recipe.model_dump(), f"{folder} holds another {what}")
        return
    run_creation.check_new(folder.parent, folder.name)
    with atomic_io.storage_errors(folder):
        folder.mkdir(parents=True)
    atomic_io.write_text(path, yaml_file.dump(recipe))


def refuse_other(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    what: str,
    advice: str = "Give another --name, or the same flags to go on.",
) -> None:
    """Raises: UsageError that names the first keys with another value than before."""
    old, new = flatten(before), flatten(now)
    differences = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    if differences:
        shown = ", ".join(f"{key} was {old.get(key)}, is {new.get(key)}" for key in differences[:3])
        raise UsageError(f"{what}: {shown}. {advice}")


def check_alike(members: Iterable[tuple[RunFolder, Recipe]], *, retrain: bool, say: Say) -> list[RunFolder]:
    """Make sure that the runs that exist can be compared with those to come; `retrain` removes those that cannot.

    Returns the runs that were removed.

    Raises:
        DataError: the data changed since one of them. UsageError: its recipe, a package or the kind of device did.
    """
    from dlkit.runs.prune import remove

    current, removed = _Current(), []
    for run, recipe in members:
        if state_of(run) == TO_DO:
            continue
        data, others = current.data_change(run, recipe), current.other_change(run, recipe)
        if not (data or others):
            continue
        if not retrain:
            kind = DataError if data else UsageError
            raise kind(
                f"{run.path} cannot be compared with a training of today: {data or others}. "
                "--retrain trains again what differs; another --name starts over."
            )
        say(f"warning: {run.path} is trained again: {data or others}")
        remove(run)
        removed.append(run)
    return removed


class _Current:
    """The data, the packages and the device as they are now, each read once."""

    def __init__(self) -> None:
        self._data: dict[str, tuple[Mapping[str, str], Files]] = {}  # of a recipe's data section and seed
        self._devices: dict[str, str] = {}

    def data_change(self, run: RunFolder, recipe: Recipe) -> str:
        """How the training or validation data differ from those of the run; "" if they do not."""
        from dlkit.data import fingerprint

        fingerprints, files = self._fingerprints(recipe)
        before = run.info()["data"]
        changed = [name for name, now in fingerprints.items() if before.get(name, {}).get("sha256") != now]
        if not changed:
            return ""
        if files and run.data_files.is_file():
            changes = fingerprint.told(fingerprint.changes(fingerprint.read_files(run.data_files), files))
            if changes:
                return f"the data changed ({changes})"
        name = changed[0]
        old, new = str(before.get(name, {}).get("sha256"))[:12], fingerprints[name][:12]
        return f"the {name} split changed (SHA-256 {old}…, now {new}…)"

    def other_change(self, run: RunFolder, recipe: Recipe) -> str:
        """The settings, packages and device that are not what they were for the run; "" if there are none."""
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
    return run.status() if is_run(run.path) else TO_DO


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
    """Have the run finished: train it, go on with it, or leave it as it is.

    Raises:
        DivergedError: it diverged, now or before. StoppedError: call again to go on.
        UsageError: the run is of another recipe.
    """
    from dlkit.training.train import NOBODY, resume_run, train_recipe

    state, watch = state_of(run), watch or NOBODY
    if state != TO_DO:
        before = with_absolute_paths(run.recipe()).model_dump()
        refuse_other(before, recipe.model_dump(), f"{run.path} is of another recipe", "Move it away.")
    if state == "diverged":
        raise DivergedError(str(run.info().get("error", "training diverged")))
    if state == "finished":
        say(f"{title}: finished before")
        return
    say(title)
    try:
        if state == TO_DO:
            train_recipe(
                recipe, name=run.path.name, runs_dir=run.path.parent, argv=argv, say=say, progress=progress, watch=watch
            )
        else:
            resume_run(run, changes={}, inexact=False, say=say, progress=progress, argv=argv, watch=watch)
    except StoppedError as error:
        advice = f"{title}: stopped; everything is saved. The same command goes on."
        raise StoppedError(advice, error.exit_code - 128) from error


def resolution(run: RunFolder) -> float:
    """The step of the monitored metric: one validation sample of an accuracy; 0 for a loss or a mean over classes."""
    counted = run.recipe().train.monitor.startswith("val/top")
    return 1 / int(run.info()["data"]["validation"]["samples"]) if counted else 0.0
