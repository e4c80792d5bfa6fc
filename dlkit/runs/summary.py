"""runs: what has been trained, and how far a recipe would go. No torch here."""

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
    """A run in a line: `best` is the monitored metric at its best, `when` the start, in UTC."""

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
    """Every run in the folder, oldest first; of a damaged one no more than its name, and a warning."""
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
    """A run in a line; damaged lines of its log are named and left out.

    Raises:
        ModelFileError: its run.json is damaged. UsageError: its recipe.yaml is. StorageError: they cannot be read.
    """
    info, lines, status = run.info(), run.metrics(say), run.status()
    metric = run.recipe().train.monitor
    values = [line[metric] for line in lines if isinstance(line.get(metric), int | float)]
    best = (min if metric in LOWER_IS_BETTER else max)(values) if values else None
    epochs = info.get("epochs")
    if epochs is None or status in (run_folder.RUNNING, run_folder.KILLED):  # as far as its log says
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
    """All that is known of a run: its line, run.json, and its recipe, as one document."""
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
    """Steps in an epoch of this recipe, where the data set states how large it is."""
    about = about_of(recipe.data.name)
    if about is None or "train" not in about.sizes:
        return None
    images = about.sizes["train"]
    kept = images if "validation" in about.sizes else images - round(images * recipe.data.validation)
    return -(-kept // recipe.train.batch_size)
