"""Your own images in tar shards (WebDataset): 'wds:shards-{000..099}.tar', or a folder of .tar files.

A sample is a set of files that share a name up to its first dot: an image, and its label in the file 0001.cls, a
number or a name. data.options.label names another ending: label=txt, or label=json:species for a field of 0001.json.
Numbers are places in the list of class names that data.options.names tells, a line a class; without it that list is
classnames.txt beside the shards, if there is one.

Shards with val (valid, validation, dev, eval) or test as a word in their name, or in the name of a folder that not all
of them share, are of these splits; all others are train. data.options.group is a regular expression for the samples'
names, and data.options.test a share of train, both as in the data set `folder`. Shards at http(s) addresses are fetched
once and kept in the cache.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from dlkit import cache
from dlkit.config.split_names import SYNONYMS
from dlkit.data.classes import class_name, natural
from dlkit.data.download.download import fetch
from dlkit.data.download.http import redact_url
from dlkit.data.folders import files_below
from dlkit.data.images import shards, user_images
from dlkit.data.images.byte_ranges import ByteRange
from dlkit.data.images.formats import EXTENSIONS
from dlkit.data.splits import ImageFiles, Source, Splits
from dlkit.data.text import lines
from dlkit.errors import MALFORMED, DataError, UsageError
from dlkit.privacy import offline

NAMES = "classnames.txt"
ADDRESS = re.compile(r"(https?):/+(.*)")  # one slash is what a path makes of two
LONGEST_LABEL = 1 << 20  # bytes of a file that tells a label
MOST_DIGITS = 20  # of a class's number; Python reads no more than 4,300

Row = tuple[ByteRange, str]  # image, label


def bring(place: str, allow_download: bool, log: Callable[[str], None]) -> Path:
    """Where the shards lie on this machine; those at an address are fetched into the cache, which is said."""
    address = ADDRESS.match(place)
    if address is None:
        return Path(place)
    place = f"{address[1]}://{address[2]}"
    home = cache.datasets_dir() / "wds"
    for url in shards.expanded(place):
        path = home / _beneath(url)
        if path.is_file():
            continue
        if offline() or not allow_download:
            raise user_images.not_fetched(redact_url(url))
        cache.writable(path.parent)
        fetch([Source(url, "", 0)], path, log=log)
    return home / _beneath(place)


def load(
    folder: Path,
    *,
    label: str = "cls",
    names: str = "",
    group: str = "",
    test: float = 0.0,
    size: int = 224,
    channels: int = 3,
    crop: float = 1.0,
) -> Splits:
    """The splits found in the shards; their headers are read, and their labels.

    Raises:
        DataError: no shards, a damaged one, a sample without its image or label, or a label that train does not have.
    """
    options = user_images.ImageOptions("wds", size, channels, crop)
    files = _shards(folder)
    root = _root(path for paths in files.values() for path in paths)
    listed = _names(root, names)
    rows = {split: [row for path in paths for row in _rows(path, label, listed)] for split, paths in files.items()}
    for part in rows.values():
        part.sort(key=lambda row: user_images.rank(row[1], row[0]))
    classes = listed or user_images.classes_of_train(folder, [name for _, name in rows["train"]])
    samples = {split: _samples(part, classes) for split, part in rows.items()}
    groups = user_images.groups_of(group, samples["train"].paths, (image.name for image, _ in rows["train"]))
    notes = [line for split, part in samples.items() for line in user_images.missing(split, part, classes)]
    return user_images.splits(options.spec(classes), samples, test=test, groups=groups, notes=notes)


def _beneath(url: str) -> Path:
    """Where a shard at this address is kept, below the cache's folder of shards."""
    parts = urlsplit(redact_url(url))
    path = Path(parts.netloc.replace(":", "_"), parts.path.lstrip("/"))
    if ".." in path.parts or not parts.path.strip("/"):
        raise UsageError(f"{redact_url(url)}: not the address of a shard.")
    return path


