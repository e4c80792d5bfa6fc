"""Findings of a check that need the pixels or bytes of the images: per image, between images, of labels."""

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
from dlkit.data.checks.scan import DRAFT, SIDE, ImageScan, scan_images
from dlkit.data.checks.survey import FAULT, NOTE, Finding, LabeledImage, Survey
from dlkit.data.checks.swapped_labels import swapped_classes
from dlkit.data.images import decode
from dlkit.data.images.formats import EXTENSIONS, EXTENSIONS_BY_FORMAT
from dlkit.data.images.packed import PackedImage
from dlkit.specs import MAX_PIXELS

SPLITS = ("train", "validation", "test")  # of copies in two splits, the one in the earlier split is dropped
MIN_PIXELS = 16  # a smaller image shows nothing
HARMLESS_LEAK = 2e-3  # share of a split that is also in train in other bytes; it changes the accuracy by at most this
BLANK_STD = 1.0  # levels

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ScannedSurvey:
    """A survey, the scan of each sample, and the thumbnails of the valid images."""

    survey: Survey
    scans: list[ImageScan]
    valid: Indices  # (n,) sample indices
    thumbnails: npt.NDArray[np.uint8]  # (n, 8, 8, 3)
    max_pixels: int = MAX_PIXELS

    @classmethod
    def scan(
        cls, survey: Survey, workers: int | None, progress: Callable[[int, int], None], max_pixels: int = MAX_PIXELS
    ) -> ScannedSurvey:
        """Decodes all samples."""
        scans: list[ImageScan] = []
        valid: list[int] = []
        total = len(survey.samples)
        thumbnails = np.empty((total, SIDE, SIDE, 3), np.uint8)
        for index, scan in enumerate(scan_images([sample.source for sample in survey.samples], workers, max_pixels)):
            if scan.thumbnail is not None:
                thumbnails[len(valid)] = scan.thumbnail
                valid.append(index)
            scans.append(replace(scan, thumbnail=None))
            progress(index + 1, total)
        return cls(survey, scans, np.array(valid, np.int64), thumbnails[: len(valid)], max_pixels)

    def sample(self, index: int) -> LabeledImage:
        return self.survey.samples[index]

    def path(self, index: int) -> str:
        return str(self.sample(index).source)

    def image(self, index: int) -> Image.Image:
        return decode.decode(self.sample(index).source, 3, draft=DRAFT, max_pixels=self.max_pixels)

    def rows(self, *splits: str) -> Indices:
        """Rows of `valid` and `thumbnails` that belong to these splits."""
        return np.flatnonzero(np.array([self.sample(index).split in splits for index in self.valid.tolist()], bool))

    def all_findings(self, expected: Mapping[str, str], pool: bool) -> Iterator[Finding]:
        """All findings; `expected` maps paths to SHA-256, `pool` looks for near duplicates within train."""
        yield from image_findings(self)
        yield from copy_findings(self)
        yield from near_leak_findings(self)
        yield from label_findings(self)
        if pool:
            yield from near_duplicate_findings(self)
        yield from digest_findings(self, expected)


def image_findings(scanned: ScannedSurvey) -> Iterator[Finding]:
    """Faults and oddities of single images."""
    alpha = [scan.header.alpha for scan in scanned.scans if scan.header is not None]
    mixed = f"has transparency, as do {sum(alpha):,} of {len(alpha):,} images: dlkit composites it on white."
    for index, scan in enumerate(scanned.scans):
        path, header = scanned.path(index), scan.header
        if header is None:
            kind = "corrupt" if scan.damaged else "unsupported" if scan.readable else "unreadable"
            drop = scan.damaged and isinstance(scanned.sample(index).source, Path)
            yield Finding(FAULT, kind, path, scan.problem, drop)
            continue
        if header.width * header.height < MIN_PIXELS:
            yield Finding(FAULT, "tiny", path, f"has {header.width} × {header.height} pixels.")
        else:
            yield from (Finding(NOTE, "forgiven", path, note) for note in scan.notes)
        packed = isinstance(scanned.sample(index).source, PackedImage)  # has the name of the original file
        extension = "" if packed else os.path.splitext(path)[1].lower()
        if extension in EXTENSIONS and extension not in EXTENSIONS_BY_FORMAT[header.format]:
            yield Finding(FAULT, "wrong-extension", path, f"is a {header.format} file.")
        if header.orientation != 1:
            message = f"has EXIF orientation {header.orientation}: dlkit applies it, some programs do not."
            yield Finding(NOTE, "rotated", path, message)
        if header.alpha and not all(alpha):
            yield Finding(NOTE, "mixed-alpha", path, mixed)
    for row in np.flatnonzero(scanned.thumbnails.std((1, 2, 3)) < BLANK_STD).tolist():
        yield Finding(NOTE, "blank", scanned.path(scanned.valid[row]), "has a single color.")


def copy_findings(scanned: ScannedSurvey) -> Iterator[Finding]:
    """Files with equal bytes: in two classes, in two splits, or within one."""

    def digest(index: int) -> bytes:
        return scanned.scans[index].digest

    for _, group in groupby(sorted(scanned.valid.tolist(), key=digest), key=digest):
        copies = [scanned.sample(index) for index in group]
        if len(copies) > 1:
            yield from _findings_of_copies(copies)


