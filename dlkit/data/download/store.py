"""Named data sets in the cache: got there by one rename, whole or not at all, and compared with their digests.

A set is a folder with a manifest of its files' digests. Where the true digests are pinned (CONTENTS on the shelf) the
files must have those; else the ones that they had when the set was fetched.
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
from dlkit.data.download.download import Progress, digest, fetch, locked, no_progress, nothing_said, place
from dlkit.data.download.http import PATIENT, Network, UnreachableError
from dlkit.data.splits import About, Source
from dlkit.errors import MALFORMED, DataError, DlkitError, StorageError, UsageError, VerificationError
from dlkit.privacy import offline

SCHEMA = "dlkit.dataset/1"
MANIFEST = "manifest.json"
HASHED_ON_USE = 1 << 30  # bytes; of a larger set only the sizes are compared

Say = Callable[[str], None]


@dataclass(frozen=True)
class File:
    """A file of a data set in the cache."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Cached:
    """A data set in the cache whose files are what they were, or what their publisher says."""

    name: str
    folder: Path
    files: tuple[File, ...]
    fetched: bool = False  # now, by this call

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)


def download(
    name: str,
    source: str | None = None,
    *,
    say: Say = nothing_said,
    progress: Progress = no_progress,
    network: Network = PATIENT,
) -> Cached:
    """Have a named set in the cache; `source` is the --from folder, file or URL, and then the only one.

    Raises:
        UsageError: the set needs no download, or `source` holds none of its files.
        VerificationError: the bytes are not the set's; nothing of them is kept.
        StorageError: no source could be reached, or the disk refuses. What was fetched so far is taken up next time.
    """
    module = downloadable(name)
    about = about_of(name)
    assert about is not None, "what can be fetched describes itself"
    files = about.files if source is None else _trusting_contents(place(source, about.files), module)
    base = cache.writable(cache.datasets_dir())
    place_in_cache = home(name).name
    parts = base / f".{place_in_cache}.parts"
    with locked(base / place_in_cache, say, network.waiting_says_s):
        if found := intact(name, say):
            return found
        if source is None and offline():
            raise UnreachableError(
                f"data set {name!r} is not in the cache, and DLKIT_OFFLINE forbids the network. Unset it, or give a "
                f"copy: dlkit dataset download {name} --from PLACE."
            )
        remove_leftovers(base, place_in_cache)
        try:
            fetched = _install(name, module, _supplier(parts, files, say, progress, network))
        except VerificationError:
            shutil.rmtree(parts, ignore_errors=True)
            raise
        except StorageError as error:
            if found := intact(name, nothing_said):  # as in _install
                shutil.rmtree(parts, ignore_errors=True)
                return found
            if isinstance(error, UnreachableError):
                raise UnreachableError(f"{error} Try again, or: dlkit dataset download {name} --from PLACE.") from error
            raise
        shutil.rmtree(parts, ignore_errors=True)
        return replace(verify(name), fetched=fetched)


def verify(name: str) -> Cached:
    """Compare every file of a set in the cache with its digest.

    Raises:
        DataError: the set is not in the cache.
        VerificationError: a file is missing or altered; the message names it and the command that repairs it.
    """
    downloadable(name)
    folder = home(name)
    if not cache.present(folder):
        raise not_here(name)
    return Cached(name, folder, check(name, folder, hashed=True))


def not_here(name: str) -> DataError:
    return DataError(f"data set {name!r} is not in the cache. Fetch it: dlkit dataset download {name}.")


def about_of(name: str) -> About | None:
    """What a set says of itself; a family whose members are other files has one About each."""
    about: About | Mapping[str, About] | None = getattr(registry.load("datasets", name), "ABOUT", None)
    return about[name] if isinstance(about, Mapping) else about


def home(name: str) -> Path:
    """A set's folder in the cache; members of a family that are read from the same files share one."""
    abouts: About | Mapping[str, About] | None = getattr(registry.load("datasets", name), "ABOUT", None)
    if isinstance(abouts, Mapping):
        return cache.datasets_dir() / next(other for other in abouts if abouts[other].files == abouts[name].files)
    return cache.datasets_dir() / registry.entry("datasets", name).family


def downloadable(name: str) -> ModuleType:
    module = registry.load("datasets", name)
    if not hasattr(module, "fetch"):
        reason = "is made by code" if hasattr(module, "ABOUT") else "is your own"
        raise UsageError(f"data set {name!r} {reason}; there is nothing to download or verify.")
    return module


def _trusting_contents(files: dict[str, list[Source]], module: ModuleType) -> dict[str, list[Source]]:
    """Drop the digest of a .gz whose uncompressed file is pinned: another compressor gives other bytes around it."""
    contents = getattr(module, "CONTENTS", {})
    return {
        name: [replace(source, digest="", size=0) for source in sources]
        if name.removesuffix(".gz") in contents
        else sources
        for name, sources in files.items()
    }


