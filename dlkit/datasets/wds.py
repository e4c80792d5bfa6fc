"""Your own images in tar shards (WebDataset): 'wds:shards-{000..099}.tar', or a folder of .tar files.

A sample is the files with the same name up to the first dot: an image, and its label in 0001.cls, a number or a name.
data.options.label selects another extension: label=txt, or label=json:species for a field of 0001.json. Numbers are
line numbers, from 0, of the file of class names data.options.names, by default classnames.txt next to the shards.

Shards with val (valid, validation, dev, eval) or test as a word in their name, or in the name of a folder that not all
of them share, belong to these splits; all others are train. data.options.group is a regular expression for names of
samples, and data.options.test a fraction of train, both as in the data set `folder`. Shards at http(s) URLs are
downloaded once and stored in the cache.
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
ADDRESS = re.compile(r"(https?):/+(.*)")  # a path turns two slashes into one
MAX_LABEL_BYTES = 1 << 20  # of a label file
MAX_DIGITS = 20  # of a class number; int() accepts at most 4,300

Row = tuple[ByteRange, str]  # image, label


def locate(pattern: str, allow_download: bool, log: Callable[[str], None]) -> Path:
    """The local path of the shards; downloads those at URLs into the cache and logs it."""
    address = ADDRESS.match(pattern)
    if address is None:
        return Path(pattern)
    pattern = f"{address[1]}://{address[2]}"
    home = cache.datasets_dir() / "wds"
    for url in shards.expand_braces(pattern):
        path = home / _cache_path(url)
        if path.is_file():
            continue
        if offline() or not allow_download:
            raise user_images.not_cached(redact_url(url))
        cache.writable(path.parent)
        fetch([Source(url, "", 0)], path, log=log)
    return home / _cache_path(pattern)


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
    """The splits of the shards; reads their headers and labels.

    Raises:
        DataError: no shards, a damaged one, a sample without image or label, or a label that is not in train.
    """
    options = user_images.ImageOptions("wds", size, channels, crop)
    files = _shards(folder)
    root = _root(path for paths in files.values() for path in paths)
    class_names = _read_names(root, names)
    rows = {split: [row for path in paths for row in _rows(path, label, class_names)] for split, paths in files.items()}
    for part in rows.values():
        part.sort(key=lambda row: user_images.sort_key(row[1], row[0]))
    classes = class_names or user_images.train_classes(folder, [name for _, name in rows["train"]])
    samples = {split: _samples(part, classes) for split, part in rows.items()}
    groups = user_images.groups_of(group, samples["train"].paths, (image.name for image, _ in rows["train"]))
    notes = [line for split, part in samples.items() for line in user_images.missing_class_notes(split, part, classes)]
    return user_images.splits(options.spec(classes), samples, test=test, groups=groups, notes=notes)


def _cache_path(url: str) -> Path:
    """The path of a shard with this URL, below the cache's folder of shards."""
    parts = urlsplit(redact_url(url))
    path = Path(parts.netloc.replace(":", "_"), parts.path.lstrip("/"))
    if ".." in path.parts or not parts.path.strip("/"):
        raise UsageError(f"{redact_url(url)}: not the URL of a shard.")
    return path


def _shards(pattern: Path) -> dict[str, list[Path]]:
    """The shards of each split, in natural order."""
    if pattern.is_dir():
        paths = [Path(path) for path in files_below(pattern) if path.endswith(".tar")]
    else:
        paths = [Path(name) for name in shards.expand_braces(os.fspath(pattern))]
    if not paths:
        raise DataError(f"{pattern}: contains no .tar files.")
    root = _root(paths)
    splits: dict[str, list[Path]] = {}
    for path in sorted(paths, key=lambda path: natural(os.fspath(path))):
        splits.setdefault(_split(path.absolute().relative_to(root)), []).append(path)
    if "train" not in splits:
        raise DataError(f"{pattern}: by their names, the shards are for {' and '.join(splits)}, none for train.")
    return splits


def _root(paths: Iterable[Path]) -> Path:
    """The common folder of all shards."""
    return Path(os.path.commonpath([path.absolute().parent for path in paths]))


def _split(name: Path) -> str:
    words = re.split(r"[^a-z]+", os.fspath(name).lower())
    return next((SYNONYMS[word] for word in words if word in SYNONYMS), "train")


def _read_names(root: Path, file: str) -> tuple[str, ...]:
    """The class names by number, from the file that lists them, if any."""
    path = Path(file) if file else root / NAMES
    if not file and not path.exists():
        return ()
    content = [line.strip() for _, line in lines.read_lines(path) if line.strip()]
    try:
        names = tuple(class_name(name) for name in content)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    if len(set(names)) != len(names) or len(names) < 2:
        raise DataError(f"{path}: needs at least two different class names, one per line.")
    return names


def _rows(shard: Path, label: str, names: tuple[str, ...]) -> Iterator[Row]:
    extension, _, field = label.partition(":")
    for key, sample in shards.samples(shard):
        images = [piece for kind, piece in sample.items() if f".{kind}" in EXTENSIONS]
        if not images:
            _refuse_dots(shard, key, sample)
        if not images and extension.lower() not in sample:
            continue  # another file: a README, a list
        if len(images) != 1:
            raise DataError(f"{shard}/{key}: {len(images)} images instead of one; it has {', '.join(sample)}.")
        if extension.lower() not in sample:
            hint = f"Set data.options.label to the extension of the label file; it has {', '.join(sample)}."
            raise DataError(f"{shard}/{key}: has no .{extension}. {hint}")
        label_file = sample[extension.lower()]
        try:
            yield images[0], _class(_read_label(label_file, field), names)
        except DataError as error:
            raise DataError(f"{label_file}: {error}") from error


def _refuse_dots(shard: Path, key: str, sample: shards.Sample) -> None:
    """Refuse names with a dot before the extension: photo.v2.jpg is the file v2.jpg of the sample photo."""
    dotted = next((kind for kind in sample if "." in kind and f".{kind.rpartition('.')[2]}" in EXTENSIONS), None)
    if dotted is not None:
        name = f"{key}.{dotted}"
        better = f"{name.rpartition('.')[0].replace('.', '_')}.{name.rpartition('.')[2]}"
        raise DataError(
            f"{shard}: {name!a} has a dot before its extension, but the key of a sample ends at the first dot, so "
            f"that it is the file {dotted!a} of the sample {key!a}. Rename its files: {better!a}."
        )


def _read_label(piece: ByteRange, field: str) -> str:
    """The label in a member of a shard."""
    if piece.size > MAX_LABEL_BYTES:
        raise DataError(f"{piece.size:,} bytes are too many for a label.")
    try:
        text = piece.read().decode()
        value = json.loads(text)[field] if field else text
    except UnicodeDecodeError:
        raise DataError("not UTF-8.") from None
    except MALFORMED as error:
        raise DataError(f"not JSON with the field {field!r}.") from error
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise DataError("contains no label.")
    return str(value).strip()


def _class(label: str, names: Sequence[str]) -> str:
    """The class of a label; a number is an index into `names`, if any."""
    if names and label.isascii() and label.isdecimal() and len(label) < MAX_DIGITS and int(label) < len(names):
        return names[int(label)]
    if names and label not in names:
        raise DataError(f"the label {lines.quote(label)} is not one of the {len(names)} class names.")
    return class_name(label)


def _samples(rows: Sequence[Row], classes: tuple[str, ...]) -> ImageFiles:
    images, labels = [image for image, _ in rows], [name for _, name in rows]
    return user_images.label_images(images, labels, classes, images)
