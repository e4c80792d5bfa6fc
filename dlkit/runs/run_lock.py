"""The lock of a run: held by the process that trains it, and released when that process ends, however it ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from dlkit import atomic_io
from dlkit.errors import BusyError

NAME = ".lock"
TIMEOUT_S = 0.5  # a status query holds the lock for an instant


@contextmanager
def hold(folder: Path, busy: str, timeout_s: float = TIMEOUT_S) -> Iterator[None]:
    """Hold the lock of a folder while the block runs.

    Raises:
        BusyError: another process holds it; `busy` is the message.
        StorageError: it cannot be opened.
    """
    lock = FileLock(folder / NAME)
    with atomic_io.storage_errors(folder / NAME):
        try:
            lock.acquire(timeout=timeout_s)
        except Timeout:
            raise BusyError(busy) from None
    try:
        yield
    finally:
        lock.release()


def is_held(folder: Path) -> bool:
    """Whether a live process holds the lock; also true if that cannot be determined."""
    try:
        import fcntl
    except ImportError:  # Windows
        return _cannot_be_acquired(folder)
    try:
        descriptor = os.open(folder / NAME, os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: concurrent queries do not conflict
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _cannot_be_acquired(folder: Path) -> bool:
    if not (folder / NAME).exists():
        return False
    try:
        with FileLock(folder / NAME, timeout=0):
            return False
    except (Timeout, OSError):
        return True
