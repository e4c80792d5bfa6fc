"""Data sets by name: list, describe and load them. Downloads are cached by dlkit.data.download.store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from dlkit import cache, registry
from dlkit.atomic_io import storage_errors
from dlkit.config.schema import Data
from dlkit.data.class_selection import select_classes, select_in_spec
from dlkit.data.download.download import no_log
from dlkit.data.download.store import CachedFile, about_of, cache_folder, check, download, not_cached, recorded_files
from dlkit.data.splits import MemoryImages, Samples, Splits
from dlkit.errors import DlkitError, UsageError
from dlkit.specs import ImageSpec, Spec

Log = Callable[[str], None]


@dataclass(frozen=True)
class DatasetSummary:
    """A line of `dlkit dataset list`; state is "built in", "cached", "not downloaded" or "your own"."""

    name: str
    title: str
    classes: int | None
    sizes: Mapping[str, int]  # split → samples
    state: str
    bytes: int | None  # in the cache


@dataclass(frozen=True)
class DatasetInfo:
    """A data set as `dlkit dataset info` prints it."""

    name: str
    title: str
    document: str
    classes: int | None
    sizes: Mapping[str, int]
    licence: str
    citation: str
    options: Mapping[str, Any]
    sources: Mapping[str, tuple[str, ...]]  # file → its URLs, in order
    state: str
    folder: Path | None
    files: tuple[CachedFile, ...]


def splits(data: Data, *, allow_download: bool = True, log: Log = no_log) -> Splits:
    """Loads the data set of a recipe's data section; downloads it, with a log message, if it is not in the cache.

    Raises:
        UsageError: an unknown name or option, or a size or number of channels that does not fit the data set.
        DataError: the folder is not a data set.
        VerificationError: a file in the cache was altered.
        StorageError: the data set is missing and cannot be downloaded.
    """
    module = registry.load("datasets", data.name)
    options = _options(data)
    folder = _folder(data, module, allow_download, log)
    with storage_errors(folder or Path(data.name)):  # a name too long for the system, a folder that was removed
        loaded: Splits = select_classes(module.load(folder, **options), data.classes)
    spec = _adapt_spec(loaded.spec, data)
    if isinstance(spec, ImageSpec) and isinstance(loaded.spec, ImageSpec) and spec.channels != loaded.spec.channels:
        return _gray_to_rgb(loaded, spec)
    return replace(loaded, spec=spec)


def spec_of(data: Data, *, words: bool = True, allow_download: bool = True, log: Log = no_log) -> Spec:
    """The spec of a data section; that of a published data set is known without its data.

    The words of a text data set are not: with `words` false, its spec holds their number alone.

    Raises what `splits` raises.
    """
    module = registry.load("datasets", data.name)
    published: Spec | None = module.spec(**_options(data)) if hasattr(module, "spec") else None
    if published is None or (words and not isinstance(published, ImageSpec)):
        return splits(data, allow_download=allow_download, log=log).spec
    if data.dir is not None:
        raise _takes_no_folder(data)
    return _adapt_spec(select_in_spec(published, data.classes), data)


def info(name: str, path: str | None = None) -> DatasetInfo:
    """Describes a data set; loads your own data at `path` for its classes and sizes.

    Raises what `splits` raises.
    """
    entry, module = registry.entry("datasets", name), registry.load("datasets", name)
    about = about_of(name)
    sources = about.files if about else {}
    folder = cache_folder(name)
    is_cached = hasattr(module, "fetch") and cache.present(folder)
    loaded = None if path is None else splits(Data(name=name, dir=path))
    own = {} if loaded is None else {"train": loaded.train, "validation": loaded.validation, "test": loaded.test}
    sizes = about.sizes if about else {split: len(samples) for split, samples in own.items() if samples is not None}
    return DatasetInfo(
        name=name,
        title=about.title if about else entry.summary,
        document=entry.document,
        classes=about.classes if about else len(loaded.spec.classes) if loaded else None,
        sizes=sizes,
        licence=about.licence if about else "",
        citation=about.citation if about else "",
        options={**entry.options, **entry.fixed},
        sources={file: tuple(source.url for source in origins) for file, origins in sources.items()} if about else {},
        state=_state(name, module),
        folder=folder if is_cached else None if path is None else Path(path),
        files=recorded_files(name) if is_cached else (),
    )


def listing() -> list[DatasetSummary]:
    """All data sets, by name."""
    summaries = []
    for name, entry in registry.entries("datasets").items():
        module = registry.load("datasets", name)
        about = about_of(name)
        title, classes, sizes = (about.title, about.classes, about.sizes) if about else (entry.summary, None, {})
        state = _state(name, module)
        size = _cached_bytes(name) if state == "cached" else None
        summaries.append(DatasetSummary(name, title, classes, sizes, state, size))
    return summaries


def _options(data: Data) -> dict[str, Any]:
    """The options of the data set's load function, including data.size and data.channels if it has them."""
    options = registry.resolved_options("datasets", data.name, data.options)
    defaults = registry.entry("datasets", data.name).options
    for name, value in data.options.items():
        expected = type(defaults[name])
        if type(value) is not expected and not (expected is float and type(value) is int):
            raise UsageError(f"data.options.{name} of {data.name!r} is {value!r}, not of type {expected.__name__}.")
    for name, value in (("size", data.size), ("channels", data.channels)):
        if name in options and value is not None:
            if data.options.get(name, value) != value:
                raise UsageError(
                    f"data.{name} is {value} and data.options.{name} is {data.options[name]}. Give one of them."
                )
            options[name] = value
    return options


