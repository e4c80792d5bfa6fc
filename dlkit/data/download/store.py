"""Downloaded data sets in the cache: installed atomically by one rename and verified by their digests.

A data set is a folder with a manifest of its files' digests. Files with a pinned digest (CONTENTS of the data set's
module) must have that one, others the one that they had when downloaded.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from dlkit import atomic_io, cache, documents, registry
from dlkit.data.download.download import Progress, digest, fetch, locked, no_log, no_progress, override_sources
from dlkit.data.download.http import DEFAULT_RETRIES, RetryPolicy, UnreachableError
from dlkit.data.splits import About, Source
from dlkit.errors import MALFORMED, DataError, DlkitError, StorageError, UsageError, VerificationError
from dlkit.privacy import offline

SCHEMA = "dlkit.dataset/1"
MANIFEST = "manifest.json"
HASHED_ON_USE = 1 << 30  # bytes; of a larger data set only the file sizes are compared

Log = Callable[[str], None]


@dataclass(frozen=True)
class CachedFile:
    """A file of a data set in the cache."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class CachedDataset:
    """A verified data set in the cache."""

    name: str
    folder: Path
    files: tuple[CachedFile, ...]
    fetched: bool = False  # by this call

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)


def download(
    name: str,
    source: str | None = None,
    *,
    log: Log = no_log,
    progress: Progress = no_progress,
    retries: RetryPolicy = DEFAULT_RETRIES,
) -> CachedDataset:
    """Downloads a data set into the cache, from its own sources or only from `source`: a folder, file or URL.

    Raises:
        UsageError: the data set needs no download, or `source` holds none of its files.
        VerificationError: wrong bytes; none of them are kept.
        StorageError: no source could be reached, or the disk is full or not writable. The next call resumes.
    """
    module = downloadable(name)
    about = about_of(name)
    assert about is not None, "a data set with fetch has ABOUT"
    files = about.files if source is None else _drop_archive_digests(override_sources(source, about.files), module)
    base = cache.writable(cache.datasets_dir())
    folder_name = cache_folder(name).name
    parts = base / f".{folder_name}.parts"
    with locked(base / folder_name, log, retries.lock_message_s):
        if cached := find_valid(name, log):
            return cached
        if source is None and offline():
            raise UnreachableError(
                f"data set {name!r} is not in the cache, and DLKIT_OFFLINE forbids the network. Unset it, or use a "
                f"copy: dlkit dataset download {name} --from DIR."
            )
        remove_leftovers(base, folder_name)
        try:
            fetched = _install(name, module, _supplier(parts, files, log, progress, retries))
        except VerificationError:
            shutil.rmtree(parts, ignore_errors=True)
            raise
        except StorageError as error:
            if cached := find_valid(name, no_log):  # as in _install
                shutil.rmtree(parts, ignore_errors=True)
                return cached
            if isinstance(error, UnreachableError):
                raise UnreachableError(
                    f"{error} Try again, or use a copy: dlkit dataset download {name} --from DIR."
                ) from error
            raise
        shutil.rmtree(parts, ignore_errors=True)
        return replace(verify(name), fetched=fetched)


def verify(name: str) -> CachedDataset:
    """Compares every file of a data set in the cache with its digest.

    Raises:
        DataError: the data set is not in the cache.
        VerificationError: a file is missing or altered; the message names it and the repair command.
    """
    downloadable(name)
    folder = cache_folder(name)
    if not cache.present(folder):
        raise not_cached(name)
    return CachedDataset(name, folder, check(name, folder, hashed=True))


def not_cached(name: str) -> DataError:
    return DataError(f"data set {name!r} is not in the cache. Download it: dlkit dataset download {name}.")


def about_of(name: str) -> About | None:
    """The About of a data set; a family whose members have different files has one each."""
    about: About | Mapping[str, About] | None = getattr(registry.load("datasets", name), "ABOUT", None)
    return about[name] if isinstance(about, Mapping) else about


def cache_folder(name: str) -> Path:
    """A data set's folder in the cache; members of a family with the same files share one."""
    abouts: About | Mapping[str, About] | None = getattr(registry.load("datasets", name), "ABOUT", None)
    if isinstance(abouts, Mapping):
        return cache.datasets_dir() / next(other for other in abouts if abouts[other].files == abouts[name].files)
    return cache.datasets_dir() / registry.entry("datasets", name).family


def downloadable(name: str) -> ModuleType:
    module = registry.load("datasets", name)
    if not hasattr(module, "fetch"):
        reason = "is generated by code" if hasattr(module, "ABOUT") else "is your own"
        raise UsageError(f"data set {name!r} {reason}; there is nothing to download or verify.")
    return module


def _drop_archive_digests(files: dict[str, list[Source]], module: ModuleType) -> dict[str, list[Source]]:
    """Drops the digest of a .gz if that of its content is pinned: other compressors give other bytes."""
    contents = getattr(module, "CONTENTS", {})
    return {
        name: [replace(source, digest="", size=0) for source in sources]
        if name.removesuffix(".gz") in contents
        else sources
        for name, sources in files.items()
    }


def _supplier(
    parts: Path,
    files: Mapping[str, list[Source]] | Mapping[str, Any],
    log: Log,
    progress: Progress,
    retries: RetryPolicy,
) -> Callable[[str], Path]:
    """The `supply` of a data set: a verified file by name. Files stay in `parts` until all are there."""

    def supply(name: str) -> Path:
        if name not in files:
            raise UnreachableError(f"--from has no {name}.")
        with atomic_io.storage_errors(parts):
            parts.mkdir(exist_ok=True)
        return fetch(files[name], parts / name, log=log, progress=progress, retries=retries)

    return supply


