"""Extract an untrusted archive: regular files and folders, all or nothing.

tar (also .gz, .xz, .bz2) and zip, recognized by content. Refused: links, devices, names that are absolute, contain
"..", control characters or drive letters, or equal another name except for case; encrypted or overlapping zip entries;
more members, bytes or compression than a limit. Members go to a temporary folder, which is renamed when complete.
Permissions and owners are ignored. tarfile's data filter alone would allow links, and knows no limits.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import secrets
import shutil
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from dlkit.atomic_io import move_folder, point, storage_error
from dlkit.errors import DlkitError, VerificationError

CHUNK = 1 << 18  # bytes
MIN_PACKED = 1 << 16  # bytes; the ratio counts for larger archives only
MAX_NAME = 255  # bytes per path component on common file systems


@dataclass(frozen=True)
class ExtractLimits:
    """ExtractLimits of an extracted archive; a built-in data set may raise them."""

    members: int = 200_000
    bytes: int = 20 << 30
    ratio: float = 200.0  # unpacked to packed


DEFAULT_LIMITS = ExtractLimits()


@dataclass(frozen=True)
class _Member:
    name: str
    is_folder: bool
    size: int
    open: Callable[[], IO[bytes] | None]


def extract(archive: Path, target: Path, limits: ExtractLimits = DEFAULT_LIMITS) -> None:
    """Extracts `archive` to the new folder `target`, all of it or nothing.

    Raises:
        VerificationError: damaged, or breaks a rule above; the message names the member.
        StorageError: the disk is full or not writable.
    """
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.mkdir()
        cap = min(limits.bytes, int(limits.ratio * max(archive.stat().st_size, MIN_PACKED)))
        with _members(archive, cap, limits) as members:
            _unpack(members, temporary, cap, limits)
        move_folder(temporary, target)
    except VerificationError as error:
        raise VerificationError(f"{archive}: {error} Nothing was unpacked.") from error
    except (DlkitError, MemoryError):
        raise
    except OSError as error:
        if error.errno is None:  # gzip and bz2 report damage like this
            raise _damaged(archive, error) from error
        raise storage_error(error, target) from error
    except Exception as error:  # hostile bytes may raise anything inside tarfile, zipfile and the decompressors
        raise _damaged(archive, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _damaged(archive: Path, error: Exception) -> VerificationError:
    reason = " ".join(str(error).split()).rstrip(".")[:200] or type(error).__name__
    return VerificationError(f"{archive}: the archive is damaged: {reason}. Nothing was unpacked.")


def _unpack(members: Iterable[_Member], folder: Path, cap: int, limits: ExtractLimits) -> None:
    names = _Names()
    unpacked = count = 0
    for count, member in enumerate(members, start=1):
        if count > limits.members:
            raise VerificationError(f"more than {limits.members} members.")
        parts = names.add(member)
        path = folder.joinpath(*parts)
        point("extract_member")
        if member.is_folder:
            path.mkdir(parents=True, exist_ok=True)
            continue
        if unpacked + member.size > cap:
            raise VerificationError(_grows(member, cap))
        path.parent.mkdir(parents=True, exist_ok=True)
        unpacked += _write(member, path)
    if count == 0:
        raise VerificationError("holds no files.")


def _write(member: _Member, path: Path) -> int:
    """Writes the member, which must have exactly the size in its header."""
    content = member.open()
    if content is None:
        raise VerificationError(f"{_quoted(member.name)} is not a plain file.")
    done = 0
    with content, open(path, "xb") as file:
        while chunk := content.read(CHUNK):
            done += len(chunk)
            if done > member.size:
                break
            file.write(chunk)
    if done != member.size:
        raise VerificationError(f"{_quoted(member.name)} does not have the {member.size} bytes of its header.")
    return done


class _Names:
    """The names so far, compared as on a file system that ignores case and Unicode normalization."""

    def __init__(self) -> None:
        self._files: set[tuple[str, ...]] = set()
        self._folders: dict[tuple[str, ...], tuple[str, ...]] = {(): ()}

    def add(self, member: _Member) -> tuple[str, ...]:
        """The components of the member's path. Raises: VerificationError if it is unsafe or not new."""
        parts = _safe_parts(member.name)
        if not parts and not member.is_folder:
            raise VerificationError("a member has no name.")
        keys = tuple(unicodedata.normalize("NFC", part).casefold() for part in parts)
        for depth in range(1, len(parts) + (1 if member.is_folder else 0)):
            self._add_folder(keys[:depth], parts[:depth])
        if not member.is_folder:
            if keys in self._files or keys in self._folders:
                raise VerificationError(
                    f"{_quoted(member.name)} occurs twice, or differs from another name only in case."
                )
            self._files.add(keys)
        return parts

    def _add_folder(self, key: tuple[str, ...], parts: tuple[str, ...]) -> None:
        if key in self._files:
            raise VerificationError(f"{_quoted('/'.join(parts))} is a file and a folder.")
        if self._folders.setdefault(key, parts) != parts:
            raise VerificationError(f"{_quoted('/'.join(parts))} differs from another folder only in case.")


