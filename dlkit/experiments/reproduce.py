"""Reproduction of a run: train its recipe again and compare the hashes of the weights, epoch by epoch.

It stops at the first difference: a setting in recipe.yaml, a data file, the initial weights, or those after an epoch.
Different packages, threads or processors do not stop it, because the weights may still be the same: they are reported
at the start, and again if the weights differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from dlkit.config.resolve import with_changes
from dlkit.config.schema import Recipe
from dlkit.data.fingerprint import FileChange, describe_changes
from dlkit.errors import ModelFileError, StoppedError, UsageError, VerificationError
from dlkit.runs import run_creation
from dlkit.runs.data_of_run import recipe_of_run
from dlkit.runs.provenance import Difference, environment_differences
from dlkit.runs.run_folder import RunFolder
from dlkit.training.compatibility import changed_files, changed_settings
from dlkit.training.inputs import Materials, Say, refuse_fitted, silent
from dlkit.training.train import Watch, resume_run, train_recipe

SCHEMA = "dlkit.reproduce/1"
# Changes on resume that do not affect the weights.
HARMLESS = ("train.track", "train.log_every", "train.checkpoint_every", "train.keep", "data.workers")


class MismatchError(VerificationError):
    """Raised at the first difference."""

    def __init__(self, difference: Difference) -> None:
        super().__init__(f"not reproduced: {difference}.")
        self.difference = difference


@dataclass(frozen=True)
class Reproduction:
    """The number of epochs with equal weights, and the first difference, if any."""

    run: str
    reproduced: str | None  # the new run's folder; None if it stopped before there was one
    epochs: int  # with equal weights
    compared: int  # requested epochs
    weights_sha256: str | None  # after the last equal epoch
    difference: Difference | None
    environment: tuple[Difference, ...]  # differences that do not stop it

    @property
    def equal(self) -> bool:
        return self.difference is None

    def document(self) -> dict[str, Any]:
        """The JSON form, `dlkit.reproduce/1`."""
        return {"schema": SCHEMA, "equal": self.equal, **asdict(self)}

    def verdict(self) -> str:
        """The result in a sentence."""
        others = "".join(f"; {difference}" for difference in self.environment)
        if self.difference is None:
            equal = f"{self.epochs} of {self.compared} epochs have equal weights (SHA-256 {self.weights_sha256})"
            return f"run {self.run} is reproduced: {equal}{others and ', although' + others[1:]}."
        before = f"after {self.epochs} equal epochs, " if self.epochs else ""
        return f"run {self.run} is not reproduced: {before}{self.difference}{others}."


@dataclass
class ReproductionMonitor:
    """Compares a training with a run while it proceeds, and stops it at the first difference."""

    run: RunFolder
    hashes: Mapping[int, str]  # epoch → SHA-256 of its weights
    say: Say
    epochs: int = 0  # equal so far
    environment: list[Difference] = field(default_factory=list)

    def data(self, materials: Materials) -> None:
        """Compare every split, and the files."""
        data, before = materials.data, self.run.info()["data"]
        changes = changed_files(self.run, data)
        if changes:
            if len(changes) > 1:
                self.say(f"warning: the data has changed: {describe_changes(changes)}")
            raise MismatchError(_file_difference(changes[0]))
        for name, sha256 in data.fingerprints.items():
            old = before.get(name, {}).get("sha256")
            if old != sha256:
                raise MismatchError(Difference("data", f"of the {name} split", old, sha256))

    def started(self, now: Mapping[str, Any]) -> None:
        """Report differences of the environment, and compare the initial weights."""
        info = self.run.info()
        self.environment += environment_differences(info, now)
        for difference in self.environment:
            self.say(f"warning: changed: {difference}")
        if info["weights_sha256"] != now["weights_sha256"]:
            raise MismatchError(Difference("weights", "at the start", info["weights_sha256"], now["weights_sha256"]))

    def line(self, line: Mapping[str, Any]) -> None:
        """Compare the weights after an epoch."""
        epoch, sha256 = line["epoch"], line.get("weights_sha256")
        if sha256 is None:  # a line within an epoch
            return
        if sha256 != self.hashes[epoch]:
            raise MismatchError(Difference("epoch", f"{epoch}: the weights' SHA-256", self.hashes[epoch], sha256))
        self.epochs = epoch
        self.say(f"epoch {epoch}: equal weights")


def reproduce(
    run: RunFolder,
    *,
    epochs: int | None = None,
    name: str | None = None,
    runs_dir: Path | None = None,
    data_dir: Path | str | None = None,
    argv: Sequence[str] = (),
    say: Say = silent,
    progress: bool = False,
) -> Reproduction:
    """Train a run's recipe again, in a new run folder, and compare the hashes of the weights up to `epochs`.

    If the run was resumed with changes, such as more epochs, the same changes are made at the same steps.

    `data_dir` is the data's folder, if it has moved.

    Raises:
        UsageError: `epochs` is more than the run has, or its device is not available.
        ModelFileError: the run has no hashes.
    """
    recipe, info = run.recipe(), run.info()
    refuse_fitted(recipe)
    hashes = _epoch_hashes(run, epochs)
    edited = [change for change in changed_settings(info, recipe) if change.name != "data.dir"]
    if edited:
        return Reproduction(run.name, None, 0, len(hashes), None, edited[0], ())
    _warn_of_resumes(info, say)
    recipe = recipe_of_run(run, recipe, data_dir)
    runs_dir = runs_dir or run.path.absolute().parent
    name = name or run_creation.free_name(runs_dir, f"{run.name}-reproduced")
    monitor, difference = ReproductionMonitor(run, hashes, say), None
    watch = Watch(materials=monitor.data, begun=monitor.started, line=monitor.line, epochs=len(hashes))
    started, changes = _history(recipe, info)
    try:
        _replay(_pin_machine_settings(started, info), changes, watch, runs_dir, name, argv, say, progress)
    except MismatchError as end:
        difference = end.difference
    folder = runs_dir / name
    return Reproduction(
        run=run.name,
        reproduced=str(folder) if folder.exists() else None,
        epochs=monitor.epochs,
        compared=len(hashes),
        weights_sha256=hashes.get(monitor.epochs),
        difference=difference,
        environment=tuple(monitor.environment),
    )


def _file_difference(change: FileChange) -> Difference:
    """The digests of a file, or its classes if only those differ."""
    before, now = change.before, change.now
    if before is not None and now is not None and before.sha256 == now.sha256:
        return Difference("data file", change.path, before.label, now.label)
    values = ("missing" if file is None else file.sha256 for file in (before, now))
    return Difference("data file", change.path, *values)


def _epoch_hashes(run: RunFolder, epochs: int | None) -> dict[int, str]:
    """The hash of each epoch's weights, up to `epochs`."""
    lines = run.metrics()
    hashes = {line["epoch"]: line["weights_sha256"] for line in lines if "weights_sha256" in line}
    if not hashes and lines and "weights_sha256" not in run.info():
        raise ModelFileError(f"run {run.name} has no hashes of its weights: it was trained by an older dlkit.")
    if not hashes:
        raise UsageError(f"run {run.name} has not finished an epoch: there is nothing to compare with.")
    if epochs is not None and not 1 <= epochs <= len(hashes):
        raise UsageError(f"--epochs {epochs}: run {run.name} has {len(hashes)} to compare with.")
    return {epoch: hashes[epoch] for epoch in sorted(hashes)[:epochs]}


