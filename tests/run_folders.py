"""A run folder without a training, for tests of what reads it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from dlkit.config.schema import Recipe
from dlkit.evaluation import record
from dlkit.runs import manifest, run_creation
from dlkit.runs.run_folder import RunFolder
from dlkit.training import checkpoint


def create(
    runs_dir: Path, name: str, recipe: Recipe, info: dict[str, Any], *, epochs: int = 1,
    save_first: Callable[[RunFolder], None] | None = None,
) -> RunFolder:  # fmt: skip
    """A run with one checkpoint, of so many trained epochs."""

    def save(run: RunFolder) -> None:
        state = {"step": epochs, "epochs_done": epochs, "best": None}
        checkpoint.save(run.checkpoints, str(run.info()["run_id"]), epochs, {"model/a": torch.zeros(1)}, state)

    with run_creation.reserve(runs_dir, name) as reservation:
        return run_creation.create(reservation, recipe, info, save_first or save)


def rewrite_metrics(run: RunFolder, lines: Sequence[Mapping[str, Any]]) -> None:
    """Other lines in metrics.jsonl, which the newest manifest vouches for."""
    run.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    newest = manifest.newest_readable(run.checkpoints)
    assert newest is not None
    manifest.write(run.checkpoints, {**newest, "metrics": run.metrics_digest(len(lines))})


def rewrite_predictions(run: RunFolder, lines: Sequence[Mapping[str, Any]]) -> None:
    """Other lines in predictions.jsonl, which evaluation.json vouches for."""
    sha256 = record.write_predictions(run, [json.dumps(line) for line in lines])
    record.write_evaluation(run, record.read_evaluation(run), sha256)