def _safe_parts(name: str) -> tuple[str, ...]:
    if name.startswith("/") or "\\" in name or ":" in name:
        raise VerificationError(f"{_quoted(name)} is an absolute path, or holds a backslash or colon.")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in parts:
        raise VerificationError(f"{_quoted(name)} leads out of the folder.")
    if any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in name):
        raise VerificationError(f"{_quoted(name)} holds control characters, or is not UTF-8.")
    if any(len(part.encode()) > MAX_NAME for part in parts) or len(name) > 4096:
        raise VerificationError(f"{_quoted(name)} is too long a name.")
    return parts


@contextmanager
def _members(archive: Path, cap: int, limits: ExtractLimits) -> Iterator[Iterable[_Member]]:
    with open(archive, "rb") as file:
        head = file.read(6)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        with zipfile.ZipFile(archive) as opened:
            yield _zip_members(opened, limits)
        return
    decompressed = next((opener for magic, opener in _DECOMPRESSORS.items() if head.startswith(magic)), open)
    with decompressed(archive, "rb") as file:
        yield _tar_members(_Capped(file, cap))


_DECOMPRESSORS: dict[bytes, Any] = {
    b"\x1f\x8b": gzip.open,
    b"\xfd7zXZ\0": lzma.open,
    b"BZh": bz2.open,
}


class _Capped:
    """A stream that raises after `cap` bytes: tarfile reads headers of any size."""

    def __init__(self, stream: IO[bytes], cap: int) -> None:
        self._stream, self._left, self._cap = stream, cap, cap

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise VerificationError(f"unpacks to more than {self._cap} bytes.")
        return data


def _tar_members(stream: _Capped) -> Iterator[_Member]:
    """The members in order; stops at the first that is refused."""
    with tarfile.open(fileobj=stream, mode="r|", errorlevel=2) as archive:  # type: ignore[call-overload]
        while (info := archive.next()) is not None:
            if info.issparse() or not (info.isreg() or info.isdir()):
                raise VerificationError(f"{_quoted(info.name)} is a link or a device, not a plain file.")
            yield _Member(info.name, info.isdir(), info.size, partial(archive.extractfile, info))
            archive.members = []  # else tarfile keeps all in memory
    while stream.read(CHUNK):  # to the end, where gzip and xz store their checksum
        pass


def _zip_members(archive: zipfile.ZipFile, limits: ExtractLimits) -> Iterator[_Member]:
    entries = archive.infolist()
    if len(entries) > limits.members:
        raise VerificationError(f"more than {limits.members} members.")
    _refuse_overlaps(entries)
    for info in entries:
        kind = info.external_attr >> 28  # the file type of a Unix mode; 0 if there is none
        if kind not in (0, 0o10, 0o04):
            raise VerificationError(f"{_quoted(info.orig_filename)} is a link or a device, not a plain file.")
        if info.flag_bits & 0x1:
            raise VerificationError(f"{_quoted(info.orig_filename)} is encrypted.")
        # orig_filename, because zipfile cuts names at NUL and rewrites separators.
        yield _Member(info.orig_filename, info.is_dir(), info.file_size, partial(archive.open, info))


def _refuse_overlaps(entries: list[zipfile.ZipInfo]) -> None:
    """Overlapping entries make a small file a zip bomb."""
    end = 0
    for info in sorted(entries, key=lambda info: info.header_offset):
        if info.header_offset < end:
            raise VerificationError(f"{_quoted(info.orig_filename)} overlaps another entry.")
        end = info.header_offset + 30 + len(info.orig_filename) + info.compress_size  # at least


def _grows(member: _Member, cap: int) -> str:
    return f"with {_quoted(member.name)} it unpacks to more than {cap} bytes, its limit."


def _quoted(name: str) -> str:
    return ascii(name if len(name) <= 120 else name[:117] + "…")
