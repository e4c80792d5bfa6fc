"""Many trainings in one folder, each finished once: what an ablation and a sweep share.

The same call goes on where it stopped: a run that has finished is not repeated, one that was broken off is resumed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlkit import durable, recipe_file, recipe_parts
from dlkit.engine import run_folder
from dlkit.engine.run_folder import RunFolder
from dlkit.errors import DivergedError, StoppedError, UsageError
from dlkit.recipe import Recipe, load
from dlkit.recipe_keys import dotted

if TYPE_CHECKING:
    from dlkit.verbs.train import Watch

Say = Callable[[str], None]
TO_DO = "to do"


def found_weights(recipe: Recipe, runs_dir: Path) -> Recipe:
    """The recipe with a run that it starts from by its path, as its own runs lie elsewhere."""
    source = recipe.model.weights
    if source is None or not (runs_dir / source / "run.json").is_file():
        return recipe
    return recipe_parts.without(recipe, {"model.weights": str(runs_dir / source)})


def open_folder(folder: Path, recipe: Recipe, what: str) -> None:
    """A new folder with the recipe in it, or one that was made for the same recipe.

    Raises:
        UsageError: it was made for another one; `what` says what it holds.
    """
    path = folder / "recipe.yaml"
    if path.is_file():
        refuse_other(load(path).model_dump(), recipe.model_dump(), f"{folder} holds another {what}")
        return
    run_folder.check_new(folder.parent, folder.name)
    with durable.storage_errors(folder):
        folder.mkdir(parents=True)
    durable.write_text(path, recipe_file.dump(recipe))


def refuse_other(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    what: str,
    advice: str = "Give another --name, or the same flags to go on.",
) -> None:
    """Raises: UsageError that names the first keys with another value than before."""
    old, new = dict(dotted(before)), dict(dotted(now))
    differences = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    if differences:
        shown = ", ".join(f"{key} was {old.get(key)}, is {new.get(key)}" for key in differences[:3])
        raise UsageError(f"{what}: {shown}. {advice}")


def state_of(run: RunFolder) -> str:
    """ "to do", or the status of the run: running (or killed), stopped, failed, diverged, finished."""
    return str(run.info().get("status")) if (run.path / "run.json").is_file() else TO_DO


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
    from dlkit.verbs.train import NOBODY, resume_run, train_recipe

    state, watch = state_of(run), watch or NOBODY
    if state != TO_DO:
        before = run.recipe().model_dump()
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
