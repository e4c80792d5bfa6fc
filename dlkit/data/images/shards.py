"""Tar shards as WebDataset writes them: files that share a name up to its first dot are a sample (0001.jpg, 0001.cls).

Nothing is unpacked. A shard's headers are read once; an image is then read by its place in the shard, in any order.
The package webdataset is not used: it streams shards through a shuffle buffer, so that neither the order of an epoch
nor a resume could be the same for every number of workers.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

from dlkit.atomic_io import storage_errors
from dlkit.data.images.byte_ranges import ByteRange
from dlkit.errors import MALFORMED, DataError

MOST_SHARDS = 100_000
MOST_DIGITS = 20  # of a shard's number; Python reads no more than 4,300
COMPRESSED = {b"\x1f\x8b": "gzip", b"\xfd7zXZ\0": "xz", b"BZh": "bzip2", b"\x28\xb5\x2f\xfd": "zstd"}
RANGE = re.compile(r"(\d+)\.\.(\d+)")

Sample = dict[str, ByteRange]  # ending, in lower case → the member


def expanded(pattern: str) -> list[str]:
    """The names that a pattern with braces stands for: {000..009} counts, {train,val} chooses.

    Raises:
        DataError: a brace without its other half, or more names than anyone has shards.
    """
    match = re.search(r"\{([^{}]*)\}", pattern)
    if match is None:
        if "{" in pattern or "}" in pattern:
            raise DataError(f"{pattern}: a brace has no other half. Shards are counted like shard-{{000..099}}.tar.")
        return [pattern]
    counted = RANGE.fullmatch(match[1])
    choices = _counted(pattern, counted[1], counted[2]) if counted else match[1].split(",")
    head, tail = pattern[: match.start()], pattern[match.end() :]
    names = [name for choice in choices for name in expanded(head + choice + tail)]
    if len(names) > MOST_SHARDS:
        raise DataError(f"{pattern}: more than {MOST_SHARDS:,} shards.")
    return names


def samples(shard: Path) -> Iterator[tuple[str, Sample]]:
    """The samples of a shard with their keys, in its order; hidden files are left out.

    Raises:
        DataError: no such file, compressed, cut off or damaged, or with a member that is a link or comes twice.
    """
    found: dict[str, Sample] = {}
    for piece in _members(shard):
        folder, slash, file = piece.name.rpartition("/")
        stem, _, ending = file.partition(".")
        if file.startswith(".") or "__MACOSX" in piece.name:
            continue
        sample = found.setdefault(folder + slash + stem, {})
        if ending.lower() in sample:
            raise DataError(f"{shard}: holds {piece.name!a} twice.")
        sample[ending.lower()] = piece
    yield from found.items()


def _counted(pattern: str, first: str, last: str) -> list[str]:
    if max(len(first), len(last)) > MOST_DIGITS or int(last) < int(first) or int(last) - int(first) >= MOST_SHARDS:
        raise DataError(f"{pattern}: {{{first}..{last}}} does not count up, or too far.")
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
            raise DataError(f"{shard}: not a whole tar file: {error}.") from error
        file.seek(end)
        if file.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:  # tarfile takes a bad header for the end
            raise DataError(f"{shard}: damaged or cut off behind byte {end:,}.")


def _pieces(shard: Path, archive: tarfile.TarFile) -> Iterator[ByteRange]:
    while (member := archive.next()) is not None:
        archive.members = []  # type: ignore[attr-defined]  # tarfile would keep them all in memory
        if member.isdir():
            continue
        if not member.isreg() or member.issparse():
            raise DataError(f"{shard}: {member.name!a} is a link or a device, not a plain file.")
        yield ByteRange(shard, member.name, member.offset_data, member.size)


def _refuse_compressed(shard: Path, head: bytes) -> None:
    for magic, name in COMPRESSED.items():
        if head.startswith(magic):
            raise DataError(f"{shard}: is compressed with {name}, so no image can be read by its place. Unpack it.")
