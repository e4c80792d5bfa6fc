"""The data of a run, wherever it lies now: runs of older versions noted a path relative to where they were started."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dlkit.config.data_location import absolute, on_disk
from dlkit.config.schema import Data, Recipe
from dlkit.errors import DataError
from dlkit.runs.run_folder import RunFolder


def data_of_run(run: RunFolder, data: Data, data_dir: Path | str | None = None) -> Data:
    """The data section of a run's recipe with its location: `data_dir` if that is given, else where it was.

    A relative location is looked for in this folder, then in those that hold the run.

    Raises:
        DataError: nothing is there any more.
    """
    if data_dir is not None:
        return data.model_copy(update={"dir": absolute(data.name, os.fspath(data_dir))})
    if data.dir is None or not on_disk(data.name, data.dir):
        return data
    bases = [Path.cwd(), *run.path.absolute().parents[1:3], *run.path.resolve().parents[1:3]]
    found = next((base for base in bases if _exists(base / data.dir)), None)
    if found is None:
        raise DataError(
            f"{data.dir}: there is nothing, and run {run.name} had its data there. If it has moved: --data-dir DIR."
        )
    changes: dict[str, Any] = {"dir": str(found / data.dir)}
    if data.name == "wds" and data.options.get("names"):
        changes["options"] = {**data.options, "names": str(found / str(data.options["names"]))}
    return data.model_copy(update=changes)


def recipe_of_run(run: RunFolder, recipe: Recipe, data_dir: Path | str | None = None) -> Recipe:
    """A run's recipe with the location of its data; raises what data_of_run does."""
    return recipe.model_copy(update={"data": data_of_run(run, recipe.data, data_dir)})


def _exists(place: Path) -> bool:
    """Whether something lies there: of shards counted in braces, their folder."""
    return os.path.lexists(place) or ("{" in str(place) and Path(str(place).partition("{")[0]).parent.is_dir())
