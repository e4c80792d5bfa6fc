"""tidy: remove runs, and of the runs that stay what nothing needs any more. No torch here."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dlkit import atomic_io
from dlkit.errors import BusyError
from dlkit.runs import run_folder
from dlkit.runs.run_folder import RunFolder

FINISHED = "finished"
QUIET_S = 3600.0  # a hidden folder untouched for so long belongs to no living process


@dataclass(frozen=True)
class Removed:
    """What was removed, or would be, and the bytes it held."""

    path: str
    bytes: int


def remove(run: RunFolder, *, dry_run: bool = False) -> Removed:
    """Delete a run folder; half a run is never left, as it is first renamed to a hidden name.

    Raises:
        BusyError: it is being trained.
        StorageError: the disk refuses.
    """
    found = Removed(str(run.path), _bytes(run.path))
    if not dry_run:
        with run.locked(), atomic_io.storage_errors(run.path):
            runs_dir, hidden = run.path.parent, run.path.with_name(f".{run.name}.{secrets.token_hex(4)}.tmp")
            run.path.rename(hidden)
        shutil.rmtree(hidden, ignore_errors=True)
        _relink(runs_dir, run.name)
    return found


def prune(runs_dir: Path, *, dry_run: bool = False) -> Iterator[Removed]:
    """Delete the checkpoints of finished runs except the best and the newest, and what killed processes left behind.

    Runs that are being trained, or were stopped and may go on, keep all they have.
    """
    for run in run_folder.list_runs(runs_dir):
        if run.info().get("status") == FINISHED:
            try:
                with run.locked():
                    yield from _pruned(run, dry_run)
            except BusyError:
                continue
    for folder in sorted(runs_dir.glob(".*.tmp")):
        if folder.is_dir() and not folder.is_symlink() and not _in_use(folder):
            yield Removed(str(folder), _bytes(folder))
            if not dry_run:
                shutil.rmtree(folder, ignore_errors=True)


def _pruned(run: RunFolder, dry_run: bool) -> Iterator[Removed]:
    manifests = sorted(run.checkpoints.glob("step-*.json"))
    best = (run.info().get("best") or {}).get("step")
    kept = {manifests[-1].stem if manifests else "", f"step-{best:09d}" if isinstance(best, int) else ""}
    for manifest in manifests:
        if manifest.stem not in kept:
            payload = manifest.with_suffix(".safetensors")
            yield Removed(str(payload), _size(payload) + _size(manifest))
            if not dry_run:
                with atomic_io.storage_errors(manifest):
                    manifest.unlink(missing_ok=True)  # first: a payload alone is no checkpoint
                    payload.unlink(missing_ok=True)


def _in_use(folder: Path) -> bool:
    """Whether a run may still be being made there: it was written to within the last hour."""
    newest = max((path.lstat().st_mtime for path in (folder, *folder.rglob("*"))), default=0.0)
    return newest > time.time() - QUIET_S


def _relink(runs_dir: Path, removed: str) -> None:
    """Where `latest` pointed to the removed run, point it to the newest that is left."""
    link = runs_dir / "latest"
    if link.is_symlink() and os.readlink(link) == removed:
        link.unlink(missing_ok=True)
        if left := run_folder.list_runs(runs_dir):
            run_folder.link_latest(runs_dir, left[-1].name)


def _bytes(folder: Path) -> int:
    return sum(_size(path) for path in folder.rglob("*") if not path.is_symlink() and path.is_file())


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0
