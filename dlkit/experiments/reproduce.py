"""reproduce: train a run's recipe again and compare the weights, epoch by epoch, by their hashes.

The first thing that is not what it was ends it: a setting in recipe.yaml, a file of the data, the weights at the start,
or those after an epoch. Other packages, threads or processors end nothing by themselves, for the weights may be the
same all the same: they are said before, and named again where the weights differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from dlkit.config.resolve import with_changes
from dlkit.config.schema import Recipe
from dlkit.data.fingerprint import FileChange, told
from dlkit.errors import ModelFileError, StoppedError, UsageError, VerificationError
from dlkit.runs import run_creation
from dlkit.runs.data_of_run import recipe_of_run
from dlkit.runs.provenance import Difference, environment_differences
from dlkit.runs.run_folder import RunFolder
from dlkit.training.compatibility import changed_files, changed_settings
from dlkit.training.inputs import Materials, Say, refuse_fitted, silent
from dlkit.training.train import Watch, resume_run, train_recipe

SCHEMA = "dlkit.reproduce/1"
# Changes with which a run may go on and still come to the same weights.
HARMLESS = ("train.track", "train.log_every", "train.checkpoint_every", "train.keep", "data.workers")


class Unequal(VerificationError):
    """The first difference was found."""

    def __init__(self, difference: Difference) -> None:
        super().__init__(f"not reproduced: {difference}.")
        self.difference = difference


@dataclass(frozen=True)
class Reproduction:
    """How far a run was trained again with equal weights, and the first difference, if there is one."""

    run: str
    reproduced: str | None  # the new run's folder; none where it ended before there was one
    epochs: int  # whose weights are equal
    compared: int  # epochs that were asked for
    weights_sha256: str | None  # after the last equal epoch
    difference: Difference | None
    environment: tuple[Difference, ...]  # what else is not what it was

    @property
    def equal(self) -> bool:
        return self.difference is None

    def document(self) -> dict[str, Any]:
        """The JSON form, `dlkit.reproduce/1`."""
        return {"schema": SCHEMA, "equal": self.equal, **asdict(self)}

    def verdict(self) -> str:
        """One line about it."""
        others = "".join(f"; {difference}" for difference in self.environment)
        if self.difference is None:
            found = f"{self.epochs} of {self.compared} epochs have equal weights (SHA-256 {self.weights_sha256})"
            return f"run {self.run} is reproduced: {found}{others and ', although' + others[1:]}."
        before = f"after {self.epochs} equal epochs, " if self.epochs else ""
        return f"run {self.run} is not reproduced: {before}{self.difference}{others}."


@dataclass
class Comparison:
    """Looks at a training as it goes, and ends it at the first difference from a run."""

    run: RunFolder
    hashes: Mapping[int, str]  # epoch → SHA-256 of its weights
    say: Say
    epochs: int = 0  # equal so far
    environment: list[Difference] = field(default_factory=list)

    def data(self, materials: Materials) -> None:
        """Every split, and of files the first that is another."""
        data, before = materials.data, self.run.info()["data"]
        found = changed_files(self.run, data)
        if found:
            if len(found) > 1:
                self.say(f"warning: the data is not what it was: {told(found)}")
            raise Unequal(_of_file(found[0]))
        for name, sha256 in data.fingerprints.items():
            old = before.get(name, {}).get("sha256")
            if old != sha256:
                raise Unequal(Difference("data", f"of the {name} split", old, sha256))

    def begun(self, now: Mapping[str, Any]) -> None:
        """The machine, which is told, and the weights at the start."""
        info = self.run.info()
        self.environment += environment_differences(info, now)
        for difference in self.environment:
            self.say(f"warning: not as it was: {difference}")
        if info["weights_sha256"] != now["weights_sha256"]:
            raise Unequal(Difference("weights", "at the start", info["weights_sha256"], now["weights_sha256"]))

    def line(self, line: Mapping[str, Any]) -> None:
        """The weights after an epoch."""
        epoch, found = line["epoch"], line.get("weights_sha256")
        if found is None:  # a line within an epoch
            return
        if found != self.hashes[epoch]:
            raise Unequal(Difference("epoch", f"{epoch}: the weights' SHA-256", self.hashes[epoch], found))
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
    """Train a run's recipe again, in a run folder of its own, and compare the weights' hashes up to `epochs`.

    A run that went on with changes, such as more epochs, is paused and changed at the same steps.

    `data_dir` is where its data lies now, if that has moved.

    Raises:
        UsageError: `epochs` is more than the run has, or the device it ran on is not here.
        ModelFileError: the run holds no hashes.
    """
    recipe, info = run.recipe(), run.info()
    refuse_fitted(recipe)
    hashes = _recorded(run, epochs)
    edited = [change for change in changed_settings(info, recipe) if change.name != "data.dir"]
    if edited:
        return Reproduction(run.name, None, 0, len(hashes), None, edited[0], ())
    _warn_of_resumes(info, say)
    recipe = recipe_of_run(run, recipe, data_dir)
    runs_dir = runs_dir or run.path.absolute().parent
    name = name or run_creation.free_name(runs_dir, f"{run.name}-reproduced")
    seen, difference = Comparison(run, hashes, say), None
    watch = Watch(materials=seen.data, begun=seen.begun, line=seen.line, epochs=len(hashes))
    begun, changes = _history(recipe, info)
    try:
        _replay(_as_it_ran(begun, info), changes, watch, runs_dir, name, argv, say, progress)
    except Unequal as end:
        difference = end.difference
    folder = runs_dir / name
    return Reproduction(
        run=run.name,
        reproduced=str(folder) if folder.exists() else None,
        epochs=seen.epochs,
        compared=len(hashes),
        weights_sha256=hashes.get(seen.epochs),
        difference=difference,
        environment=tuple(seen.environment),
    )


def _of_file(change: FileChange) -> Difference:
    """A file by its digest, or by its class where that alone is another."""
    before, now = change.before, change.now
    if before is not None and now is not None and before.sha256 == now.sha256:
        return Difference("data file", change.path, before.label, now.label)
    values = ("missing" if file is None else file.sha256 for file in (before, now))
    return Difference("data file", change.path, *values)


def _recorded(run: RunFolder, epochs: int | None) -> dict[int, str]:
    """The hash of each epoch's weights, up to `epochs`."""
    lines = run.metrics()
    found = {line["epoch"]: line["weights_sha256"] for line in lines if "weights_sha256" in line}
    if not found and lines and "weights_sha256" not in run.info():
        raise ModelFileError(f"run {run.name} holds no hashes of its weights: it was trained by an older dlkit.")
    if not found:
        raise UsageError(f"run {run.name} has not finished an epoch: there is nothing to compare with.")
    if epochs is not None and not 1 <= epochs <= len(found):
        raise UsageError(f"--epochs {epochs}: run {run.name} has {len(found)} to compare with.")
    return {epoch: found[epoch] for epoch in sorted(found)[:epochs]}


