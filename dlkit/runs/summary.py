"""Summaries of runs, and the planned steps of a recipe. No torch here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dlkit.config.schema import Recipe
from dlkit.data.download.store import about_of
from dlkit.errors import DlkitError, StorageError
from dlkit.runs import run_folder
from dlkit.runs.run_folder import RunFolder

LOWER_IS_BETTER = ("val/loss", "train/loss")


@dataclass(frozen=True)
class RunSummary:
    """A run in a row: `best` is the best value of the monitored metric, `when` the start, in UTC."""

    name: str
    path: str
    model: str | None
    dataset: str | None
    status: str | None
    epochs: int | None  # completed
    metric: str | None
    best: float | None
    when: str | None


def listing(runs_dir: Path, say: Callable[[str], None] = lambda text: None) -> list[RunSummary]:
    """All runs in the folder, oldest first; for a damaged one only its name, with a warning."""
    summaries = []
    for run in run_folder.list_runs(runs_dir):
        try:
            summaries.append(summary(run, say))
        except DlkitError as error:
            say(f"warning: {error}")
            status = "unreadable" if isinstance(error, StorageError) else "damaged"
            summaries.append(RunSummary(run.name, str(run.path), None, None, status, None, None, None, None))
    return summaries


def summary(run: RunFolder, say: Callable[[str], None] = lambda text: None) -> RunSummary:
    """The summary of a run; damaged lines of its log are reported and skipped.

    Raises:
        ModelFileError: its run.json is damaged. UsageError: its recipe.yaml is. StorageError: they cannot be read.
    """
    info, lines, status = run.info(), run.metrics(say), run.status()
    metric = run.recipe().train.monitor
    values = [line[metric] for line in lines if isinstance(line.get(metric), int | float)]
    best = (min if metric in LOWER_IS_BETTER else max)(values) if values else None
    epochs = info.get("epochs")
    if epochs is None or status in (run_folder.RUNNING, run_folder.KILLED):  # as far as logged
        epochs = max((int(line["epoch"]) for line in lines if metric in line and "epoch" in line), default=0)
    return RunSummary(
        name=run.name,
        path=str(run.path),
        model=info.get("model"),
        dataset=info.get("dataset"),
        status=status,
        epochs=epochs,
        metric=metric,
        best=best,
        when=str(info.get("started", ""))[:19] or None,
    )


def details(run: RunFolder, say: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """A run's summary, run.json and recipe as one document."""
    return {
        "schema": "dlkit.runs_show/1",
        "summary": asdict(summary(run, say)),
        "info": {
            **{key: value for key, value in run.info().items() if key not in ("schema", "spec", "recipe")},
            "status": run.status(),
        },
        "recipe": run.recipe().model_dump(),
    }


def planned_steps(recipe: Recipe) -> int | None:
    """The steps in an epoch of this recipe, if the size of the data set is known."""
    about = about_of(recipe.data.name)
    if about is None or "train" not in about.sizes:
        return None
    images = about.sizes["train"]
    training = images if "validation" in about.sizes else images - round(images * recipe.data.validation)
    return -(-training // recipe.train.batch_size)
