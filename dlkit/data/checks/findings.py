"""What a check finds in the images of a data set: in each by itself, between them, and in what they are called."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from dlkit.data.checks import near_duplicates
from dlkit.data.checks.scan import DRAFT, SIDE, Look, census
from dlkit.data.checks.survey import FAULT, NOTE, Finding, Sample, Survey
from dlkit.data.checks.swapped_labels import exchanges
from dlkit.data.images import decode
from dlkit.data.images.packed import PackedImage
from dlkit.specs import MAX_PIXELS

SPLITS = ("train", "validation", "test")  # of a picture in two of them, the copy in the first is left out
FEWEST_PIXELS = 16  # below it a picture shows nothing
HARMLESS = 2e-3  # of a split's images are in train too, saved anew: they cannot move its accuracy by more
BLANK = 1.0  # levels of standard deviation
EXTENSIONS = {
    "JPEG": {".jpg", ".jpeg", ".jpe", ".jfif"}, "PNG": {".png", ".apng"}, "TIFF": {".tif", ".tiff"}, "GIF": {".gif"},
    "PPM": {".ppm", ".pgm", ".pbm", ".pnm"}, "WEBP": {".webp"}, "BMP": {".bmp"}, "AVIF": {".avif"},
    "HEIF": {".heic", ".heif", ".hif"},
}  # fmt: skip

Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Seen:
    """The samples, what was seen of each, and the places of those that are whole images, with their thumbnails."""

    survey: Survey
    looks: list[Look]
    places: Places  # (n,)
    thumbnails: npt.NDArray[np.uint8]  # (n, 8, 8, 3)
    max_pixels: int = MAX_PIXELS

    @classmethod
    def of(
        cls, survey: Survey, workers: int | None, progress: Callable[[int, int], None], max_pixels: int = MAX_PIXELS
    ) -> Seen:
        """Decode them all."""
        looks: list[Look] = []
        whole: list[int] = []
        total = len(survey.samples)
        thumbnails = np.empty((total, SIDE, SIDE, 3), np.uint8)
        for place, look in enumerate(census([sample.source for sample in survey.samples], workers, max_pixels)):
            if look.thumbnail is not None:
                thumbnails[len(whole)] = look.thumbnail
                whole.append(place)
            looks.append(replace(look, thumbnail=None))
            progress(place + 1, total)
        return cls(survey, looks, np.array(whole, np.int64), thumbnails[: len(whole)], max_pixels)

    def sample(self, place: int) -> Sample:
        return self.survey.samples[place]

    def path(self, place: int) -> str:
        return str(self.sample(place).source)

    def picture(self, place: int) -> Image.Image:
        return decode.decode(self.sample(place).source, 3, draft=DRAFT, max_pixels=self.max_pixels)

    def of_split(self, *splits: str) -> Places:
        """Which of `places` are of these splits."""
        chosen = [self.sample(place).split in splits for place in self.places.tolist()]
        return np.flatnonzero(np.array(chosen, bool))


def of_files(seen: Seen) -> Iterator[Finding]:
    """What is wrong or odd with a file by itself."""
    alpha = [look.header.alpha for look in seen.looks if look.header is not None]
    mixed = f"has transparency, as {sum(alpha):,} of {len(alpha):,} images do: dlkit lays it on white."
    for place, look in enumerate(seen.looks):
        path, header = seen.path(place), look.header
        if header is None:
            kind = "corrupt" if look.damaged else "unsupported" if look.readable else "unreadable"
            drop = look.damaged and isinstance(seen.sample(place).source, Path)
            yield Finding(FAULT, kind, path, look.problem, drop)
            continue
        if header.width * header.height < FEWEST_PIXELS:
            yield Finding(FAULT, "tiny", path, f"has {header.width} × {header.height} pixels.")
        else:
            yield from (Finding(NOTE, "forgiven", path, note) for note in look.notes)
        packed = isinstance(seen.sample(place).source, PackedImage)  # named like the file that it was
        extension = "" if packed else os.path.splitext(path)[1].lower()
        if extension in decode.EXTENSIONS and extension not in EXTENSIONS[header.format]:
            yield Finding(FAULT, "wrong-extension", path, f"is a {header.format} file.")
        if header.orientation != 1:
            message = f"is stored turned (EXIF orientation {header.orientation}): dlkit shows it upright, not all do."
            yield Finding(NOTE, "rotated", path, message)
        if header.alpha and not all(alpha):
            yield Finding(NOTE, "mixed-alpha", path, mixed)
    for number in np.flatnonzero(seen.thumbnails.std((1, 2, 3)) < BLANK).tolist():
        yield Finding(NOTE, "blank", seen.path(seen.places[number]), "is of one colour.")


def of_copies(seen: Seen) -> Iterator[Finding]:
    """Files with the same bytes: in two classes, in two splits, or only twice."""

    def digest(place: int) -> bytes:
        return seen.looks[place].digest

    for _, group in groupby(sorted(seen.places.tolist(), key=digest), key=digest):
        copies = [seen.sample(place) for place in group]
        if len(copies) > 1:
            yield from _of_one_file(copies)


def _of_one_file(copies: list[Sample]) -> Iterator[Finding]:
    """One of the copies is kept, in the last split and if there is one a file that is no link; of two labels, all."""
    labels = sorted({copy.label for copy in copies})
    kept = max(copies, key=lambda copy: (SPLITS.index(copy.split), not os.path.islink(str(copy.source))))
    for copy in copies:
        path = str(copy.source)
        if len(labels) > 1:
            yield Finding(FAULT, "two-classes", path, f"the same image stands under {' and '.join(map(repr, labels))}.")
        elif copy.split != kept.split:
            yield Finding(FAULT, "leak", path, f"is in {kept.split} too: {kept.source}.", _may_go(copy, kept))
        elif copy is not kept:
            yield Finding(NOTE, "duplicate", path, f"is there twice: {kept.source}.", _may_go(copy, kept))


def _may_go(copy: Sample, kept: Sample) -> bool:
    """Whether deleting the copy leaves the other: not where links lead both to one file."""
    if not isinstance(copy.source, Path) or not isinstance(kept.source, Path):
        return False
    return os.path.islink(copy.source) or os.path.realpath(copy.source) != os.path.realpath(kept.source)


def of_near_copies(seen: Seen) -> Iterator[Finding]:
    """The same picture in two splits, in other bytes. A few in a thousand are a note: the web has them everywhere."""
    for number, split in enumerate(SPLITS[1:], start=1):
        known, asked = seen.of_split(*SPLITS[:number]), seen.of_split(split)
        told = {seen.looks[place].digest for place in seen.places[asked].tolist()}  # as leaks
        new = [seen.looks[place].digest not in told for place in seen.places[known].tolist()]
        found = list(_near_copies(seen, known[np.array(new, bool)], asked, split))
        few = len(found) <= HARMLESS * len(asked)
        yield from (replace(copy, level=NOTE) if few else copy for copy in found)


def of_near_copies_in_a_pool(seen: Seen) -> Iterator[Finding]:
    """The same picture twice in train, in other bytes, if it is dlkit that cuts the validation split out of it."""
    if any(sample.split == "validation" for sample in seen.survey.samples):
        return
    pool = seen.of_split("train")
    digests = [seen.looks[place].digest for place in seen.places[pool].tolist()]

    def picture(index: int) -> Image.Image:
        return seen.picture(int(seen.places[pool[index]]))

    for one, two, mirror in near_duplicates.pairs_within(seen.thumbnails[pool], picture):
        if digests[one] == digests[two]:  # reported as copies
            continue
        how = f", {mirror.name}" if mirror.name else ""
        first, second = (seen.path(seen.places[pool[index]]) for index in (one, two))
        message = f"is nearly the same picture as {second}{how}. data.options.group=near keeps both in one split."
        yield Finding(NOTE, "near-duplicate", first, message)


def _near_copies(seen: Seen, known: Places, asked: Places, split: str) -> Iterator[Finding]:
    def picture(place: int) -> Image.Image:
        return seen.picture(int(seen.places[known[place]]))

    for match in near_duplicates.matches(seen.thumbnails[known], seen.thumbnails[asked]):
        first, second = int(seen.places[known[match.known]]), int(seen.places[asked[match.asked]])
        if near_duplicates.same_picture(match, picture, seen.picture(second)):
            how = f", {match.mirror.name}" if match.mirror.name else ""
            yield Finding(FAULT, "near-leak", seen.path(first), f"is in {split} too{how}: {seen.path(second)}.")


def of_labels(seen: Seen) -> Iterator[Finding]:
    """Pairs of classes whose labels are exchanged between train and another split."""
    numbers = {name: number for number, name in enumerate(seen.survey.classes)}
    targets = np.array([numbers.get(seen.sample(place).label, -1) for place in seen.places.tolist()], np.int64)
    train = seen.of_split("train")
    for split in SPLITS[1:]:
        asked = seen.of_split(split)
        asked = asked[targets[asked] >= 0]
        for found in exchanges(seen.thumbnails[train], targets[train], seen.thumbnails[asked], targets[asked]):
            first, second = seen.survey.classes[found.first], seen.survey.classes[found.second]
            message = (
                f"{first!r} and {second!r} seem exchanged: {found.first_share:.0%} of the first look more like train's "
                f"{second!r}, {found.second_share:.0%} of the second like its {first!r}."
            )
            yield Finding(FAULT, "exchanged-labels", split, message)


def of_hashes(seen: Seen, expected: Mapping[str, str]) -> Iterator[Finding]:
    """Files whose bytes are not the listed ones, though they may decode; and what is there or listed alone."""
    if not expected:
        return
    there = {os.path.normpath(seen.path(place)): look for place, look in enumerate(seen.looks)}
    for path, digest in expected.items():
        if path not in there:
            yield Finding(FAULT, "gone", path, "is listed and not there.")
        elif there[path].header is not None and there[path].digest.hex() != digest:
            yield Finding(FAULT, "altered", path, f"has SHA-256 {there[path].digest.hex()}; {digest} is listed.")
    for path in sorted(there.keys() - expected.keys()):
        yield Finding(NOTE, "unlisted", path, "is there and not listed.")
