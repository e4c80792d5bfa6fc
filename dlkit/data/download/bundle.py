"""Bundles: data sets of one cache in a tar file, for the cache of a machine without a network.

A bundle holds the folders of the data sets as in the cache, with their manifests. Equal data sets give equal bytes, so
a bundle has one SHA-256. Extraction follows dlkit.data.download.archives, and every file must have the digest of the
manifest and dlkit's pinned digest, if any; else the whole bundle is refused.
"""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dlkit import atomic_io, cache
from dlkit.data.download import store as dataset_cache
from dlkit.data.download.archives import ExtractLimits, extract
from dlkit.data.download.download import digest, locked, no_log
from dlkit.data.download.store import MANIFEST, CachedDataset, Log
from dlkit.errors import DataError, DlkitError, UsageError, VerificationError

LIMITS = ExtractLimits(members=2_000_000, bytes=1 << 41)  # ImageNet is 1.3 million files of 150 GB


@dataclass(frozen=True)
class Bundle:
    """A tar file of data sets."""

    path: Path
    names: tuple[str, ...]
    bytes: int
    sha256: str


def bundle(names: Iterable[str], output: Path, *, log: Log = no_log) -> Bundle:
    """Writes verified data sets of the cache to one tar file.

    Raises:
        UsageError: a data set needs no download.
        DataError: a data set is not in the cache.
        VerificationError: a file of it was altered.
        StorageError: the file cannot be written; nothing is left of it.
    """
    with atomic_io.storage_errors(output.parent):
        output.parent.stat()
    datasets = {cached.folder: cached for cached in map(dataset_cache.verify, dict.fromkeys(names))}
    with (
        atomic_io.replacing(output) as file,
        tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for folder, cached in datasets.items():
            log(f"{cached.name}: {len(cached.files):,} files, {cached.bytes / 1e6:,.1f} MB")
            for name in (MANIFEST, *sorted(file.name for file in cached.files)):
                _add(archive, folder / name, f"{folder.name}/{name}")
    return Bundle(output, tuple(cached.name for cached in datasets.values()), output.stat().st_size, digest(output))


def unbundle(path: Path, *, log: Log = no_log) -> list[CachedDataset]:
    """Installs the data sets of a bundle in the cache; keeps those that are there already.

    All are verified before the first is installed, each by one rename.

    Raises:
        DataError: no such file, or not a bundle.
        VerificationError: damaged, altered or hostile; nothing is kept.
        StorageError: the cache cannot be written.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file.")
    temporary = dataset_cache.temporary_name(cache.writable(cache.datasets_dir()) / "bundle")
    dataset_cache.remove_leftovers(temporary.parent, "bundle")
    try:
        extract(path, temporary, LIMITS)
        try:
            names = {folder: _verify_extracted(folder) for folder in sorted(temporary.iterdir())}
        except DlkitError as error:
            raise type(error)(f"{path}: {error} Nothing was installed.") from error
        return [_install(name, folder, log) for folder, name in names.items()]
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _add(archive: tarfile.TarFile, path: Path, name: str) -> None:
    member = tarfile.TarInfo(name)
    with atomic_io.storage_errors(path), open(path, "rb") as file:
        member.size = path.stat().st_size
        archive.addfile(member, file)


def _verify_extracted(folder: Path) -> str:
    """The name of the data set in an extracted folder; compares its files with its manifest."""
    if not (folder / MANIFEST).is_file():
        raise DataError(f"not a bundle of data sets: {folder.name!a} has no {MANIFEST}.")
    files = dataset_cache.manifest(folder)
    extracted = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    if difference := sorted(extracted ^ {*files, MANIFEST}):
        raise VerificationError(f"{folder.name}/{difference[0]}: in the manifest or in the bundle, but not in both.")
    try:
        dataset_cache.downloadable(folder.name)
    except UsageError as error:
        raise DataError(f"holds {folder.name!r}, which this dlkit does not download.") from error
    try:
        dataset_cache.check_folder(folder.name, folder, hashed=True)
    except VerificationError as error:
        raise VerificationError(f"{folder.name}/{error}") from error
    return folder.name


def _install(name: str, folder: Path, log: Log) -> CachedDataset:
    final = dataset_cache.cache_folder(name)
    with locked(final, log):
        if cached := dataset_cache.find_valid(name, log):
            log(f"{name}: in the cache already")
            return cached
        dataset_cache.install_folder(folder, final)
        return dataset_cache.verify(name)