def _shards(place: Path) -> dict[str, list[Path]]:
    """The shards of each split, in natural order."""
    if place.is_dir():
        found = [Path(path) for path in files_below(place) if path.endswith(".tar")]
    else:
        found = [Path(name) for name in shards.expanded(os.fspath(place))]
    if not found:
        raise DataError(f"{place}: holds no .tar files.")
    root = _root(found)
    splits: dict[str, list[Path]] = {}
    for path in sorted(found, key=lambda path: natural(os.fspath(path))):
        splits.setdefault(_split(path.absolute().relative_to(root)), []).append(path)
    if "train" not in splits:
        raise DataError(f"{place}: has shards for {' and '.join(splits)}, by their names, but none for train.")
    return splits


def _root(paths: Iterable[Path]) -> Path:
    """The folder that all shards are in."""
    return Path(os.path.commonpath([path.absolute().parent for path in paths]))


def _split(name: Path) -> str:
    words = re.split(r"[^a-z]+", os.fspath(name).lower())
    return next((SYNONYMS[word] for word in words if word in SYNONYMS), "train")


def _names(root: Path, given: str) -> tuple[str, ...]:
    """The classes in the order of their numbers, where a file lists them."""
    path = Path(given) if given else root / NAMES
    if not given and not path.exists():
        return ()
    written = [line.strip() for _, line in lines.read_lines(path) if line.strip()]
    try:
        names = tuple(class_name(name) for name in written)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    if len(set(names)) != len(names) or len(names) < 2:
        raise DataError(f"{path}: a class name a line is wanted, each once, two at least.")
    return names


def _rows(shard: Path, label: str, names: tuple[str, ...]) -> Iterator[Row]:
    ending, _, field = label.partition(":")
    for key, sample in shards.samples(shard):
        images = [piece for kind, piece in sample.items() if f".{kind}" in EXTENSIONS]
        if not images:
            _refuse_dots(shard, key, sample)
        if not images and ending.lower() not in sample:
            continue  # it tells of something else: a README, a list
        if len(images) != 1:
            raise DataError(f"{shard}/{key}: {len(images)} images, where one is wanted; it has {', '.join(sample)}.")
        if ending.lower() not in sample:
            hint = f"data.options.label says which of its files tells the class; it has {', '.join(sample)}."
            raise DataError(f"{shard}/{key}: has no .{ending}. {hint}")
        told = sample[ending.lower()]
        try:
            yield images[0], _class(_told(told, field), names)
        except DataError as error:
            raise DataError(f"{told}: {error}") from error


def _refuse_dots(shard: Path, key: str, sample: shards.Sample) -> None:
    """A name with a dot before its ending is cut there: photo.v2.jpg is the file v2.jpg of the sample photo."""
    dotted = next((kind for kind in sample if "." in kind and f".{kind.rpartition('.')[2]}" in EXTENSIONS), None)
    if dotted is not None:
        name = f"{key}.{dotted}"
        better = f"{name.rpartition('.')[0].replace('.', '_')}.{name.rpartition('.')[2]}"
        raise DataError(
            f"{shard}: {name!a} has a dot before its ending, and a sample's key ends at the first dot, so that it is "
            f"the file {dotted!a} of the sample {key!a}. Rename its files: {better!a}."
        )


def _told(piece: ByteRange, field: str) -> str:
    """The label that a member tells."""
    if piece.size > LONGEST_LABEL:
        raise DataError(f"{piece.size:,} bytes are too many for a label.")
    try:
        text = piece.read().decode()
        value = json.loads(text)[field] if field else text
    except UnicodeDecodeError:
        raise DataError("not UTF-8.") from None
    except MALFORMED as error:
        raise DataError(f"not JSON with the field {field!r}.") from error
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise DataError("tells no label.")
    return str(value).strip()


def _class(told: str, names: Sequence[str]) -> str:
    """The class's name, by its number where there is a list."""
    if names and told.isascii() and told.isdecimal() and len(told) < MOST_DIGITS and int(told) < len(names):
        return names[int(told)]
    if names and told not in names:
        raise DataError(f"the label {lines.quote(told)} is none of the {len(names)} classes that are listed.")
    return class_name(told)


def _samples(rows: Sequence[Row], classes: tuple[str, ...]) -> ImageFiles:
    images, labels = [image for image, _ in rows], [name for _, name in rows]
    return user_images.labelled(images, labels, classes, images)
