"""The samples and classes of a data set for a check: training stops at the first fault, a check reports all of them."""

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
from dlkit.data.class_folders import class_named_train_hint, find_split_folders, unused_note
from dlkit.data.classes import class_name, natural
from dlkit.data.images.formats import EXTENSIONS
from dlkit.data.splits import ImageFiles, ImageSource, MemoryImages, Splits
from dlkit.errors import DataError, DlkitError
from dlkit.registry import did_you_mean

FAULT, NOTE = "fault", "note"
IMBALANCE = 3  # a note if the largest class of train has this many times the images of the smallest


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault, which should be fixed, or a note."""

    level: str
    kind: str
    path: str
    message: str
    drop: bool = False  # the file should be removed


@dataclass(frozen=True, slots=True)
class LabeledImage:
    """An image with its split and label."""

    source: ImageSource
    split: str
    label: str


@dataclass(frozen=True)
class Survey:
    """The samples of a data set, the classes of train, and the findings that need no pixels."""

    samples: list[LabeledImage] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def fault(self, kind: str, path: object, message: str, *, drop: bool = False) -> None:
        self.findings.append(Finding(FAULT, kind, str(path), message, drop))

    def note(self, kind: str, path: object, message: str) -> None:
        self.findings.append(Finding(NOTE, kind, str(path), message))

    def counts(self) -> dict[str, Counter[str]]:
        """Split → class → images, in the order of the samples."""
        counts: dict[str, Counter[str]] = {}
        for sample in self.samples:
            counts.setdefault(sample.split, Counter())[sample.label] += 1
        return counts


@dataclass(frozen=True)
class ArrayImage:
    """An image in memory, which reads as a PPM or PGM file."""

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


def advice(most: int, fewest: int) -> str:
    """The ratio of the largest class to the smallest, and what to train with."""
    ratio = f"{most / fewest:.0f} : 1" if fewest else f"{most:,} : 0"
    return f", {ratio}. Train with --class-weights balanced --monitor val/balanced_accuracy."


def survey_folder(root: Path) -> Survey:
    """The class folders below `root`, by the rules of the data set `folder`.

    Raises:
        DataError: no such folder, or nothing in it that could be a data set.
        StorageError: a folder cannot be read.
    """
    split_folders, survey = find_split_folders(root), Survey()
    if split_folders.unused:
        survey.note("unused-folder", root, unused_note(root, split_folders).removeprefix(f"{root}: "))
    for split in ("train", "validation", "test"):
        folder = getattr(split_folders, split)
        if folder is None:
            continue
        classes = _class_folders(folder, survey)
        if split == "train":
            survey.classes.extend(sorted(classes, key=natural))
            _check_classes(folder, survey, class_named_train_hint(root, split_folders))
        for name in sorted(classes, key=natural):
            survey.samples.extend(LabeledImage(path, split, name) for path in _images_below(classes[name], survey))
            if split != "train" and name not in survey.classes:
                hint = did_you_mean(name, survey.classes)
                survey.fault("unknown-class", classes[name], f"the class {name!r} is not in train. {hint}")
        _check_counts(split, classes, folder, survey)
    return survey


def survey_splits(splits: Splits) -> Survey:
    """The images of a loaded data set."""
    survey = Survey(classes=list(splits.spec.classes))
    for split, samples in (("train", splits.train), ("validation", splits.validation), ("test", splits.test)):
        if samples is None:
            continue
        sources: Iterable[ImageSource]
        if isinstance(samples, MemoryImages):
            sources = (ArrayImage(f"{split}[{index}]", image) for index, image in enumerate(samples.images))
        else:
            assert isinstance(samples, ImageFiles), "other data sets are refused by name"
            sources = samples.paths
        labels = (survey.classes[target] for target in samples.targets)
        survey.samples.extend(LabeledImage(source, split, label) for source, label in zip(sources, labels, strict=True))
        _check_counts(split, {}, Path(split), survey)
    return survey


def _class_folders(folder: Path, survey: Survey) -> dict[str, Path]:
    """Class name → its folder; reports stray files and names that are invalid or ambiguous."""
    classes: dict[str, Path] = {}
    for entry in folders.listed(folder):
        if not folders.is_folder(entry):
            survey.note("stray-file", entry.path, "is outside the class folders and ignored.")
            continue
        try:
            name = class_name(entry.name)
        except DataError as error:
            survey.fault("class-name", folder, str(error))
            name = entry.name
        classes[entry.name if name in classes else name] = Path(entry.path)
    for name, other in _twins(classes):
        message = f"the classes {other!a} and {name!a} differ only in case or in Unicode normalization."
        survey.fault("case-twins", classes[name], f"{message} Rename or merge them.")
    return classes


def _twins(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Names with an earlier name that equals them on a file system that ignores case and Unicode normalization."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if other != name:
            yield name, other


def _images_below(folder: Path, survey: Survey) -> list[Path]:
    def report_error(error: DlkitError) -> None:
        path, _, reason = str(error).partition(": ")
        survey.fault("unreadable", path, reason)

    files = sorted(folders.files_below(folder, report_error), key=natural)
    for name, other in _twins(files):
        survey.fault("case-twins", name, f"differs only in case from {os.path.basename(other)}.")
    for path in files:
        if not _has_image_extension(path):
            _check_stray(Path(path), survey)
    return [Path(path) for path in files if _has_image_extension(path)]


def _has_image_extension(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in EXTENSIONS


def _check_stray(path: Path, survey: Survey) -> None:
    header = scan.scan_image(path).header
    if header is None:
        survey.fault("stray-file", path, "is not an image, nor named like one; it is ignored.")
    else:
        message = f"is a {header.format} image, but not named like an image, and is ignored. Rename it."
        survey.fault("wrong-extension", path, message)


def _check_classes(folder: Path, survey: Survey, hint: str) -> None:
    if not survey.classes:
        raise DataError(f"{folder}: has no class folders. Each class is a folder of images.{hint}")
    if len(survey.classes) == 1:
        message = f"has one class only, {survey.classes[0]!r}; a classifier needs two."
        survey.fault("one-class", folder, message)


def _check_counts(split: str, classes: Mapping[str, Path], folder: Path, survey: Survey) -> None:
    """Reports classes without images, and an imbalance of train."""
    counts = survey.counts()
    own, train = counts.get(split, Counter()), counts.get("train", Counter())
    for name in survey.classes:
        if own[name] or (split != "train" and not train[name]):  # the latter is reported for train
            continue
        if name in classes:
            survey.fault("empty-class", classes[name], "the class folder holds no image.")
        else:
            kind = "empty-class" if split == "train" else "missing-class"
            survey.fault(kind, folder / name, f"the {split} split has no image of {name!r}.")
    if split == "train" and own:
        (largest, most), (smallest, fewest) = own.most_common()[0], own.most_common()[-1]
        if most >= IMBALANCE * fewest:
            message = f"its classes range from {fewest:,} images ({smallest!r}) to {most:,} ({largest!r})"
            survey.note("imbalance", folder, message + advice(most, fewest))
