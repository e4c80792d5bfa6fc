"""Removal of runs, and of files of other runs that are no longer needed. No torch here."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dlkit import atomic_io
from dlkit.errors import BusyError, DlkitError
from dlkit.runs import manifest, run_creation, run_folder
from dlkit.runs.run_folder import RunFolder

FINISHED = "finished"


@dataclass(frozen=True)
class RemovedPath:
    """A path that was or would be removed, and its size."""

    path: str
    bytes: int


def remove(run: RunFolder, *, dry_run: bool = False) -> RemovedPath:
    """Delete a run folder; it is first renamed to a hidden name, so that no partial run remains.

    Of a linked run only the link is removed.

    Raises:
        BusyError: the run is training.
        StorageError: the disk refuses.
    """
    linked = run.path.is_symlink()
    removed = RemovedPath(str(run.path), 0 if linked else _bytes(run.path))
    if not dry_run:
        with run.locked(), atomic_io.storage_errors(run.path):
            runs_dir, hidden = run.path.parent, run.path.with_name(f".{run.name}.{secrets.token_hex(4)}.tmp")
            run.path.rename(hidden)
        run_creation.remove(hidden)
        run_folder.relink_latest(runs_dir)
    return removed


def prune(
    runs_dir: Path, *, dry_run: bool = False, say: Callable[[str], None] = lambda text: None
) -> Iterator[RemovedPath]:
    """Delete the checkpoints of finished runs except the best and the newest, and the files of killed processes.

    Nothing is removed from runs that are training or were stopped, nor from damaged ones, which are reported.
    """
    for run in run_folder.list_runs(runs_dir):
        try:
            if run.status() == FINISHED:
                with run.locked():
                    yield from _prune_checkpoints(run, dry_run)
        except BusyError:
            continue
        except DlkitError as error:
            say(f"warning: {error}")
    for path in run_creation.abandoned(runs_dir):
        yield RemovedPath(str(path), _bytes(path))
        if not dry_run:
            run_creation.remove(path)


def _prune_checkpoints(run: RunFolder, dry_run: bool) -> Iterator[RemovedPath]:
    steps = manifest.saved_steps(run.checkpoints)
    needed = {steps[-1] if steps else None, (run.info().get("best") or {}).get("step")}
    for step in steps:
        if step not in needed:
            path = manifest.manifest_path(run.checkpoints, step)
            payload = path.with_suffix(".safetensors")
            yield RemovedPath(str(payload), _size(payload) + _size(path))
            if not dry_run:
                with atomic_io.storage_errors(path):
                    path.unlink(missing_ok=True)  # first: a payload alone is not a checkpoint
                    payload.unlink(missing_ok=True)


def _bytes(folder: Path) -> int:
    return sum(_size(path) for path in folder.rglob("*") if not path.is_symlink() and path.is_file())


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0
