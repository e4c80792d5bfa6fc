"""Data sets by name: list them, fetch them, verify them, and hand over their samples.

A named set is a folder of the cache. It appears there by one rename, with a manifest of its files' digests; each use
compares the files with it, so that one altered later is noticed.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from dlkit import cache, catalog, durable
from dlkit.data.download import (
    PATIENT,
    Network,
    Progress,
    UnreachableError,
    digest,
    fetch,
    locked,
    no_progress,
    nothing_said,
    offline,
    place,
)
from dlkit.data.samples import About, MemoryImages, Samples, Source, Splits
from dlkit.errors import DataError, DlkitError, StorageError, UsageError, VerificationError
from dlkit.recipe import Data
from dlkit.specs import ImageSpec

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
class Listed:
    """A line of `dlkit dataset list`; state is "built in", "cached", "not downloaded" or "your own"."""

    name: str
    title: str
    classes: int | None
    sizes: Mapping[str, int]  # split → samples
    state: str


@dataclass(frozen=True)
class Info:
    """What is known of a data set before its samples are loaded."""

    name: str
    title: str
    document: str
    classes: int | None
    sizes: Mapping[str, int]
    licence: str
    citation: str
    options: Mapping[str, Any]
    sources: Mapping[str, tuple[str, ...]]  # file → where it can be had, in order
    state: str
    folder: Path | None  # where it is in the cache
    files: tuple[File, ...]


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


def splits(data: Data, *, allow_download: bool = True, say: Say = nothing_said) -> Splits:
    """The samples that a recipe's data section asks for; a named set that is missing is downloaded, and said.

    Raises:
        UsageError: an unknown name or option, or a size or number of channels that the set does not have.
        DataError: a folder that is no data set.
        VerificationError: a file in the cache is not what it was.
        StorageError: the set is missing and cannot be had.
    """
    module = catalog.load("datasets", data.name)
    options = _options(data)
    found: Splits = module.load(_folder(data, module, allow_download, say), **options)
    spec = found.spec
    if not isinstance(spec, ImageSpec):  # data.size and data.channels were refused with the recipe
        return found
    if data.size is not None and data.size != spec.height:
        raise UsageError(
            f"data set {data.name!r} has images of {spec.height} × {spec.width} pixels; "
            f"data.size {data.size} does not fit it. Leave data.size out."
        )
    return _with_channels(found, spec, data)


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
    module = _downloadable(name)
    about = about_of(name)
    assert about is not None, "what can be fetched describes itself"
    files = about.files if source is None else _trusting_contents(place(source, about.files), module)
    base = cache.writable(cache.datasets_dir())
    place_in_cache = _home(name).name
    with locked(base / place_in_cache, say, network.waiting_says_s):
        if found := _intact(name, say):
            return found
        if source is None and offline():
            raise UnreachableError(
                f"data set {name!r} is not in the cache, and DLKIT_OFFLINE forbids the network. Unset it, or give a "
                f"copy: dlkit dataset download {name} --from PLACE."
            )
        _remove_leftovers(base, place_in_cache)
        try:
            _install(name, module, _supplier(base / f".{place_in_cache}.parts", files, say, progress, network))
        except StorageError as error:
            if found := _intact(name, nothing_said):  # where locks do not work, another process was quicker
                return found
            if isinstance(error, UnreachableError):
                raise UnreachableError(f"{error} Try again, or: dlkit dataset download {name} --from PLACE.") from error
            raise
        return replace(verify(name), fetched=True)


def verify(name: str) -> Cached:
    """Compare every file of a set in the cache with its digest.

    Raises:
        DataError: the set is not in the cache.
        VerificationError: a file is missing or altered; the message names it and the command that repairs it.
    """
    module = _downloadable(name)
    folder = _home(name)
    if not cache.present(folder):
        raise DataError(f"data set {name!r} is not in the cache. Fetch it: dlkit dataset download {name}.")
    return Cached(name, folder, _check(name, module, folder, hashed=True))


def info(name: str) -> Info:
    """What a data set is, where it comes from and whether it is here."""
    entry, module = catalog.entry("datasets", name), catalog.load("datasets", name)
    about = about_of(name)
    sources = about.files if about else {}
    folder = _home(name)
    here = hasattr(module, "fetch") and cache.present(folder)
    return Info(
        name=name,
        title=about.title if about else entry.summary,
        document=entry.document,
        classes=about.classes if about else None,
        sizes=about.sizes if about else {},
        licence=about.licence if about else "",
        citation=about.citation if about else "",
        options={**entry.options, **entry.fixed},
        sources={file: tuple(source.url for source in origins) for file, origins in sources.items()} if about else {},
        state=_state(name, module),
        folder=folder if here else None,
        files=tuple(_manifest(name, folder).values()) if here else (),
    )


def listing() -> list[Listed]:
    """Every data set, by name."""
    found = []
    for name, entry in catalog.entries("datasets").items():
        module = catalog.load("datasets", name)
        about = about_of(name)
        title, classes, sizes = (about.title, about.classes, about.sizes) if about else (entry.summary, None, {})
        found.append(Listed(name, title, classes, sizes, _state(name, module)))
    return found


def about_of(name: str) -> About | None:
    """What a set says of itself; a family whose members are other files has one About each."""
    about: About | Mapping[str, About] | None = getattr(catalog.load("datasets", name), "ABOUT", None)
    return about[name] if isinstance(about, Mapping) else about


def _home(name: str) -> Path:
    """A set's folder in the cache; members of a family that are read from the same files share one."""
    abouts: About | Mapping[str, About] | None = getattr(catalog.load("datasets", name), "ABOUT", None)
    if isinstance(abouts, Mapping):
        return cache.datasets_dir() / next(other for other in abouts if abouts[other].files == abouts[name].files)
    return cache.datasets_dir() / catalog.entry("datasets", name).family


