"""Unpack an archive that a stranger made: plain files and folders, or nothing at all.

tar (also .gz, .xz, .bz2) and zip, told apart by content. Refused: links of any kind, devices, names that are absolute,
climb with "..", hold control characters or drive letters, or meet another member's name (also but for case); encrypted
or overlapping zip entries; more members, bytes or compression than a limit. The members go into a temporary folder
beside the target, which is renamed when all of them are there. Permissions and owners are not taken over.
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
LEAST_PACKED = 1 << 16  # bytes; below it a high ratio does no harm
LONGEST_NAME = 255  # bytes a part of a path may have on common file systems


@dataclass(frozen=True)
class Limits:
    """What an archive may grow to; a built-in data set may raise them."""

    members: int = 200_000
    bytes: int = 20 << 30
    ratio: float = 200.0  # unpacked to packed


CAREFUL = Limits()


@dataclass(frozen=True)
class _Member:
    name: str
    is_folder: bool
    size: int
    open: Callable[[], IO[bytes] | None]


def extract(archive: Path, target: Path, limits: Limits = CAREFUL) -> None:
    """Unpack `archive` as the new folder `target`, all of it or nothing.

    Raises:
        VerificationError: damaged, or against one of the rules above; the message names the member.
        StorageError: the disk refuses.
    """
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.mkdir()
        cap = min(limits.bytes, int(limits.ratio * max(archive.stat().st_size, LEAST_PACKED)))
        with _members(archive, cap, limits) as members:
            _unpack(members, temporary, cap, limits)
        move_folder(temporary, target)
    except VerificationError as error:
        raise VerificationError(f"{archive}: {error} Nothing was unpacked.") from error
    except (DlkitError, MemoryError):
        raise
    except OSError as error:
        if error.errno is None:  # gzip and bz2 report damage so
            raise _damaged(archive, error) from error
        raise storage_error(error, target) from error
    except Exception as error:  # hostile bytes may raise anything inside tarfile, zipfile and the decompressors
        raise _damaged(archive, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _damaged(archive: Path, error: Exception) -> VerificationError:
    reason = " ".join(str(error).split()).rstrip(".")[:200] or type(error).__name__
    return VerificationError(f"{archive}: the archive is damaged: {reason}. Nothing was unpacked.")


def _unpack(members: Iterable[_Member], folder: Path, cap: int, limits: Limits) -> None:
    names = _Names()
    unpacked = count = 0
    for count, member in enumerate(members, start=1):
        if count > limits.members:
            raise VerificationError(f"more than {limits.members} members.")
        parts = names.admit(member)
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
    """The member's bytes, exactly as many as it announced."""
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
        raise VerificationError(f"{_quoted(member.name)} has not the {member.size} bytes that it announces.")
    return done


class _Names:
    """The names met so far, as a file system that ignores case and Unicode form would see them."""

    def __init__(self) -> None:
        self._files: set[tuple[str, ...]] = set()
        self._folders: dict[tuple[str, ...], tuple[str, ...]] = {(): ()}

    def admit(self, member: _Member) -> tuple[str, ...]:
        """The member's path, part by part, once it is known to be safe and new."""
        parts = _safe_parts(member.name)
        if not parts and not member.is_folder:
            raise VerificationError("a member has no name.")
        keys = tuple(unicodedata.normalize("NFC", part).casefold() for part in parts)
        for depth in range(1, len(parts) + (1 if member.is_folder else 0)):
            self._enter(keys[:depth], parts[:depth])
        if not member.is_folder:
            if keys in self._files or keys in self._folders:
                raise VerificationError(f"{_quoted(member.name)} is there twice, or differs from another only in case.")
            self._files.add(keys)
        return parts

    def _enter(self, key: tuple[str, ...], parts: tuple[str, ...]) -> None:
        if key in self._files:
            raise VerificationError(f"{_quoted('/'.join(parts))} is a file and a folder.")
        if self._folders.setdefault(key, parts) != parts:
            raise VerificationError(f"{_quoted('/'.join(parts))} differs from another folder only in case.")


def _safe_parts(name: str) -> tuple[str, ...]:
    if name.startswith("/") or "\\" in name or ":" in name:
        raise VerificationError(f"{_quoted(name)} is an absolute path, or holds a backslash or colon.")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in parts:
        raise VerificationError(f"{_quoted(name)} climbs out of the folder.")
    if any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in name):
        raise VerificationError(f"{_quoted(name)} holds control characters, or is not UTF-8.")
    if any(len(part.encode()) > LONGEST_NAME for part in parts) or len(name) > 4096:
        raise VerificationError(f"{_quoted(name)} is too long a name.")
    return parts


@contextmanager
def _members(archive: Path, cap: int, limits: Limits) -> Iterator[Iterable[_Member]]:
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
    """A stream that ends in an error when it gives more bytes than it may: tarfile reads its headers unlimited."""

    def __init__(self, stream: IO[bytes], cap: int) -> None:
        self._stream, self._left, self._cap = stream, cap, cap

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise VerificationError(f"unpacks to more than {self._cap} bytes.")
        return data


def _tar_members(stream: _Capped) -> Iterator[_Member]:
    """The members as they come: nothing behind one that is refused is read."""
    with tarfile.open(fileobj=stream, mode="r|", errorlevel=2) as archive:  # type: ignore[call-overload]
        while (found := archive.next()) is not None:
            if found.issparse() or not (found.isreg() or found.isdir()):
                raise VerificationError(f"{_quoted(found.name)} is a link or a device, not a plain file.")
            yield _Member(found.name, found.isdir(), found.size, partial(archive.extractfile, found))
            archive.members = []  # tarfile would keep them all in memory
    while stream.read(CHUNK):  # to its end, where gzip and xz keep their checksum
        pass


def _zip_members(archive: zipfile.ZipFile, limits: Limits) -> Iterator[_Member]:
    entries = archive.infolist()
    if len(entries) > limits.members:
        raise VerificationError(f"more than {limits.members} members.")
    _refuse_overlaps(entries)
    for found in entries:
        kind = found.external_attr >> 28  # the file type of a Unix mode; 0 where there is none
        if kind not in (0, 0o10, 0o04):
            raise VerificationError(f"{_quoted(found.orig_filename)} is a link or a device, not a plain file.")
        if found.flag_bits & 0x1:
            raise VerificationError(f"{_quoted(found.orig_filename)} is encrypted.")
        # orig_filename, because zipfile cuts names at NUL and rewrites separators.
        yield _Member(found.orig_filename, found.is_dir(), found.file_size, partial(archive.open, found))


def _refuse_overlaps(entries: list[zipfile.ZipInfo]) -> None:
    """Entries that share bytes are how a small file becomes a huge one."""
    end = 0
    for found in sorted(entries, key=lambda found: found.header_offset):
        if found.header_offset < end:
            raise VerificationError(f"{_quoted(found.orig_filename)} overlaps another entry.")
        end = found.header_offset + 30 + len(found.orig_filename) + found.compress_size  # at least


def _grows(member: _Member, cap: int) -> str:
    return f"with {_quoted(member.name)} it unpacks to more than {cap} bytes, its limit."


def _quoted(name: str) -> str:
    return ascii(name if len(name) <= 120 else name[:117] + "…")
