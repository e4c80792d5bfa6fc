"""tidy: remove runs, and of the runs that stay what nothing needs any more. No torch here."""

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
class Removed:
    """What was removed, or would be, and the bytes it held."""

    path: str
    bytes: int


def remove(run: RunFolder, *, dry_run: bool = False) -> Removed:
    """Delete a run folder; half a run is never left, as it is first renamed to a hidden name.

    Of a run that is linked, the link goes and the run stays where it is.

    Raises:
        BusyError: it is being trained.
        StorageError: the disk refuses.
    """
    linked = run.path.is_symlink()
    found = Removed(str(run.path), 0 if linked else _bytes(run.path))
    if not dry_run:
        with run.locked(), atomic_io.storage_errors(run.path):
            runs_dir, hidden = run.path.parent, run.path.with_name(f".{run.name}.{secrets.token_hex(4)}.tmp")
            run.path.rename(hidden)
        run_creation.remove(hidden)
        run_folder.relink_latest(runs_dir)
    return found


def prune(
    runs_dir: Path, *, dry_run: bool = False, say: Callable[[str], None] = lambda text: None
) -> Iterator[Removed]:
    """Delete the checkpoints of finished runs except the best and the newest, and what killed processes left behind.

    Runs that are being trained, or were stopped and may go on, keep all they have; so does a damaged one, which is
    named.
    """
    for run in run_folder.list_runs(runs_dir):
        try:
            if run.status() == FINISHED:
                with run.locked():
                    yield from _pruned(run, dry_run)
        except BusyError:
            continue
        except DlkitError as error:
            say(f"warning: {error}")
    for path in run_creation.abandoned(runs_dir):
        yield Removed(str(path), _bytes(path))
        if not dry_run:
            run_creation.remove(path)


def _pruned(run: RunFolder, dry_run: bool) -> Iterator[Removed]:
    steps = manifest.saved_steps(run.checkpoints)
    kept = {steps[-1] if steps else None, (run.info().get("best") or {}).get("step")}
    for step in steps:
        if step not in kept:
            stated = manifest.manifest_path(run.checkpoints, step)
            payload = stated.with_suffix(".safetensors")
            yield Removed(str(payload), _size(payload) + _size(stated))
            if not dry_run:
                with atomic_io.storage_errors(stated):
                    stated.unlink(missing_ok=True)  # first: a payload alone is no checkpoint
                    payload.unlink(missing_ok=True)


def _bytes(folder: Path) -> int:
    return sum(_size(path) for path in folder.rglob("*") if not path.is_symlink() and path.is_file())


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0
