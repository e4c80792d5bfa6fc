"""Shared by data sets of the user's images: spec, groups, a test split by ratio, leaks."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from dlkit.data.checks import near_duplicates
from dlkit.data.checks.duplicates import leak_note
from dlkit.data.checks.scan import DRAFT, SIDE, scan_images
from dlkit.data.classes import classes_of, natural
from dlkit.data.download.http import UnreachableError
from dlkit.data.holdout import holdout_mask
from dlkit.data.images import decode
from dlkit.data.splits import ImageFiles, ImageSource, Splits
from dlkit.errors import DataError, UsageError
from dlkit.privacy import offline
from dlkit.registry import did_you_mean
from dlkit.specs import ImageSpec

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LEAK_CHECK_FILES = 20_000  # above it, the search for leaks would take many seconds
LEAK_CHECK_BYTES = 1 << 28  # to read, at most, to compare images of equal size
TEST_SEED = 0  # independent of the run's seed, so that all runs share the test split
MAX_NAMED = 10  # classes in a note
NEAR = "near"  # data.options.group by near duplicates


@dataclass(frozen=True)
class ImageOptions:
    """Options of image data sets: size × size pixels as network input; crop as in ImageSpec.

    Raises:
        UsageError: an option is out of range.
    """

    name: str
    size: int
    channels: int
    crop: float

    def __post_init__(self) -> None:
        if self.channels not in (1, 3) or not 0 < self.crop <= 1 or self.size < 1:
            raise UsageError(
                f"data set {self.name!r} takes channels 1 or 3, size ≥ 1 and 0 < crop ≤ 1; "
                f"not channels={self.channels}, size={self.size}, crop={self.crop}."
            )

    def spec(self, classes: tuple[str, ...]) -> ImageSpec:
        """The spec with ImageNet's normalization."""
        mean, std = (IMAGENET_MEAN, IMAGENET_STD) if self.channels == 3 else ((0.5,), (0.5,))
        return ImageSpec(self.channels, self.size, self.size, classes, mean, std, self.crop)


def splits(
    spec: ImageSpec,
    samples: Mapping[str, ImageFiles],
    *,
    test: float = 0.0,
    groups: npt.NDArray[np.int64] | None = None,
    notes: Sequence[str] = (),
) -> Splits:
    """The data set; `test` is the fraction of train that becomes the test split, independent of the run's seed.

    groups (N,) of train: samples of one group stay together in test and validation splits.

    Raises:
        UsageError: test is not a fraction, or the data set has a test split.
    """
    parts, notes = dict(samples), list(notes)
    if not 0 <= test < 1:
        raise UsageError(f"data.options.test is {test}; it takes the fraction of train for the test split, below 1.")
    if test and "test" in parts:
        raise UsageError(f"data.options.test is {test}, but the data set has a test split. Remove the option.")
    if test:
        holdout = holdout_mask(parts["train"].targets, test, TEST_SEED, groups)
        parts["test"], parts["train"] = (
            select_samples(parts["train"], holdout),
            select_samples(parts["train"], ~holdout),
        )
        groups = None if groups is None else groups[~holdout]
        notes += missing_class_notes("test", parts["test"], spec.classes)
    return Splits(
        spec, parts["train"], parts.get("validation"), parts.get("test"), (*notes, *_leaks(parts)), groups=groups
    )


def train_classes(path: Path, labels: Sequence[str]) -> tuple[str, ...]:
    """The distinct labels of train, in natural order.

    Raises:
        DataError: fewer than two, or two that could be confused; the message names the path.
    """
    try:
        return classes_of(labels)
    except DataError as error:
        raise DataError(f"{path}: the training split {error}") from error


def sort_key(label: str, source: ImageSource) -> tuple[object, object, str]:
    """The order of images in folders, so that shuffled tables and shards give the same epochs."""
    name = str(source)
    return natural(label), natural(os.path.basename(name)), name


def label_images(
    sources: Sequence[ImageSource], labels: Sequence[str], classes: tuple[str, ...], names: Iterable[object]
) -> ImageFiles:
    """A split of images with these labels; `names` identify the images in messages.

    Raises:
        DataError: a label that is not a class.
    """
    index = {name: number for number, name in enumerate(classes)}
    for label, name in zip(labels, names, strict=True):
        if label not in index:
            raise DataError(f"{name}: the label {label!r} is not in train. {did_you_mean(label, classes)}")
    return ImageFiles(sources, np.array([index[label] for label in labels], dtype=np.int64))


def not_cached(name: str) -> UnreachableError:
    """The error for data that is not in the cache and must not be downloaded."""
    reason = "DLKIT_OFFLINE forbids the network. Unset it" if offline() else "only train and eval download it"
    return UnreachableError(f"{name} is not in the cache, and {reason}.")


