"""Where dlkit keeps what it downloads: data sets and weights, nothing else."""

from __future__ import annotations

import os
from pathlib import Path

from dlkit.atomic_io import storage_errors
from dlkit.errors import StorageError


def home() -> Path:
    """The cache folder: $DLKIT_HOME, else $XDG_CACHE_HOME/dlkit, else the system's own place for caches."""
    if chosen := os.environ.get("DLKIT_HOME"):
        return Path(chosen).absolute()
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base).absolute() / "dlkit"
    import platformdirs  # here, because most commands never ask for it

    return Path(platformdirs.user_cache_dir("dlkit", appauthor=False))


def datasets_dir() -> Path:
    return home() / "datasets"


def weights_dir() -> Path:
    return home() / "weights"


def writable(folder: Path) -> Path:
    """Make a folder of the cache, and its parents, and see that a file can be put there.

    Raises:
        StorageError: it cannot; the message says which variable names another place.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(f"{_refusal(folder)}: {reason}. {_REMEDY}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StorageError(f"{_refusal(folder)}: Permission denied. {_REMEDY}")
    return folder


def present(path: Path) -> bool:
    """Whether something is there; a folder that may not be looked into is a StorageError, not a no."""
    with storage_errors(path):
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
    return True


_REMEDY = "Set DLKIT_HOME to a folder that you may write to."


def _refusal(folder: Path) -> str:
    return f"cannot write to the cache {folder}"