def _as_it_ran(recipe: Recipe, info: Mapping[str, Any]) -> Recipe:
    """The recipe, with the threads and the kind of device that it left to the machine."""
    chosen = {"train.threads": info["threads"], "train.track": []}
    if recipe.train.device == "auto":
        chosen["train.device"] = info["device"]
    return with_changes(recipe, chosen)


def _history(recipe: Recipe, info: Mapping[str, Any]) -> tuple[Recipe, list[tuple[int, dict[str, Any]]]]:
    """The recipe that the run began with, and the changes with which it went on, each at the step where it did.

    A run that went on from an older checkpoint has left behind what came after that step, but for its recipe.
    """
    resumes = [(int(resume["step"]), resume.get("changes") or {}) for resume in info.get("resumes", [])]
    for _, changed in reversed(resumes):
        recipe = with_changes(recipe, {key: before for key, (before, _) in changed.items()})
    history: list[tuple[int, dict[str, Any]]] = []
    for step, changed in resumes:
        after = {key: now for key, (_, now) in changed.items() if key not in HARMLESS}
        left_behind = {key: value for at, changes in history if at >= step for key, value in changes.items()}
        history = [(at, changes) for at, changes in history if at < step]
        if left_behind | after:
            history.append((step, left_behind | after))
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
    """Train the recipe, pause where the run went on with changes, and go on with these."""
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
            if stopped.exit_code:  # a signal, and no pause
                raise


def _warn_of_resumes(info: Mapping[str, Any], say: Say) -> None:
    """Say what makes a run hard to reproduce from its recipe alone."""
    if info.get("inexact"):
        say("warning: this run was resumed with --inexact: its weights may not come out again.")
