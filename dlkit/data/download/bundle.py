"""Data sets for a machine without a network: out of one cache into a tar file, out of that into another cache.

A bundle holds the folders of the sets as they are in the cache, each with its manifest. Equal sets give equal bytes,
so a bundle has one SHA-256. Taken up again, its members obey dlkit.data.download.archives, every file must have the
digest that the manifest says, and the one that dlkit pins where it pins one: what is altered is refused whole.
"""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dlkit import atomic_io, cache
from dlkit.data.download import store as dataset_cache
from dlkit.data.download.archives import Limits, extract
from dlkit.data.download.download import digest, locked, nothing_said
from dlkit.data.download.store import MANIFEST, Cached, Say
from dlkit.errors import DataError, DlkitError, UsageError, VerificationError

LIMITS = Limits(members=2_000_000, bytes=1 << 41)  # ImageNet is 1.3 million files of 150 GB


@dataclass(frozen=True)
class Bundle:
    """A file of data sets."""

    path: Path
    names: tuple[str, ...]
    bytes: int
    sha256: str


def bundle(names: Iterable[str], output: Path, *, say: Say = nothing_said) -> Bundle:
    """Put sets of the cache into one tar file, verified.

    Raises:
        UsageError: a set needs no download; there is nothing of it to carry.
        DataError: a set is not in the cache.
        VerificationError: a file of it is not what it was.
        StorageError: the file cannot be written; nothing of it is left.
    """
    with atomic_io.storage_errors(output.parent):
        output.parent.stat()
    found = {cached.folder: cached for cached in map(dataset_cache.verify, dict.fromkeys(names))}
    with (
        atomic_io.replacing(output) as file,
        tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for folder, cached in found.items():
            say(f"{cached.name}: {len(cached.files):,} files, {cached.bytes / 1e6:,.1f} MB")
            for name in (MANIFEST, *sorted(file.name for file in cached.files)):
                _add(archive, folder / name, f"{folder.name}/{name}")
    return Bundle(output, tuple(cached.name for cached in found.values()), output.stat().st_size, digest(output))


def unbundle(path: Path, *, say: Say = nothing_said) -> list[Cached]:
    """Take the sets of a bundle into the cache; one that is there already is left alone.

    Every set is verified before the first one gets its place; each then appears by one rename.

    Raises:
        DataError: no such file, or not a bundle.
        VerificationError: damaged, altered or hostile; nothing of it is kept.
        StorageError: the cache cannot be written.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such file.")
    temporary = dataset_cache.beside(cache.writable(cache.datasets_dir()) / "bundle")
    dataset_cache.remove_leftovers(temporary.parent, "bundle")
    try:
        extract(path, temporary, LIMITS)
        try:
            sets = {folder: _verified(folder) for folder in sorted(temporary.iterdir())}
        except DlkitError as error:
            raise type(error)(f"{path}: {error} Nothing was taken from it.") from error
        return [_put(name, folder, say) for folder, name in sets.items()]
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _add(archive: tarfile.TarFile, path: Path, name: str) -> None:
    member = tarfile.TarInfo(name)
    with atomic_io.storage_errors(path), open(path, "rb") as file:
        member.size = path.stat().st_size
        archive.addfile(member, file)


def _verified(folder: Path) -> str:
    """The name of the set in a folder that was just unpacked, its files compared with its manifest."""
    if not (folder / MANIFEST).is_file():
        raise DataError(f"not a bundle of data sets: {folder.name!a} has no {MANIFEST}.")
    files = dataset_cache.manifest(folder)
    there = {found.relative_to(folder).as_posix() for found in folder.rglob("*") if not found.is_dir()}
    if strange := sorted(there ^ {*files, MANIFEST}):
        raise VerificationError(f"{folder.name}/{strange[0]}: in the manifest or in the bundle, but not in both.")
    try:
        dataset_cache.downloadable(folder.name)
    except UsageError as error:
        raise DataError(f"holds {folder.name!r}, which is no data set that this dlkit downloads.") from error
    try:
        dataset_cache.compared(folder.name, folder, hashed=True)
    except VerificationError as error:
        raise VerificationError(f"{folder.name}/{error}") from error
    return folder.name


def _put(name: str, folder: Path, say: Say) -> Cached:
    final = dataset_cache.home(name)
    with locked(final, say):
        if found := dataset_cache.intact(name, say):
            say(f"{name}: in the cache already")
            return found
        dataset_cache.put_in_place(folder, final)
        return dataset_cache.verify(name)