def _supplier(
    parts: Path, files: Mapping[str, list[Source]] | Mapping[str, Any], say: Say, progress: Progress, network: Network
) -> Callable[[str], Path]:
    """What a shelf file calls to get a verified file by name. Files wait in `parts` until the whole set is there."""

    def supply(name: str) -> Path:
        if name not in files:
            raise UnreachableError(f"the place given by --from has no {name}.")
        with atomic_io.storage_errors(parts):
            parts.mkdir(exist_ok=True)
        return fetch(files[name], parts / name, say=say, progress=progress, network=network)

    return supply


def _install(name: str, module: ModuleType, supply: Callable[[str], Path]) -> bool:
    """Prepare the set in a folder beside its place, then rename it there; whether it was not there by then."""
    folder = home(name)
    temporary = beside(folder)
    try:
        with atomic_io.storage_errors(temporary):
            temporary.mkdir()
        fixed, taken = registry.entry("datasets", name).fixed, module.fetch.__kwdefaults__ or {}
        module.fetch(temporary, supply, **{option: value for option, value in fixed.items() if option in taken})
        _write_manifest(name, module, temporary)
        there = os.path.lexists(folder)
        if there and intact(name, nothing_said):  # where locks do not work, another process was quicker
            return False
        put_in_place(temporary, folder, there)  # never moves a whole one away, which a third may be reading
        return True
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_manifest(name: str, module: ModuleType, folder: Path) -> None:
    """Note each file's digest; where the true one is known, it must be that."""
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        file = path.relative_to(folder).as_posix()
        files[file] = {"bytes": path.stat().st_size, "sha256": digest(path)}
    for file, (_, expected) in getattr(module, "CONTENTS", {}).items():
        found = files.get(file, {}).get("sha256", "no such file")
        if found != expected:
            raise VerificationError(f"{name}: {file} has SHA-256 {found}, expected {expected}. Nothing was kept.")
    documents.write(folder / MANIFEST, {"schema": SCHEMA, "name": name, "files": files})


def put_in_place(temporary: Path, folder: Path, instead: bool = True) -> None:
    """Rename the finished folder; with `instead`, what stands there gives way."""
    old = beside(folder)
    with atomic_io.storage_errors(folder):
        if instead and folder.is_dir() and not folder.is_symlink():
            folder.rename(old)
        elif instead and os.path.lexists(folder):
            folder.unlink()
    atomic_io.move_folder(temporary, folder)
    shutil.rmtree(old, ignore_errors=True)


def intact(name: str, say: Say) -> Cached | None:
    """The set as it is in the cache, if it is there and right."""
    try:
        return verify(name)
    except VerificationError as error:
        say(f"{error} Fetching it anew.")
    except DlkitError:
        pass
    return None


def remove_leftovers(base: Path, name: str) -> None:
    """What a killed process left of this set. Its parts stay: a broken download is taken up."""
    for folder in base.glob(f".{name}.*.tmp"):
        if not _is_alive(folder.name.split(".")[2].partition("-")[0]):  # it may be, where locks do not work
            shutil.rmtree(folder, ignore_errors=True)


def beside(folder: Path) -> Path:
    """A new temporary name beside a folder, with this process's id in it."""
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


def check(name: str, folder: Path, hashed: bool = False) -> tuple[File, ...]:
    """The files of a set in the cache, compared with the manifest and with the true digests where they are known."""
    with _repairable(name, folder):
        return compared(name, folder, hashed)


def recorded(name: str) -> tuple[File, ...]:
    """The files of a set in the cache as they were when it was fetched."""
    with _repairable(name, home(name)):
        return tuple(manifest(home(name)).values())


@contextmanager
def _repairable(name: str, folder: Path) -> Iterator[None]:
    try:
        yield
    except VerificationError as error:
        raise VerificationError(f"{folder}{os.sep}{error} Repair it: dlkit dataset download {name}.") from error


def compared(name: str, folder: Path, hashed: bool = False) -> tuple[File, ...]:
    """As check, for a set in any folder.

    Raises:
        VerificationError: the message names the file within the folder.
    """
    files = manifest(folder)
    pinned = getattr(registry.load("datasets", name), "CONTENTS", {})
    hashed = hashed or sum(file.bytes for file in files.values()) <= HASHED_ON_USE
    for file in files.values():
        size, expected = pinned.get(file.name, (file.bytes, file.sha256))
        try:
            found = (folder / file.name).stat().st_size
        except OSError as error:
            raise VerificationError(f"{file.name}: {error.strerror or error}.") from error
        if found != size:
            raise VerificationError(f"{file.name}: {found} bytes instead of {size}.")
        if hashed and (sha256 := digest(folder / file.name)) != expected:
            raise VerificationError(f"{file.name}: SHA-256 {sha256} instead of {expected}.")
    if missing := [file for file in pinned if file not in files]:
        raise VerificationError(f"{missing[0]}: not in the manifest.")
    return tuple(files.values())


def manifest(folder: Path) -> dict[str, File]:
    """What the manifest in `folder` says of its files, by name."""
    try:
        document = documents.read(folder / MANIFEST)
        return {
            file: File(file, int(facts["bytes"]), str(facts["sha256"])) for file, facts in document["files"].items()
        }
    except (DlkitError, *MALFORMED) as error:
        raise VerificationError(f"{MANIFEST}: missing or damaged.") from error