def _options(data: Data) -> dict[str, Any]:
    """The options of the set's load, with data.size and data.channels where it takes them."""
    options = catalog.resolved_options("datasets", data.name, data.options)
    defaults = catalog.entry("datasets", data.name).options
    for name, value in data.options.items():
        wanted = type(defaults[name])
        if type(value) is not wanted and not (wanted is float and type(value) is int):
            raise UsageError(f"data.options.{name} of {data.name!r} is {value!r}; it takes {wanted.__name__}.")
    for name, value in (("size", data.size), ("channels", data.channels)):
        if name in options and value is not None:
            if data.options.get(name, value) != value:
                raise UsageError(
                    f"data.{name} is {value} and data.options.{name} is {data.options[name]}; say it once."
                )
            options[name] = value
    return options


def _folder(data: Data, module: ModuleType, allow_download: bool, say: Say) -> Path | None:
    """Where the samples are: the user's own folder, the cache, or nowhere where code makes them."""
    if not hasattr(module, "ABOUT"):
        if data.dir is None:
            raise UsageError(f"data set {data.name!r} needs to know where your data is. Add --data-dir DIR.")
        return Path(data.dir)
    if data.dir is not None:
        raise UsageError(f"data set {data.name!r} takes no --data-dir. Your own data is {_own(data)}.")
    if not hasattr(module, "fetch"):
        return None
    folder = _home(data.name)
    if cache.present(folder):
        _check(data.name, module, folder)
    elif allow_download:
        say(f"data set {data.name!r} is not in the cache; downloading it")
        download(data.name, say=say)
    else:
        raise DataError(f"data set {data.name!r} is not in the cache. Fetch it: dlkit dataset download {data.name}.")
    return folder


def _own(data: Data) -> str:
    """The sets that are read from a place of the user's, for data of this kind."""
    names = {"images": "folder", "sequences": "text_folder or text_csv", "trees": "trees"}
    return f"--dataset {names[catalog.kind_given(data.name, data.options)]}"


def _with_channels(found: Splits, spec: ImageSpec, data: Data) -> Splits:
    if data.channels is None or data.channels == spec.channels:
        return found
    if data.channels < spec.channels:
        raise UsageError(
            f"data set {data.name!r} is in colour; data.channels 1 does not fit it. Leave data.channels out."
        )

    def repeated(samples: Samples | None) -> Samples | None:
        if not isinstance(samples, MemoryImages):
            return samples
        return MemoryImages(np.repeat(samples.images, 3, axis=1), samples.targets)

    train = repeated(found.train)
    assert train is not None
    spec = replace(spec, channels=3, mean=spec.mean * 3, std=spec.std * 3)
    return replace(found, spec=spec, train=train, validation=repeated(found.validation), test=repeated(found.test))


