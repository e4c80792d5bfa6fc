"""The present location of a run's data: runs of older versions stored a path relative to the working folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dlkit.config.data_location import absolute, on_disk
from dlkit.config.schema import Data, Recipe
from dlkit.errors import DataError
from dlkit.runs.run_folder import RunFolder


def data_of_run(run: RunFolder, data: Data, data_dir: Path | str | None = None) -> Data:
    """The data section of a run's recipe with its location: `data_dir`, or else the recorded one.

    A relative location is searched in the working folder, then in the folders that contain the run.

    Raises:
        DataError: it no longer exists.
    """
    if data_dir is not None:
        return data.model_copy(update={"dir": absolute(data.name, os.fspath(data_dir))})
    if data.dir is None or not on_disk(data.name, data.dir):
        return data
    bases = [Path.cwd(), *run.path.absolute().parents[1:3], *run.path.resolve().parents[1:3]]
    base = next((base for base in bases if _exists(base / data.dir)), None)
    if base is None:
        raise DataError(
            f"data of run {run.name} not found: {data.dir} does not exist. If it has moved, use --data-dir DIR."
        )
    changes: dict[str, Any] = {"dir": str(base / data.dir)}
    if data.name == "wds" and data.options.get("names"):
        changes["options"] = {**data.options, "names": str(base / str(data.options["names"]))}
    return data.model_copy(update=changes)


def recipe_of_run(run: RunFolder, recipe: Recipe, data_dir: Path | str | None = None) -> Recipe:
    """A run's recipe with the location of its data; raises the errors of data_of_run."""
    return recipe.model_copy(update={"data": data_of_run(run, recipe.data, data_dir)})


def _exists(path: Path) -> bool:
    """Whether the path exists; for shards with a range in braces, their folder."""
    return os.path.lexists(path) or ("{" in str(path) and Path(str(path).partition("{")[0]).parent.is_dir())
