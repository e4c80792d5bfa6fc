"""Writes that survive a crash: every file dlkit must not lose goes through here.

temporary file in the same folder → write → fsync → rename → fsync the folder. A reader sees the old file or the new
one, never a part. `point(name)` marks each step by name, so that a test can kill the process there; it does nothing
unless a test has set `hook`.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from dlkit.errors import StorageError

CHUNK = 1 << 20  # bytes a write call takes; tests make it smaller
hook: Callable[[str], None] | None = None


def point(name: str) -> None:
    """A place where a test may stop the process."""
    if hook is not None:
        hook(name)


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Put `data` at `path`, all of it or none.

    Raises:
        StorageError: the disk is full or refuses; the old file, if any, is untouched and nothing is left beside it.
    """
    with replacing(path, needed=len(data)) as file:
        view = memoryview(data)
        for start in range(0, len(view), CHUNK):
            point("mid_write")
            file.write(view[start : start + CHUNK])


@contextmanager
def replacing(path: Path, needed: int | None = None) -> Iterator[IO[bytes]]:
    """A file to write into; it takes `path`'s place when the block ends, and is gone when the block raises.

    Raises:
        StorageError: as write_bytes does; `needed` is how many bytes it is to hold.
    """
    point("before_open")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            point("before_fsync")
            os.fsync(file.fileno())
        point("after_fsync")
        os.replace(temporary, path)
        point("after_rename")
        sync_folder(path.parent)
        point("after_dirsync")
    except BaseException as error:
        with suppress(OSError):  # a disk that refused the write may refuse this too
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise storage_error(error, path, needed) from error
        raise


def write_text(path: Path, text: str) -> None:
    """Put UTF-8 text at `path`, all of it or none."""
    write_bytes(path, text.encode("utf-8", errors="surrogateescape"))


def write_json(path: Path, document: Any) -> None:
    """Put an indented JSON document at `path`, all of it or none."""
    write_text(path, json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def append_line(path: Path, line: str) -> None:
    """Add one line and have it on the disk before returning."""
    point("metrics_append")
    try:
        new = not path.exists()
        with open(path, "ab") as file:
            file.write(line.encode("utf-8") + b"\n")
            file.flush()
            os.fsync(file.fileno())
        if new:  # else a power loss could take the file and leave the checkpoint that counts its lines
            sync_folder(path.parent)
    except OSError as error:
        raise storage_error(error, path, needed=len(line) + 1) from error


def keep_lines(path: Path, count: int) -> None:
    """Cut a file back to its first `count` lines; a file that has no more is left alone."""
    with storage_errors(path):
        if not path.exists():
            return
        content = path.read_bytes()
    kept = b"".join(complete_lines(content)[:count])
    if kept != content:
        write_bytes(path, kept)


def complete_lines(content: bytes) -> list[bytes]:
    """The lines with their line feeds; a last one that a crash has cut short is left out."""
    return [line + b"\n" for line in content.split(b"\n")[:-1]]


def move_folder(temporary: Path, final: Path) -> None:
    """Rename a finished folder into its place and make the rename last."""
    try:
        os.replace(temporary, final)
        sync_folder(final.parent)
    except OSError as error:
        raise storage_error(error, final) from error


def sync_folder(folder: Path) -> None:
    """Make the renames inside a folder last through a power loss."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> list[str]:
    """Delete the temporary files that a killed process left in `folder`; returns their names."""
    with storage_errors(folder):
        left = sorted(folder.glob(".*.tmp"))
        for path in left:
            path.unlink(missing_ok=True)
    return [path.name for path in left]


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an OSError about `path` into one line that a person can act on."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, path) from error


def storage_error(error: OSError, path: Path, needed: int | None = None) -> StorageError:
    """The StorageError that says what the disk said, where, and what to do about it."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        need = "" if needed is None else f" needs {_mib(needed)},"
        return StorageError(f"disk full at {path}:{need} has {_free(path)}. Free some space, then go on.")
    if error.errno in (errno.EACCES, errno.EPERM):
        return StorageError(f"cannot use {path}: permission denied. Change its owner or mode, or run as its owner.")
    if error.errno == errno.EROFS:
        return StorageError(f"cannot write {path}: read-only file system. Write elsewhere, or remount it writable.")
    if error.errno == errno.EFBIG:
        return StorageError(f"cannot write {path}: larger than a file may be here. Raise the limit, see `ulimit -f`.")
    return StorageError(f"cannot read or write {path}: {error.strerror or error}.")


def _free(path: Path) -> str:
    for folder in path.parents:
        if folder.is_dir():
            return _mib(shutil.disk_usage(folder).free)
    return "an unknown amount"


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
