"""What data sets of a person's own images share, wherever these lie: spec, groups, a test split by ratio, leaks."""

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
LEAK_CHECK_FILES = 20_000  # above it, looking for the same image in two splits would take many seconds
LEAK_CHECK_BYTES = 1 << 28  # read at most to compare images of equal size
TEST_SEED = 0  # not the run's: runs with other seeds are compared on the same test split
NAMED = 10  # classes that a note names
NEAR = "near"  # the data.options.group that looks at the pictures


@dataclass(frozen=True)
class ImageOptions:
    """What the network sees of the images of a data set: size × size pixels; crop is ImageSpec's.

    Raises:
        UsageError: one is out of its range.
    """

    name: str
    size: int
    channels: int
    crop: float

    def __post_init__(self) -> None:
        if self.channels not in (1, 3) or not 0 < self.crop <= 1 or self.size < 1:
            raise UsageError(
                f"data set {self.name!r} takes channels 1 or 3, crop above 0 to 1; not {self.channels}, {self.crop}."
            )

    def spec(self, classes: tuple[str, ...]) -> ImageSpec:
        """Normalised as ImageNet is."""
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
    """The data set. Where it has no test split, `test` of train becomes it, the same samples whatever the run's seed.

    groups (N,) of train: samples of one group are never cut apart, here and for validation.

    Raises:
        UsageError: test is no share, or the data set has a test split.
    """
    parts, notes = dict(samples), list(notes)
    if not 0 <= test < 1:
        raise UsageError(f"data.options.test is {test}; it takes the share of train that becomes the test split.")
    if test and "test" in parts:
        raise UsageError(f"data.options.test is {test}, but the data has a test split of its own. Leave it out.")
    if test:
        held_out = holdout_mask(parts["train"].targets, test, TEST_SEED, groups)
        parts["test"], parts["train"] = chosen(parts["train"], held_out), chosen(parts["train"], ~held_out)
        groups = None if groups is None else groups[~held_out]
        notes += missing("test", parts["test"], spec.classes)
    return Splits(
        spec, parts["train"], parts.get("validation"), parts.get("test"), (*notes, *_leaks(parts)), groups=groups
    )


def classes_of_train(place: Path, labels: Sequence[str]) -> tuple[str, ...]:
    """The classes that the labels of train name, in natural order.

    Raises:
        DataError: fewer than two, or two that could be confused; the message names the place.
    """
    try:
        return classes_of(labels)
    except DataError as error:
        raise DataError(f"{place}: the training split {error}") from error


def rank(label: str, source: ImageSource) -> tuple[object, object, str]:
    """What images are sorted by, as in a folder: a table or a shard that is shuffled gives the same epochs."""
    place = str(source)
    return natural(label), natural(os.path.basename(place)), place


def labelled(
    sources: Sequence[ImageSource], labels: Sequence[str], classes: tuple[str, ...], places: Iterable[object]
) -> ImageFiles:
    """A split of images with these labels; `places` is what a person knows each of them by.

    Raises:
        DataError: a label that is no class.
    """
    numbers = {name: number for number, name in enumerate(classes)}
    for label, place in zip(labels, places, strict=True):
        if label not in numbers:
            raise DataError(f"{place}: the label {label!r} is not in train. {did_you_mean(label, classes)}")
    return ImageFiles(sources, np.array([numbers[label] for label in labels], dtype=np.int64))


def not_fetched(what: str) -> UnreachableError:
    """The error where something is not on this machine and must stay away."""
    way = "DLKIT_OFFLINE forbids the network. Unset it" if offline() else "only train and eval fetch it"
    return UnreachableError(f"{what} is not in the cache, and {way}.")


def chosen(samples: ImageFiles, which: npt.NDArray[np.bool_]) -> ImageFiles:
    """The samples at the places that are true."""
    return ImageFiles([samples.paths[place] for place in np.flatnonzero(which).tolist()], samples.targets[which])


def missing(split: str, samples: ImageFiles, classes: tuple[str, ...]) -> list[str]:
    """A line where the split has no image of a class."""
    counts = np.bincount(samples.targets, minlength=len(classes))
    lacking = [name for name, count in zip(classes, counts, strict=True) if not count]
    if not lacking:
        return []
    more = f" and {len(lacking) - NAMED} more" if len(lacking) > NAMED else ""
    return [f"the {split} split has no image of {', '.join(map(repr, lacking[:NAMED]))}{more}."]


def numbered(keys: Sequence[str]) -> npt.NDArray[np.int64]:
    """The group of each sample as a number: equal where their keys are."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def groups_of(group: str, sources: Sequence[ImageSource], names: Iterable[str]) -> npt.NDArray[np.int64] | None:
    """The group of each image, as data.options.group has it: NEAR, or a pattern for the images' names.

    Raises:
        UsageError, DataError: as groups_by_pattern.
    """
    return near_groups(sources) if group == NEAR else groups_by_pattern(group, names)


def near_groups(sources: Sequence[ImageSource]) -> npt.NDArray[np.int64]:
    """Equal numbers for images that are one picture: copies, saved again, resized or mirrored; all are decoded."""
    looks = list(scan_images(sources))
    readable = [index for index, look in enumerate(looks) if look.thumbnail is not None]
    thumbnails = np.array([looks[index].thumbnail for index in readable], np.uint8).reshape(-1, SIDE, SIDE, 3)

    def picture(index: int) -> Image.Image:
        return decode.decode(sources[readable[index]], 3, draft=DRAFT)

    near = near_duplicates.find_duplicates(thumbnails, picture) if readable else []
    pairs = [(readable[one], readable[two]) for one, two, _ in near]
    first: dict[bytes, int] = {}
    pairs += [(first.setdefault(looks[index].digest, index), index) for index in readable]
    return near_duplicates.groups_of(len(sources), pairs)


def groups_by_pattern(pattern: str, names: Iterable[str]) -> npt.NDArray[np.int64] | None:
    """The group of each name: what the pattern's brackets catch in it, or all that it matches. None without a pattern.

    Raises:
        UsageError: not a regular expression.
        DataError: a name that it does not match.
    """
    if not pattern:
        return None
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"data.options.group is {pattern!r}, which is no regular expression: {error}.") from error
    keys = []
    for name in names:
        match = compiled.search(name)
        if match is None:
            raise DataError(f"data.options.group {pattern!r} matches nothing in {name!r}: of which group is it?")
        keys.append("\0".join(part or "" for part in match.groups()) if match.groups() else match[0])
    return numbered(keys)


def _leaks(parts: Mapping[str, ImageFiles]) -> list[str]:
    """A line for each split that holds images of train: what is measured on them is too good."""
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
    """The digests of the files whose size another split shares: only those can be equal."""
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
        return -1  # a dangling link: the loader will say so, with its path


def _digest(source: ImageSource) -> bytes:
    if not isinstance(source, Path):
        return hashlib.sha256(source.read()).digest()
    try:
        return hashlib.sha256(source.read_bytes()).digest() if source.is_file() else os.fsencode(source)
    except OSError:
        return os.fsencode(source)  # equal to nothing
