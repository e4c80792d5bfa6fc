"""Traversal of data folders: sorted; follows links, refuses loops, ignores hidden and system files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from dlkit.errors import DataError, DlkitError, StorageError

JUNK = {"__macosx", "thumbs.db", "desktop.ini", "ehthumbs.db", "@eadir", "$recycle.bin", "lost+found", "__pycache__"}


def listed(folder: Path | str) -> list[os.DirEntry[str]]:
    """The entries of a folder, sorted by name, without hidden and system files and dlkit's own runs.

    Raises:
        StorageError: the folder cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            data = [entry for entry in entries if not _is_ignored(entry)]
    except OSError as error:
        raise StorageError(f"{folder}: cannot be read: {error.strerror or error}.") from error
    return sorted(data, key=lambda entry: entry.name)


def _is_ignored(entry: os.DirEntry[str]) -> bool:
    return (
        (entry.name == "runs" and _has_runs(entry.path)) or entry.name.startswith(".") or entry.name.casefold() in JUNK
    )


def _has_runs(folder: str) -> bool:
    """Whether a folder contains runs of dlkit, as after `dlkit train .`, or is still empty."""
    try:
        names = [name for name in os.listdir(folder) if not name.startswith(".")]
    except OSError:
        return False
    return not names or any(os.path.isfile(os.path.join(folder, name, "run.json")) for name in names)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether this is a folder or a link to one; False for a link that cannot be resolved."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _raise(error: DlkitError) -> NoReturn:
    raise error


def files_below(folder: Path | str, failed: Callable[[DlkitError], object] = _raise) -> Iterator[str]:
    """All files below a folder, its own before those of its subfolders; visits a folder only once.

    `failed` is called with the error of a folder that cannot be read or is a loop; by default it raises.

    Raises:
        DataError: a link to a folder that contains it.
        StorageError: a folder cannot be read.
    """
    seen: set[tuple[int, int]] = set()
    stack: list[tuple[str, frozenset[tuple[int, int]]]] = [(os.fspath(folder), frozenset())]
    while stack:
        path, above = stack.pop()
        try:
            identity = _identity(path)
            if identity in above:
                raise DataError(f"{path}: is a link to a folder that contains it. Remove the link.")
            entries = listed(path)
        except DlkitError as error:
            failed(error)
            continue
        if identity in seen:
            continue
        seen.add(identity)
        inner = [entry.path for entry in entries if is_folder(entry)]
        yield from (entry.path for entry in entries if not is_folder(entry))
        stack += [(name, above | {identity}) for name in reversed(inner)]


def _identity(folder: str) -> tuple[int, int]:
    try:
        status = os.stat(folder)
    except OSError as error:
        raise StorageError(f"{folder}: cannot be read: {error.strerror or error}.") from error
    return status.st_dev, status.st_ino