def _pin_machine_settings(recipe: Recipe, info: Mapping[str, Any]) -> Recipe:
    """The recipe, with the run's threads and kind of device instead of automatic ones."""
    settings = {"train.threads": info["threads"], "train.track": []}
    if recipe.train.device == "auto":
        settings["train.device"] = info["device"]
    return with_changes(recipe, settings)


def _history(recipe: Recipe, info: Mapping[str, Any]) -> tuple[Recipe, list[tuple[int, dict[str, Any]]]]:
    """The recipe that the run started with, and the changes on resume with their steps.

    Resuming from an older checkpoint discards the later steps, but not the changes of the recipe.
    """
    resumes = [(int(resume["step"]), resume.get("changes") or {}) for resume in info.get("resumes", [])]
    for _, changed in reversed(resumes):
        recipe = with_changes(recipe, {key: before for key, (before, _) in changed.items()})
    history: list[tuple[int, dict[str, Any]]] = []
    for step, changed in resumes:
        after = {key: now for key, (_, now) in changed.items() if key not in HARMLESS}
        discarded = {key: value for at, changes in history if at >= step for key, value in changes.items()}
        history = [(at, changes) for at, changes in history if at < step]
        if discarded | after:
            history.append((step, discarded | after))
    if history and history[0][0] == 0:
        recipe = with_changes(recipe, history.pop(0)[1])
    return recipe, history


def _replay(
    recipe: Recipe,
    history: Sequence[tuple[int, Mapping[str, Any]]],
    watch: Watch,
    runs_dir: Path,
    name: str,
    argv: Sequence[str],
    say: Say,
    progress: bool,
) -> None:
    """Train the recipe, pause where the run was resumed with changes, and resume with these."""
    for number in range(len(history) + 1):
        pause = history[number][0] if number < len(history) else None
        part = replace(watch, steps=pause)
        try:
            if number == 0:
                train_recipe(recipe, name=name, runs_dir=runs_dir, argv=argv, say=say, progress=progress, watch=part)
            else:
                changes = history[number - 1][1]
                resume_run(
                    RunFolder(runs_dir / name), changes=changes, inexact=False, say=say, progress=progress, argv=argv,
                    watch=part,
                )  # fmt: skip
            return
        except StoppedError as stopped:
            if stopped.exit_code:  # a signal, not a pause
                raise


def _warn_of_resumes(info: Mapping[str, Any], say: Say) -> None:
    """Warn of what makes a run hard to reproduce from its recipe alone."""
    if info.get("inexact"):
        say("warning: this run was resumed with --inexact: its weights may not be reproducible.")