def _downloadable(name: str) -> ModuleType:
    module = catalog.load("datasets", name)
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
        with durable.storage_errors(parts):
            parts.mkdir(exist_ok=True)
        return fetch(files[name], parts / name, say=say, progress=progress, network=network)

    return supply


def _install(name: str, module: ModuleType, supply: Callable[[str], Path]) -> None:
    """Prepare the set in a folder beside its place, then rename it there."""
    folder = _home(name)
    parts = folder.with_name(f".{folder.name}.parts")
    temporary = _beside(folder)
    try:
        with durable.storage_errors(temporary):
            temporary.mkdir()
        fixed, taken = catalog.entry("datasets", name).fixed, module.fetch.__kwdefaults__ or {}
        module.fetch(temporary, supply, **{option: value for option, value in fixed.items() if option in taken})
        _write_manifest(name, module, temporary)
        _put_in_place(temporary, folder)
    except VerificationError:
        shutil.rmtree(parts, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(parts, ignore_errors=True)


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
    durable.write_json(folder / MANIFEST, {"schema": SCHEMA, "name": name, "files": files})


def _put_in_place(temporary: Path, folder: Path) -> None:
    """Rename the finished folder; a damaged one that stands there gives way."""
    old = _beside(folder)
    with durable.storage_errors(folder):
        if folder.is_dir() and not folder.is_symlink():
            folder.rename(old)
        elif folder.exists() or folder.is_symlink():
            folder.unlink()
    durable.move_folder(temporary, folder)
    shutil.rmtree(old, ignore_errors=True)


def _intact(name: str, say: Say) -> Cached | None:
    """The set as it is in the cache, if it is there and right."""
    try:
        return verify(name)
    except VerificationError as error:
        say(f"{error} Fetching it anew.")
    except DlkitError:
        pass
    return None


def _remove_leftovers(base: Path, name: str) -> None:
    """What a killed process left of this set. Its parts stay: a broken download is taken up."""
    for folder in base.glob(f".{name}.*.tmp"):
        if not _is_alive(folder.name.split(".")[2].partition("-")[0]):  # it may be, where locks do not work
            shutil.rmtree(folder, ignore_errors=True)


def _beside(folder: Path) -> Path:
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


def _check(name: str, module: ModuleType, folder: Path, hashed: bool = False) -> tuple[File, ...]:
    """Compare the files with the manifest, and with the true digests where they are known."""
    files = _manifest(name, folder)
    pinned = getattr(module, "CONTENTS", {})
    hashed = hashed or sum(file.bytes for file in files.values()) <= HASHED_ON_USE
    for file in files.values():
        size, expected = pinned.get(file.name, (file.bytes, file.sha256))
        try:
            found = (folder / file.name).stat().st_size
        except OSError as error:
            raise _damaged(name, folder / file.name, error.strerror or str(error)) from error
        if found != size:
            raise _damaged(name, folder / file.name, f"{found} bytes instead of {size}")
        if hashed and (sha256 := digest(folder / file.name)) != expected:
            raise _damaged(name, folder / file.name, f"SHA-256 {sha256} instead of {expected}")
    if missing := [file for file in pinned if file not in files]:
        raise _damaged(name, folder / missing[0], "not in the manifest")
    return tuple(files.values())


def _manifest(name: str, folder: Path) -> dict[str, File]:
    try:
        document = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return {
            file: File(file, int(facts["bytes"]), str(facts["sha256"])) for file, facts in document["files"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(name, folder / MANIFEST, "missing or damaged") from error


def _damaged(name: str, path: Path, reason: str) -> VerificationError:
    return VerificationError(f"{path}: {reason}. Repair it: dlkit dataset download {name}.")


def _state(name: str, module: ModuleType) -> str:
    if not hasattr(module, "ABOUT"):
        return "your own"
    if not hasattr(module, "fetch"):
        return "built in"
    return "cached" if cache.present(_home(name)) else "not downloaded"
