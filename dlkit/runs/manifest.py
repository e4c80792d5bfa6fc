"""The manifest of a checkpoint: its run and step, the digest of its payload, and the training state.

No torch here, so that listings can show a run's progress.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from dlkit import atomic_io, documents
from dlkit.errors import DlkitError, ModelFileError, StorageError
from dlkit.runs.run_info import Count, StoredDocument

SCHEMA = "dlkit.checkpoint/1"
NAME = re.compile(r"step-(\d{9})\.json")

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class LogPrefix(StoredDocument):
    """The lines of metrics.jsonl that belong to a checkpoint."""

    lines: Count
    sha256: Sha256


class BestState(StoredDocument):
    step: Count
    epoch: Count
    value: float


class State(StoredDocument):
    step: Count
    epochs_done: Count = 1  # absent for a fitted baseline
    metrics_lines: Count = 1
    stale: Count = 0
    skipped: Count = 0
    best: BestState | None = None
    window: dict[str, Any] = {}  # noqa: RUF012 (pydantic copies defaults)
    scaler: dict[str, Any] = {}  # noqa: RUF012


class Manifest(StoredDocument):
    run_id: str
    step: Count
    size: Count
    sha256: Sha256
    state: State
    metrics: LogPrefix | None = None  # absent in checkpoints of an older dlkit


def write(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write a manifest with its digest; the checkpoint exists once this returns."""
    documents.write(manifest_path(folder, manifest["step"]), {"schema": SCHEMA, **manifest})


def read(folder: Path, step: int, run_id: str | None = None) -> dict[str, Any]:
    """The manifest of one checkpoint, verified.

    Raises:
        ModelFileError: it is damaged, or belongs to another run or step.
        StorageError: it cannot be read.
    """
    path = manifest_path(folder, step)
    manifest = dict(documents.read(path, SCHEMA))
    try:
        claims = Manifest.model_validate(manifest)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise ModelFileError(f"{path} is damaged: {where} is missing or wrong.") from error
    if claims.step != step or claims.state.step != step:
        raise ModelFileError(f"{path} is damaged: it is of step {claims.step}.")
    if run_id not in (None, claims.run_id):
        raise ModelFileError(f"{path} belongs to another run.")
    return manifest


def saved_steps(folder: Path) -> list[int]:
    """The steps that have a manifest, ascending.

    Raises:
        StorageError: the folder cannot be read.
    """
    try:
        with atomic_io.storage_errors(folder):
            matches = [NAME.fullmatch(name) for name in os.listdir(folder)]
    except StorageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return []
        raise
    return sorted(int(match[1]) for match in matches if match)


def newest_readable(folder: Path, run_id: str | None = None) -> dict[str, Any] | None:
    """The manifest of the largest undamaged step; None if there is none."""
    try:
        steps = saved_steps(folder)
    except StorageError:
        return None
    for step in reversed(steps):
        try:
            return read(folder, step, run_id)
        except DlkitError:  # just pruned, or damaged: a resume reports it
            continue
    return None


def manifest_path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:09d}.json"