def _findings_of_copies(copies: list[LabeledImage]) -> Iterator[Finding]:
    """Keeps one copy, in the last split and preferably no link; with contradicting labels all are reported."""
    labels = sorted({copy.label for copy in copies})
    kept = max(copies, key=lambda copy: (SPLITS.index(copy.split), not os.path.islink(str(copy.source))))
    for copy in copies:
        path = str(copy.source)
        if len(labels) > 1:
            yield Finding(FAULT, "two-classes", path, f"the same image is in {' and '.join(map(repr, labels))}.")
        elif copy.split != kept.split:
            yield Finding(FAULT, "leak", path, f"is also in {kept.split}: {kept.source}.", _can_drop(copy, kept))
        elif copy is not kept:
            yield Finding(NOTE, "duplicate", path, f"is a copy of {kept.source}.", _can_drop(copy, kept))


def _can_drop(copy: LabeledImage, kept: LabeledImage) -> bool:
    """Whether the other file survives if this one is deleted: False if links make both the same file."""
    if not isinstance(copy.source, Path) or not isinstance(kept.source, Path):
        return False
    return os.path.islink(copy.source) or os.path.realpath(copy.source) != os.path.realpath(kept.source)


def near_leak_findings(scanned: ScannedSurvey) -> Iterator[Finding]:
    """The same picture in two splits, in other bytes. A few per thousand are only a note: most web data has them."""
    for number, split in enumerate(SPLITS[1:], start=1):
        references, queries = scanned.rows(*SPLITS[:number]), scanned.rows(split)
        digests = {scanned.scans[index].digest for index in scanned.valid[queries].tolist()}  # already leaks
        is_new = [scanned.scans[index].digest not in digests for index in scanned.valid[references].tolist()]
        leaks = list(_near_leaks(scanned, references[np.array(is_new, bool)], queries, split))
        harmless = len(leaks) <= HARMLESS_LEAK * len(queries)
        yield from (replace(leak, level=NOTE) if harmless else leak for leak in leaks)


def _near_leaks(scanned: ScannedSurvey, references: Indices, queries: Indices, split: str) -> Iterator[Finding]:
    def image(reference: int) -> Image.Image:
        return scanned.image(int(scanned.valid[references[reference]]))

    for candidate in near_duplicates.find_candidates(scanned.thumbnails[references], scanned.thumbnails[queries]):
        first = int(scanned.valid[references[candidate.reference]])
        second = int(scanned.valid[queries[candidate.query]])
        if near_duplicates.is_duplicate(candidate, image, scanned.image(second)):
            message = f"is also in {split}{_mirrored(candidate.mirror)}: {scanned.path(second)}."
            yield Finding(FAULT, "near-leak", scanned.path(first), message)


def near_duplicate_findings(scanned: ScannedSurvey) -> Iterator[Finding]:
    """The same picture twice in train, in other bytes, if dlkit splits off the validation split."""
    if any(sample.split == "validation" for sample in scanned.survey.samples):
        return
    pool = scanned.rows("train")
    digests = [scanned.scans[index].digest for index in scanned.valid[pool].tolist()]

    def image(index: int) -> Image.Image:
        return scanned.image(int(scanned.valid[pool[index]]))

    for one, two, mirror in near_duplicates.find_duplicates(scanned.thumbnails[pool], image):
        if digests[one] == digests[two]:  # reported as copies
            continue
        first, second = (scanned.path(scanned.valid[pool[index]]) for index in (one, two))
        message = (
            f"is a near duplicate of {second}{_mirrored(mirror)}. data.options.group=near keeps both in one split."
        )
        yield Finding(NOTE, "near-duplicate", first, message)


def _mirrored(mirror: near_duplicates.Mirror) -> str:
    return f", {mirror.name}" if mirror.name else ""


def label_findings(scanned: ScannedSurvey) -> Iterator[Finding]:
    """Pairs of classes whose labels are swapped between train and another split."""
    indices = {name: index for index, name in enumerate(scanned.survey.classes)}
    targets = np.array([indices.get(scanned.sample(index).label, -1) for index in scanned.valid.tolist()], np.int64)
    train = scanned.rows("train")
    for split in SPLITS[1:]:
        rows = scanned.rows(split)
        rows = rows[targets[rows] >= 0]
        for pair in swapped_classes(scanned.thumbnails[train], targets[train], scanned.thumbnails[rows], targets[rows]):
            first, second = scanned.survey.classes[pair.first], scanned.survey.classes[pair.second]
            message = (
                f"{first!r} and {second!r} seem swapped: {pair.first_share:.0%} of the first look more like train's "
                f"{second!r}, {pair.second_share:.0%} of the second like its {first!r}."
            )
            yield Finding(FAULT, "exchanged-labels", split, message)


def digest_findings(scanned: ScannedSurvey, expected: Mapping[str, str]) -> Iterator[Finding]:
    """Files whose SHA-256 is not the expected one, and files that are missing or not listed."""
    if not expected:
        return
    scans = {os.path.normpath(scanned.path(index)): scan for index, scan in enumerate(scanned.scans)}
    for path, digest in expected.items():
        if path not in scans:
            yield Finding(FAULT, "gone", path, "is listed but missing.")
        elif scans[path].header is not None and scans[path].digest.hex() != digest:
            yield Finding(FAULT, "altered", path, f"has SHA-256 {scans[path].digest.hex()}, expected {digest}.")
    for path in sorted(scans.keys() - expected.keys()):
        yield Finding(NOTE, "unlisted", path, "is not listed.")
