"""Data sets by name: list and describe them, and hand over their samples.

What is downloaded is kept by dlkit.data.download.store; your own data is read where it lies.
"""

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
from dlkit.data.download.download import nothing_said
from dlkit.data.download.store import File, about_of, check, download, home, not_here, recorded
from dlkit.data.splits import MemoryImages, Samples, Splits
from dlkit.errors import DlkitError, UsageError
from dlkit.specs import ImageSpec, Spec

Say = Callable[[str], None]


@dataclass(frozen=True)
class Listed:
    """A line of `dlkit dataset list`; state is "built in", "cached", "not downloaded" or "your own"."""

    name: str
    title: str
    classes: int | None
    sizes: Mapping[str, int]  # split → samples
    state: str
    bytes: int | None  # on disk, where it is in the cache


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
    folder: Path | None  # where it is
    files: tuple[File, ...]


def splits(data: Data, *, allow_download: bool = True, say: Say = nothing_said) -> Splits:
    """The samples that a recipe's data section asks for; a named set that is missing is downloaded, and said.

    Raises:
        UsageError: an unknown name or option, or a size or number of channels that the set does not have.
        DataError: a folder that is no data set.
        VerificationError: a file in the cache is not what it was.
        StorageError: the set is missing and cannot be had.
    """
    module = registry.load("datasets", data.name)
    options = _options(data)
    folder = _folder(data, module, allow_download, say)
    with storage_errors(folder or Path(data.name)):  # a name too long for the system, a folder that went away
        found: Splits = module.load(folder, **options)
    spec = _sized(found.spec, data)
    if isinstance(spec, ImageSpec) and isinstance(found.spec, ImageSpec) and spec.channels != found.spec.channels:
        return _in_colour(found, spec)
    return replace(found, spec=spec)


def spec_of(data: Data, *, allow_download: bool = True, say: Say = nothing_said) -> Spec:
    """What the samples and classes of a data section are: of a published set known without its data.

    Raises what `splits` does.
    """
    module = registry.load("datasets", data.name)
    if not hasattr(module, "spec"):
        return splits(data, allow_download=allow_download, say=say).spec
    if data.dir is not None:
        raise _takes_no_folder(data)
    return _sized(module.spec(**_options(data)), data)


def info(name: str, place: str | None = None) -> Info:
    """What a data set is, where it comes from and whether it is here; of one of your own at `place`, what it holds.

    Raises what `splits` does.
    """
    entry, module = registry.entry("datasets", name), registry.load("datasets", name)
    about = about_of(name)
    sources = about.files if about else {}
    folder = home(name)
    here = hasattr(module, "fetch") and cache.present(folder)
    found = None if place is None else splits(Data(name=name, dir=place))
    own = {} if found is None else {"train": found.train, "validation": found.validation, "test": found.test}
    sizes = about.sizes if about else {split: len(samples) for split, samples in own.items() if samples is not None}
    return Info(
        name=name,
        title=about.title if about else entry.summary,
        document=entry.document,
        classes=about.classes if about else len(found.spec.classes) if found else None,
        sizes=sizes,
        licence=about.licence if about else "",
        citation=about.citation if about else "",
        options={**entry.options, **entry.fixed},
        sources={file: tuple(source.url for source in origins) for file, origins in sources.items()} if about else {},
        state=_state(name, module),
        folder=folder if here else None if place is None else Path(place),
        files=recorded(name) if here else (),
    )


def listing() -> list[Listed]:
    """Every data set, by name."""
    found = []
    for name, entry in registry.entries("datasets").items():
        module = registry.load("datasets", name)
        about = about_of(name)
        title, classes, sizes = (about.title, about.classes, about.sizes) if about else (entry.summary, None, {})
        state = _state(name, module)
        found.append(Listed(name, title, classes, sizes, state, _bytes(name) if state == "cached" else None))
    return found


def _options(data: Data) -> dict[str, Any]:
    """The options of the set's load, with data.size and data.channels where it takes them."""
    options = registry.resolved_options("datasets", data.name, data.options)
    defaults = registry.entry("datasets", data.name).options
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
        return module.bring(data.dir, allow_download, say) if hasattr(module, "bring") else Path(data.dir)
    if data.dir is not None:
        raise _takes_no_folder(data)
    if not hasattr(module, "fetch"):
        return None
    folder = home(data.name)
    if cache.present(folder):
        check(data.name, folder)
    elif allow_download:
        say(f"data set {data.name!r} is not in the cache; downloading it")
        download(data.name, say=say)
    else:
        raise not_here(data.name)
    return folder


def _takes_no_folder(data: Data) -> UsageError:
    return UsageError(f"data set {data.name!r} takes no --data-dir. Your own data is {_own(data)}.")


def _own(data: Data) -> str:
    """The sets that are read from a place of the user's, for data of this kind."""
    names = {"images": "folder, csv, wds, hf or packed", "sequences": "text_folder or text_csv", "trees": "trees"}
    return f"--dataset {names[registry.kind_given(data.name, data.options)]}"


def _sized(spec: Spec, data: Data) -> Spec:
    """The spec with data.channels, where it fits; data.size must be the images' own."""
    if not isinstance(spec, ImageSpec):  # data.size and data.channels were refused with the recipe
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
            f"data set {data.name!r} is in colour; data.channels 1 does not fit it. Leave data.channels out."
        )
    return replace(spec, channels=3, mean=spec.mean * 3, std=spec.std * 3)


def _in_colour(found: Splits, spec: Spec) -> Splits:
    """Gray images repeated in three channels."""

    def repeated(samples: Samples | None) -> Samples | None:
        if not isinstance(samples, MemoryImages):
            return samples
        return MemoryImages(np.repeat(samples.images, 3, axis=1), samples.targets)

    train = repeated(found.train)
    assert train is not None
    return replace(found, spec=spec, train=train, validation=repeated(found.validation), test=repeated(found.test))


def _bytes(name: str) -> int | None:
    try:
        return sum(file.bytes for file in recorded(name))
    except DlkitError:  # damaged: the next use says so
        return None


def _state(name: str, module: ModuleType) -> str:
    if not hasattr(module, "ABOUT"):
        return "your own"
    if not hasattr(module, "fetch"):
        return "built in"
    return "cached" if cache.present(home(name)) else "not downloaded"
