"""A disk under test: every system call by which a run writes passes here, to be counted, refused or recorded.

Refused are open, write, fsync, rename, unlink and mkdir below the folder of the runs. Reads pass.
"""

from __future__ import annotations

import builtins
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dlkit import atomic_io

Event = tuple[Any, ...]  # what was called, on which path, with what
Watcher = Callable[[Event], None]  # may raise OSError in place of the call

CALLS = {name: getattr(os, name) for name in ("fsync", "replace", "rename", "unlink", "mkdir", "rmdir")}


def watch(root: Path, watcher: Watcher) -> None:
    """Have every write below `root` announced to `watcher`, in this process and from now on."""
    prefix = str(root)

    def watched(name: str) -> Callable[..., Any]:
        def call(target: Any, *rest: Any, **named: Any) -> Any:
            path = os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else os.fspath(target)
            if path.startswith(prefix) and not path.endswith(".lock") and named.get("dir_fd") is None:
                watcher((name, path, *(os.fspath(other) for other in rest if isinstance(other, str | os.PathLike))))
            return CALLS[name](target, *rest, **named)

        return call

    for name in CALLS:
        setattr(os, name, watched(name))
    atomic_io.open = lambda path, mode="r": _open(path, mode, watcher)  # type: ignore[attr-defined]


class WatchedFile(io.RawIOBase):
    """A file whose writes are announced."""

    def __init__(self, path: str, mode: str, watcher: Watcher) -> None:
        self.file = builtins.open(path, mode, buffering=0)  # noqa: SIM115  # closed with this one
        self.path, self.watcher = path, watcher

    def write(self, data: Any) -> int:
        content = bytes(data)
        try:
            self.watcher(("write", self.path, content))
        except ShortWrite as short:
            self.file.write(content[: len(content) // 2])
            raise OSError(short.errno, os.strerror(short.errno or 0)) from None
        return self.file.write(content) or 0

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.file.fileno()

    def close(self) -> None:
        if not self.closed:
            self.file.close()
        super().close()


class ShortWrite(OSError):
    """Half of the bytes reach the disk before the error."""


def _open(path: Any, mode: str, watcher: Watcher) -> Any:
    if "r" in mode:
        return builtins.open(path, mode)
    watcher(("open", os.fspath(path), mode))
    return WatchedFile(os.fspath(path), mode, watcher)