def _install(name: str, module: ModuleType, supply: Callable[[str], Path]) -> bool:
    """Prepares the data set in a temporary folder and renames it; False if another process was faster."""
    folder = cache_folder(name)
    temporary = temporary_name(folder)
    try:
        with atomic_io.storage_errors(temporary):
            temporary.mkdir()
        fixed, accepted = registry.entry("datasets", name).fixed, module.fetch.__kwdefaults__ or {}
        module.fetch(temporary, supply, **{option: value for option, value in fixed.items() if option in accepted})
        _write_manifest(name, module, temporary)
        exists = os.path.lexists(folder)
        if exists and find_valid(name, no_log):  # without working locks another process may be faster
            return False
        install_folder(temporary, folder, exists)  # never replaces a valid one, which a third process may be reading
        return True
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_manifest(name: str, module: ModuleType, folder: Path) -> None:
    """Records the digest of each file, which must be the pinned one if there is one."""
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        file = path.relative_to(folder).as_posix()
        files[file] = {"bytes": path.stat().st_size, "sha256": digest(path)}
    for file, (_, expected) in getattr(module, "CONTENTS", {}).items():
        actual = files.get(file, {}).get("sha256", "no such file")
        if actual != expected:
            raise VerificationError(f"{name}: {file} has SHA-256 {actual}, expected {expected}. Nothing was kept.")
    documents.write(folder / MANIFEST, {"schema": SCHEMA, "name": name, "files": files})


def install_folder(temporary: Path, folder: Path, replace_existing: bool = True) -> None:
    """Renames the finished folder, replacing an existing one."""
    old = temporary_name(folder)
    with atomic_io.storage_errors(folder):
        if replace_existing and folder.is_dir() and not folder.is_symlink():
            folder.rename(old)
        elif replace_existing and os.path.lexists(folder):
            folder.unlink()
    atomic_io.move_folder(temporary, folder)
    shutil.rmtree(old, ignore_errors=True)


def find_valid(name: str, log: Log) -> CachedDataset | None:
    """The data set in the cache, if it is present and valid."""
    try:
        return verify(name)
    except VerificationError as error:
        log(f"{error} Downloading it again.")
    except DlkitError:
        pass
    return None


def remove_leftovers(base: Path, name: str) -> None:
    """Removes temporary folders of killed processes. Partial downloads stay and are resumed."""
    for folder in base.glob(f".{name}.*.tmp"):
        if not _is_alive(folder.name.split(".")[2].partition("-")[0]):  # possible if locks do not work
            shutil.rmtree(folder, ignore_errors=True)


def temporary_name(folder: Path) -> Path:
    """A new temporary name beside a folder, containing the process id."""
    return folder.with_name(f".{folder.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def _is_alive(process: str) -> bool:
    if not process.isdecimal() or int(process) == os.getpid():
        return False
    try:
        os.kill(int(process), 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def check(name: str, folder: Path, hashed: bool = False) -> tuple[CachedFile, ...]:
    """The files of a data set in the cache, compared with the manifest and the pinned digests."""
    with _repairable(name, folder):
        return check_folder(name, folder, hashed)


def recorded_files(name: str) -> tuple[CachedFile, ...]:
    """The files of a data set in the cache, from its manifest."""
    with _repairable(name, cache_folder(name)):
        return tuple(manifest(cache_folder(name)).values())


@contextmanager
def _repairable(name: str, folder: Path) -> Iterator[None]:
    try:
        yield
    except VerificationError as error:
        raise VerificationError(f"{folder}{os.sep}{error} Repair it: dlkit dataset download {name}.") from error


def check_folder(name: str, folder: Path, hashed: bool = False) -> tuple[CachedFile, ...]:
    """As `check`, for a data set in any folder.

    Raises:
        VerificationError: the message names the file within the folder.
    """
    files = manifest(folder)
    pinned = getattr(registry.load("datasets", name), "CONTENTS", {})
    hashed = hashed or sum(file.bytes for file in files.values()) <= HASHED_ON_USE
    for file in files.values():
        size, expected = pinned.get(file.name, (file.bytes, file.sha256))
        try:
            actual = (folder / file.name).stat().st_size
        except OSError as error:
            raise VerificationError(f"{file.name}: {error.strerror or error}.") from error
        if actual != size:
            raise VerificationError(f"{file.name}: {actual} bytes instead of {size}.")
        if hashed and (sha256 := digest(folder / file.name)) != expected:
            raise VerificationError(f"{file.name}: SHA-256 {sha256} instead of {expected}.")
    if missing := [file for file in pinned if file not in files]:
        raise VerificationError(f"{missing[0]}: not in the manifest.")
    return tuple(files.values())


def manifest(folder: Path) -> dict[str, CachedFile]:
    """The files in the manifest of `folder`, by name."""
    try:
        document = documents.read(folder / MANIFEST)
        return {
            file: CachedFile(file, int(facts["bytes"]), str(facts["sha256"]))
            for file, facts in document["files"].items()
        }
    except (DlkitError, *MALFORMED) as error:
        raise VerificationError(f"{MANIFEST}: missing or damaged.") from error