def select_samples(samples: ImageFiles, mask: npt.NDArray[np.bool_]) -> ImageFiles:
    """The samples where the mask (N,) is true."""
    return ImageFiles([samples.paths[index] for index in np.flatnonzero(mask).tolist()], samples.targets[mask])


def missing_class_notes(split: str, samples: ImageFiles, classes: tuple[str, ...]) -> list[str]:
    """A note if the split has no image of some classes."""
    counts = np.bincount(samples.targets, minlength=len(classes))
    absent = [name for name, count in zip(classes, counts, strict=True) if not count]
    if not absent:
        return []
    more = f" and {len(absent) - MAX_NAMED} more" if len(absent) > MAX_NAMED else ""
    return [f"the {split} split has no image of {', '.join(map(repr, absent[:MAX_NAMED]))}{more}."]


def number_groups(keys: Sequence[str]) -> npt.NDArray[np.int64]:
    """Group numbers (N,): equal for equal keys."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def groups_of(group: str, sources: Sequence[ImageSource], names: Iterable[str]) -> npt.NDArray[np.int64] | None:
    """The group of each image by data.options.group: NEAR, or a pattern for the names of the images.

    Raises:
        UsageError, DataError: see groups_by_pattern.
    """
    return near_groups(sources) if group == NEAR else groups_by_pattern(group, names)


def near_groups(sources: Sequence[ImageSource]) -> npt.NDArray[np.int64]:
    """Equal numbers for versions of one picture: copied, re-encoded, resized or mirrored. Decodes all images."""
    scans = list(scan_images(sources))
    readable = [index for index, scan in enumerate(scans) if scan.thumbnail is not None]
    thumbnails = np.array([scans[index].thumbnail for index in readable], np.uint8).reshape(-1, SIDE, SIDE, 3)

    def picture(index: int) -> Image.Image:
        return decode.decode(sources[readable[index]], 3, draft=DRAFT)

    near = near_duplicates.find_duplicates(thumbnails, picture) if readable else []
    pairs = [(readable[one], readable[two]) for one, two, _ in near]
    first: dict[bytes, int] = {}
    pairs += [(first.setdefault(scans[index].digest, index), index) for index in readable]
    return near_duplicates.groups_of(len(sources), pairs)


def groups_by_pattern(pattern: str, names: Iterable[str]) -> npt.NDArray[np.int64] | None:
    """The group of each name: the groups of the pattern's match, or the entire match. None without a pattern.

    Raises:
        UsageError: not a regular expression.
        DataError: a name that does not match.
    """
    if not pattern:
        return None
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"data.options.group is {pattern!r}, not a regular expression: {error}.") from error
    keys = []
    for name in names:
        match = compiled.search(name)
        if match is None:
            raise DataError(f"data.options.group {pattern!r} does not match {name!r}, so its group is unknown.")
        keys.append("\0".join(part or "" for part in match.groups()) if match.groups() else match[0])
    return number_groups(keys)


def _leaks(parts: Mapping[str, ImageFiles]) -> list[str]:
    """A note for each split that contains images of train, which makes its metrics too good."""
    if len(parts) == 1 or sum(map(len, parts.values())) > LEAK_CHECK_FILES:
        return []
    sizes = {split: [_size(source) for source in samples.paths] for split, samples in parts.items()}
    notes = []
    for split in parts:
        shared = set(sizes["train"]) & set(sizes[split]) if split != "train" else set()
        known = _contents(parts["train"], sizes["train"], shared)
        count = sum(content in known for content in _contents(parts[split], sizes[split], shared))
        if count:
            notes.append(leak_note(count, len(parts[split]), split))
    return notes


def _contents(samples: ImageFiles, sizes: Sequence[int], shared: set[int]) -> list[bytes]:
    """The digests of files whose size occurs in another split: only those can be equal."""
    candidates = [source for source, size in zip(samples.paths, sizes, strict=True) if size in shared]
    if sum(size for size in sizes if size in shared) > LEAK_CHECK_BYTES:
        return []
    return [_digest(source) for source in candidates]


def _size(source: ImageSource) -> int:
    if not isinstance(source, Path):
        return source.size
    try:
        return source.stat().st_size
    except OSError:
        return -1  # a dangling link: the loader reports it with its path


def _digest(source: ImageSource) -> bytes:
    if not isinstance(source, Path):
        return hashlib.sha256(source.read()).digest()
    try:
        return hashlib.sha256(source.read_bytes()).digest() if source.is_file() else os.fsencode(source)
    except OSError:
        return os.fsencode(source)  # equal to no digest
