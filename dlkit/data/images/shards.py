"""Tar shards of WebDataset: files with the same name up to the first dot are a sample (0001.jpg, 0001.cls).

Nothing is extracted. The headers of a shard are read once; images are then read by offset, in any order. The package
webdataset is not used: it streams shards through a shuffle buffer, so that the order of an epoch and a resume would
depend on the number of workers.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

from dlkit.atomic_io import storage_errors
from dlkit.data.images.byte_ranges import ByteRange
from dlkit.errors import MALFORMED, DataError

MAX_SHARDS = 100_000
MAX_DIGITS = 20  # of a shard's number; int() accepts at most 4,300
COMPRESSED = {b"\x1f\x8b": "gzip", b"\xfd7zXZ\0": "xz", b"BZh": "bzip2", b"\x28\xb5\x2f\xfd": "zstd"}
RANGE = re.compile(r"(\d+)\.\.(\d+)")

Sample = dict[str, ByteRange]  # extension, in lower case → the member


def expand_braces(pattern: str) -> list[str]:
    """The names of a pattern with braces: {000..009} is a range, {train,val} alternatives.

    Raises:
        DataError: an unbalanced brace, or more than MAX_SHARDS names.
    """
    match = re.search(r"\{([^{}]*)\}", pattern)
    if match is None:
        if "{" in pattern or "}" in pattern:
            raise DataError(f"{pattern}: unbalanced brace. A range of shards looks like shard-{{000..099}}.tar.")
        return [pattern]
    numbers = RANGE.fullmatch(match[1])
    choices = _expand_range(pattern, numbers[1], numbers[2]) if numbers else match[1].split(",")
    head, tail = pattern[: match.start()], pattern[match.end() :]
    names = [name for choice in choices for name in expand_braces(head + choice + tail)]
    if len(names) > MAX_SHARDS:
        raise DataError(f"{pattern}: more than {MAX_SHARDS:,} shards.")
    return names


def samples(shard: Path) -> Iterator[tuple[str, Sample]]:
    """The samples of a shard in order, with their keys; skips hidden files.

    Raises:
        DataError: no such file, a compressed, truncated or damaged one, or a member that is a link or a duplicate.
    """
    by_key: dict[str, Sample] = {}
    for piece in _members(shard):
        folder, slash, file = piece.name.rpartition("/")
        stem, _, extension = file.partition(".")
        if file.startswith(".") or "__MACOSX" in piece.name:
            continue
        sample = by_key.setdefault(folder + slash + stem, {})
        if extension.lower() in sample:
            raise DataError(f"{shard}: contains {piece.name!a} twice.")
        sample[extension.lower()] = piece
    yield from by_key.items()


def _expand_range(pattern: str, first: str, last: str) -> list[str]:
    if max(len(first), len(last)) > MAX_DIGITS or int(last) < int(first) or int(last) - int(first) >= MAX_SHARDS:
        raise DataError(f"{pattern}: the range {{{first}..{last}}} is decreasing or too long.")
    return [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]


def _members(shard: Path) -> Iterator[ByteRange]:
    if not shard.is_file():
        raise DataError(f"{shard}: there is no such file.")
    with storage_errors(shard), open(shard, "rb") as file:
        _refuse_compressed(shard, file.read(6))
        file.seek(0)
        try:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                yield from _pieces(shard, archive)
                end = archive.offset
        except (DataError, OSError):
            raise
        except (tarfile.TarError, *MALFORMED) as error:
            raise DataError(f"{shard}: not a complete tar file: {error}.") from error
        file.seek(end)
        if file.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:  # for tarfile, a bad header is the end
            raise DataError(f"{shard}: damaged or truncated after byte {end:,}.")


def _pieces(shard: Path, archive: tarfile.TarFile) -> Iterator[ByteRange]:
    while (member := archive.next()) is not None:
        archive.members = []  # type: ignore[attr-defined]  # otherwise tarfile stores them all
        if member.isdir():
            continue
        if not member.isreg() or member.issparse():
            raise DataError(f"{shard}: {member.name!a} is a link or a device, not a regular file.")
        yield ByteRange(shard, member.name, member.offset_data, member.size)


def _refuse_compressed(shard: Path, head: bytes) -> None:
    for magic, name in COMPRESSED.items():
        if head.startswith(magic):
            raise DataError(f"{shard}: is compressed with {name}, so images cannot be read by offset. Decompress it.")