def _folder(data: Data, module: ModuleType, allow_download: bool, log: Log) -> Path | None:
    """The user's folder, the folder in the cache, or None for data generated by code."""
    if not hasattr(module, "ABOUT"):
        if data.dir is None:
            raise UsageError(f"data set {data.name!r} needs the path of your data. Add --data-dir DIR.")
        return module.locate(data.dir, allow_download, log) if hasattr(module, "locate") else Path(data.dir)
    if data.dir is not None:
        raise _takes_no_folder(data)
    if not hasattr(module, "fetch"):
        return None
    folder = cache_folder(data.name)
    if cache.present(folder):
        check(data.name, folder)
    elif allow_download:
        log(f"data set {data.name!r} is not in the cache; downloading it")
        download(data.name, log=log)
    else:
        raise not_cached(data.name)
    return folder


def _takes_no_folder(data: Data) -> UsageError:
    return UsageError(f"data set {data.name!r} takes no --data-dir. Your own data is {_own(data)}.")


def _own(data: Data) -> str:
    """The data sets that read the user's own data of this kind."""
    names = {"images": "folder, csv, wds, hf or packed", "sequences": "text_folder or text_csv", "trees": "trees"}
    return f"--dataset {names[registry.data_kind(data.name, data.options)]}"


def _adapt_spec(spec: Spec, data: Data) -> Spec:
    """The spec with data.channels and data.max_pixels; data.size must be the size of the images."""
    if not isinstance(spec, ImageSpec):  # the recipe refused data.size and data.channels
        return spec
    spec = replace(spec, max_pixels=data.max_pixels)
    if data.size is not None and data.size != spec.height:
        raise UsageError(
            f"data set {data.name!r} has images of {spec.height} × {spec.width} pixels; "
            f"data.size {data.size} does not fit it. Leave data.size out."
        )
    if data.channels is None or data.channels == spec.channels:
        return spec
    if data.channels < spec.channels:
        raise UsageError(
            f"data set {data.name!r} has RGB images; data.channels 1 does not fit it. Leave data.channels out."
        )
    return replace(spec, channels=3, mean=spec.mean * 3, std=spec.std * 3)


def _gray_to_rgb(splits: Splits, spec: Spec) -> Splits:
    """Repeats gray images in three channels."""

    def repeat(samples: Samples | None) -> Samples | None:
        if not isinstance(samples, MemoryImages):
            return samples
        return MemoryImages(np.repeat(samples.images, 3, axis=1), samples.targets)

    train = repeat(splits.train)
    assert train is not None
    return replace(splits, spec=spec, train=train, validation=repeat(splits.validation), test=repeat(splits.test))


def _cached_bytes(name: str) -> int | None:
    try:
        return sum(file.bytes for file in recorded_files(name))
    except DlkitError:  # damaged: reported at the next use
        return None


def _state(name: str, module: ModuleType) -> str:
    if not hasattr(module, "ABOUT"):
        return "your own"
    if not hasattr(module, "fetch"):
        return "built in"
    return "cached" if cache.present(cache_folder(name)) else "not downloaded"
