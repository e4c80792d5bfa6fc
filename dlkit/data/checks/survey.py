"""What a data set is made of, gathered leniently: training stops at the first fault, a check wants all of them."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dlkit.data import folders
from dlkit.data.checks import scan
from dlkit.data.classes import class_name, natural
from dlkit.data.images.decode import EXTENSIONS
from dlkit.data.splits import ImageFiles, ImageSource, MemoryImages, Splits
from dlkit.datasets import folder
from dlkit.errors import DataError, DlkitError
from dlkit.registry import did_you_mean

FAULT, NOTE = "fault", "note"
UNEVEN = 10  # times as many images in the largest class as in the smallest are worth a note


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that was found: a fault is to be mended, a note is good to know."""

    level: str
    kind: str
    path: str
    message: str
    drop: bool = False  # the file is best left out


@dataclass(frozen=True, slots=True)
class Sample:
    """An image, in which split it is, and what it is called there."""

    source: ImageSource
    split: str
    label: str


@dataclass(frozen=True)
class Survey:
    """The samples of a data set, its classes as train has them, and what their places alone tell."""

    samples: list[Sample] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def fault(self, kind: str, path: object, message: str, *, drop: bool = False) -> None:
        self.findings.append(Finding(FAULT, kind, str(path), message, drop))

    def note(self, kind: str, path: object, message: str) -> None:
        self.findings.append(Finding(NOTE, kind, str(path), message))

    def counts(self) -> dict[str, Counter[str]]:
        """Split → class → images, in the order of both."""
        found: dict[str, Counter[str]] = {}
        for sample in self.samples:
            found.setdefault(sample.split, Counter())[sample.label] += 1
        return found


@dataclass(frozen=True)
class Held:
    """An image of a split that is held in memory, as the file it would be."""

    name: str
    image: npt.NDArray[np.uint8]  # (C, H, W)

    def __str__(self) -> str:
        return self.name

    @property
    def size(self) -> int:
        return self.image.size

    def read(self) -> bytes:
        channels, height, width = self.image.shape
        return b"P%d %d %d 255\n" % (5 if channels == 1 else 6, width, height) + self.image.transpose(1, 2, 0).tobytes()


def of_folder(root: Path) -> Survey:
    """The class folders below `root`, by the rules of the data set `folder`.

    Raises:
        DataError: no such folder, or nothing in it that could be a data set.
        StorageError: a folder cannot be read.
    """
    layout, survey = folder.find_layout(root), Survey()
    if layout.unused:
        survey.note("unused-folder", root, folder.unused_folders(root, layout).removeprefix(f"{root}: "))
    for split, place in (("train", layout.train), ("validation", layout.validation), ("test", layout.test)):
        if place is None:
            continue
        classes = _class_folders(place, survey)
        if split == "train":
            survey.classes.extend(sorted(classes, key=natural))
            _check_classes(place, survey, folder.way_out(root, layout))
        for name in sorted(classes, key=natural):
            survey.samples.extend(Sample(path, split, name) for path in _images_below(classes[name], survey))
            if split != "train" and name not in survey.classes:
                hint = did_you_mean(name, survey.classes)
                survey.fault("unknown-class", classes[name], f"the class {name!r} is not in train. {hint}")
        _check_counts(split, classes, place, survey)
    return survey


def of_splits(splits: Splits) -> Survey:
    """The images of a data set that its own loader read."""
    survey = Survey(classes=list(splits.spec.classes))
    for split, samples in (("train", splits.train), ("validation", splits.validation), ("test", splits.test)):
        if samples is None:
            continue
        sources: Iterable[ImageSource]
        if isinstance(samples, MemoryImages):
            sources = (Held(f"{split}[{place}]", image) for place, image in enumerate(samples.images))
        else:
            assert isinstance(samples, ImageFiles), "the others are refused by their name"
            sources = samples.paths
        labels = (survey.classes[target] for target in samples.targets)
        survey.samples.extend(Sample(source, split, label) for source, label in zip(sources, labels, strict=True))
        _check_counts(split, {}, Path(split), survey)
    return survey


def _class_folders(place: Path, survey: Survey) -> dict[str, Path]:
    """Class name → its folder; what could not be a class, or not be told from another, is found here."""
    found: dict[str, Path] = {}
    for entry in folders.listed(place):
        if not folders.is_folder(entry):
            survey.note("stray-file", entry.path, "lies outside the class folders and is ignored.")
            continue
        try:
            name = class_name(entry.name)
        except DataError as error:
            survey.fault("class-name", place, str(error))
            name = entry.name
        found[entry.name if name in found else name] = Path(entry.path)
    for name, other in _twins(found):
        message = f"the classes {other!a} and {name!a} differ only in case or in how a letter is encoded."
        survey.fault("case-twins", found[name], f"{message} Rename or merge them.")
    return found


def _twins(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Names that a file system which ignores case and Unicode's forms takes for one before them."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if other != name:
            yield name, other


def _images_below(place: Path, survey: Survey) -> list[Path]:
    def failed(error: DlkitError) -> None:
        path, _, reason = str(error).partition(": ")
        survey.fault("unreadable", path, reason)

    files = sorted(folders.files_below(place, failed), key=natural)
    for name, other in _twins(files):
        survey.fault("case-twins", name, f"differs only in case from {os.path.basename(other)}.")
    for path in files:
        if not _named_like_an_image(path):
            _check_stray(Path(path), survey)
    return [Path(path) for path in files if _named_like_an_image(path)]


def _named_like_an_image(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in EXTENSIONS


def _check_stray(path: Path, survey: Survey) -> None:
    header = scan.look(path).header
    if header is None:
        survey.fault("stray-file", path, "is no image and is not named like one; it is ignored.")
    else:
        message = f"holds a {header.format} image, but is not named like one and is ignored. Rename it."
        survey.fault("wrong-extension", path, message)


def _check_classes(place: Path, survey: Survey, way_out: str) -> None:
    if not survey.classes:
        raise DataError(f"{place}: has no class folders. Each class is a folder of images.{way_out}")
    if len(survey.classes) == 1:
        message = f"has one class only, {survey.classes[0]!r}; there is nothing to tell apart."
        survey.fault("one-class", place, message)


def _check_counts(split: str, classes: Mapping[str, Path], place: Path, survey: Survey) -> None:
    """Classes without images, and how uneven those of train are."""
    counts = survey.counts()
    here, train = counts.get(split, Counter()), counts.get("train", Counter())
    for name in survey.classes:
        if here[name] or (split != "train" and not train[name]):  # the latter is told of train
            continue
        if name in classes:
            survey.fault("empty-class", classes[name], "the class folder holds no image.")
        else:
            kind = "empty-class" if split == "train" else "missing-class"
            survey.fault(kind, place / name, f"the {split} split has no image of {name!r}.")
    if split == "train" and here:
        (most, many), (least, few) = here.most_common()[0], here.most_common()[-1]
        if many >= UNEVEN * few:
            survey.note("imbalance", place, f"its classes run from {few:,} images ({least!r}) to {many:,} ({most!r}).")
