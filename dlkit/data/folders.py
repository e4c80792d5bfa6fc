"""Walking through a person's folders: sorted, links followed, loops refused, what systems leave behind ignored."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from dlkit.errors import DataError, DlkitError, StorageError

JUNK = {"__macosx", "thumbs.db", "desktop.ini", "ehthumbs.db", "@eadir", "$recycle.bin", "lost+found", "__pycache__"}


def listed(folder: Path | str) -> list[os.DirEntry[str]]:
    """What is in a folder, without hidden entries, what systems leave behind and dlkit's own runs; sorted by name.

    Raises:
        StorageError: it cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            kept = [entry for entry in entries if not _is_ignored(entry)]
    except OSError as error:
        raise StorageError(f"{folder}: cannot be read: {error.strerror or error}.") from error
    return sorted(kept, key=lambda entry: entry.name)


def _is_ignored(entry: os.DirEntry[str]) -> bool:
    return (
        (entry.name == "runs" and _has_runs(entry.path)) or entry.name.startswith(".") or entry.name.casefold() in JUNK
    )


def _has_runs(folder: str) -> bool:
    """Whether a folder is where dlkit puts its runs, as after `dlkit train .`: it has some, or is still empty."""
    try:
        names = [name for name in os.listdir(folder) if not name.startswith(".")]
    except OSError:
        return False
    return not names or any(os.path.isfile(os.path.join(folder, name, "run.json")) for name in names)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether this is a folder or a link to one. A link to itself, or to where nobody may look, is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _raise(error: DlkitError) -> NoReturn:
    raise error


def files_below(folder: Path | str, failed: Callable[[DlkitError], object] = _raise) -> Iterator[str]:
    """All files below a folder, its own before those of the folders in it. A folder linked twice is entered once.

    `failed` takes the error of a folder that cannot be read or is a loop, and the rest goes on; by default it raises.

    Raises:
        DataError: a link leads to a folder that it is in.
        StorageError: a folder cannot be read.
    """
    seen: set[tuple[int, int]] = set()
    stack: list[tuple[str, frozenset[tuple[int, int]]]] = [(os.fspath(folder), frozenset())]
    while stack:
        path, above = stack.pop()
        try:
            identity = _identity(path)
            if identity in above:
                raise DataError(f"{path}: is a link to a folder that it is in. Remove the link.")
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
