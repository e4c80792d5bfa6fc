"""An overview of several runs, a row each: their results, without a test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dlkit.experiments.compare_predictions import load_evaluation
from dlkit.runs.run_folder import RunFolder
from dlkit.runs.summary import summary

SCHEMA = "dlkit.compare_runs/1"
COLUMNS = (
    "name", "model", "dataset", "epochs", "metric", "best", "split", "checkpoint", "samples", "top1", "low", "high",
    "loss",
)  # fmt: skip


def overview(runs: Sequence[RunFolder], say: Callable[[str], None] = lambda text: None) -> list[dict[str, Any]]:
    """A row for each run; metrics of a stale evaluation are omitted with a warning."""
    return [_row(run, say) for run in runs]


def _row(run: RunFolder, say: Callable[[str], None]) -> dict[str, Any]:
    line, found = summary(run), load_evaluation(run)
    if found.problem:
        say(f"warning: {found.problem}")
    metrics = found.evaluation.get("metrics", {})
    top1 = metrics.get("top1", {})
    return {
        "schema": SCHEMA, "name": str(run.path), "model": line.model, "dataset": line.dataset, "epochs": line.epochs,
        "metric": line.metric, "best": line.best, "split": found.evaluation.get("split"),
        "checkpoint": found.evaluation.get("checkpoint"), "samples": found.evaluation.get("samples"),
        "top1": top1.get("value"), "low": top1.get("low"), "high": top1.get("high"),
        "loss": metrics.get("loss", {}).get("value"),
    }  # fmt: skip
