"""A new run: its name is reserved when its training starts, and its folder appears with its first checkpoint in it.

The reservation is the folder `.NAME.tmp` with a lock in it, which the process holds until it has finished the run: the
folder is renamed to NAME with the lock in it. A killed process leaves the folder, but releases the lock: the next start
and `dlkit runs prune` remove it.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from dlkit import atomic_io, documents
from dlkit.config import yaml_file
from dlkit.config.schema import Recipe
from dlkit.errors import BusyError, StorageError, UsageError
from dlkit.runs import run_lock
from dlkit.runs.run_folder import RUNNING, SCHEMA, RunFolder, link_latest, now

ABANDONED_S = 3600.0  # a hidden folder without a lock and without changes for so long is of no live process
MAX_NUMBERS = 10_000


@dataclass(frozen=True)
class Reservation:
    """A name in a folder of runs that only this process may use."""

    runs_dir: Path
    name: str

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.runs_dir / self.name)

    @property
    def unfinished(self) -> RunFolder:
        return RunFolder(self.runs_dir / f".{self.name}.tmp")


@contextmanager
def reserve(runs_dir: Path, name: str, *, numbered: bool = False) -> Iterator[Reservation]:
    """Reserve a name and hold the run's lock while the block runs; with `numbered` NAME-2, NAME-3 … if it is taken.

    Raises:
        UsageError: the run exists. BusyError: another process is starting it.
        StorageError: nothing can be written there.
    """
    check_name(name)
    check_folder(runs_dir)
    with ExitStack() as stack:
        for number in range(1, MAX_NUMBERS):
            reservation = Reservation(runs_dir, name if number == 1 else f"{name}-{number}")
            try:
                stack.enter_context(_hold(reservation))
                break
            except (UsageError, BusyError):
                if not numbered or number == MAX_NUMBERS - 1:
                    raise
        yield reservation


def create(
    reservation: Reservation, recipe: Recipe, info: dict[str, Any], save_first: Callable[[RunFolder], None]
) -> RunFolder:
    """Create the folder of a new run; `info` is the content of run.json without its name and times.

    It is created under a temporary name and renamed with its first checkpoint in it: every existing run can be resumed.
    """
    unfinished = reservation.unfinished
    with atomic_io.storage_errors(reservation.folder.path):
        unfinished.checkpoints.mkdir()
    atomic_io.write_text(unfinished.path / "recipe.yaml", yaml_file.dump(recipe))
    identity = {"schema": SCHEMA, "run_id": secrets.token_hex(16), "name": reservation.name, "status": RUNNING}
    documents.write(unfinished.path / "run.json", {**identity, "started": now(), **info})
    save_first(unfinished)
    atomic_io.move_folder(unfinished.path, reservation.folder.path)
    if reservation.folder.epochs_trained():  # fitted at once
        link_latest(reservation.folder)
    return reservation.folder


def check_new(runs_dir: Path, name: str) -> None:
    """Refuse a run that cannot be written or already exists, before any work."""
    check_name(name)
    _check_free(runs_dir, name)
    check_folder(runs_dir)


def check_name(name: str) -> None:
    """Raises: UsageError if the name is not valid for a folder."""
    if name in ("", "latest") or name.startswith(".") or "/" in name or "\\" in name or not name.isprintable():
        raise UsageError(f"--name {name!r} cannot name a run. Use letters, digits, '.', '_' and '-'.")
    if len(os.fsencode(name)) > 200:
        raise UsageError(f"--name {name!r} cannot name a run. Use letters, digits, '.', '_' and '-'.")


def check_folder(runs_dir: Path) -> None:
    """Raises: StorageError if no run can be written there."""
    parent = next(folder for folder in (runs_dir, *runs_dir.absolute().parents) if os.path.lexists(folder))
    if not parent.is_dir():
        raise StorageError(f"cannot write runs into {runs_dir}: {parent} is not a folder. Choose another --runs-dir.")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise StorageError(
            f"cannot write runs into {runs_dir}: permission denied in {parent}. Choose another --runs-dir."
        )


def default_name(recipe: Recipe) -> str:
    """lenet5-mnist-20260131-142501."""
    model = recipe.model.name.replace("/", "-")  # timm/NAME
    return f"{model}-{recipe.data.name}-{datetime.now():%Y%m%d-%H%M%S}"


def free_name(runs_dir: Path, base: str) -> str:
    """The name, with -2, -3 … if it exists."""
    candidates = (base if number == 1 else f"{base}-{number}" for number in range(1, MAX_NUMBERS))
    return next(name for name in candidates if not os.path.lexists(runs_dir / name))


def abandoned(runs_dir: Path) -> list[Path]:
    """The folders left by killed processes that were creating or removing a run; never those of a live process."""
    return [path for path in sorted(runs_dir.glob(".*.tmp")) if _is_abandoned(path)]


def remove_abandoned(runs_dir: Path, say: Callable[[str], None]) -> None:
    """Remove abandoned folders, with a message for each."""
    for path in abandoned(runs_dir):
        remove(path)
        say(f"removed {path}, left by a killed process")


def remove(path: Path) -> None:
    """Delete a folder or a link as far as possible."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


@contextmanager
def _hold(reservation: Reservation) -> Iterator[None]:
    """Hold the lock of a reservation; remove what is left in its folder at the end."""
    folder, runs_dir = reservation.unfinished.path, reservation.runs_dir
    _check_free(runs_dir, reservation.name)
    new_folders = [above for above in (runs_dir, *runs_dir.parents) if not above.exists()]
    with atomic_io.storage_errors(runs_dir):
        folder.mkdir(parents=True, exist_ok=True)
        for above in new_folders:
            atomic_io.sync_folder(above.parent)
    busy = f"run {reservation.folder.path} is being started by another process. Wait for it, or use another --name."
    with run_lock.hold(folder, busy, timeout_s=0):
        if not (folder / run_lock.NAME).exists():  # it was renamed while this process waited for its lock
            raise BusyError(busy)
        try:
            _check_free(runs_dir, reservation.name)
            _clear(folder)
            yield
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):  # not empty: it has runs
                for above in new_folders:
                    above.rmdir()


def _check_free(runs_dir: Path, name: str) -> None:
    with atomic_io.storage_errors(runs_dir / name):
        if os.path.lexists(runs_dir / name):
            raise UsageError(f"run {runs_dir / name} exists. Continue it with --resume {name}, or use another --name.")


def _clear(folder: Path) -> None:
    """Delete the files of a killed process in a reserved folder."""
    with atomic_io.storage_errors(folder):
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != run_lock.NAME:
                path.unlink()


def _is_abandoned(path: Path) -> bool:
    try:
        is_folder = path.is_dir() and not path.is_symlink()
        if is_folder and (path / run_lock.NAME).exists():
            return not run_lock.is_held(path)
        paths = (path, *path.rglob("*")) if is_folder else (path,)
        return max(one.lstat().st_mtime for one in paths) < time.time() - ABANDONED_S
    except OSError:  # it was just removed, or is not readable
        return False
