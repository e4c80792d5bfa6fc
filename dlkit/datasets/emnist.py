"""EMNIST: handwritten digits and letters, up to 814,255 of them, 28 × 28, gray.

Cohen, Afshar, Tapson and van Schaik, "EMNIST: an extension of MNIST to handwritten letters", 2017 (1702.05373). One
download has six splits: byclass (62 classes), bymerge and balanced (47; letters with similar cases are merged), letters
(26), digits and mnist (10). The published images are transposed; here they are upright.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase, digits

import numpy as np

from dlkit.atomic_io import storage_errors
from dlkit.data.download import idx
from dlkit.data.download.archives import extract
from dlkit.data.splits import About, MemoryImages, Source, Splits, pixel_statistics
from dlkit.errors import UsageError, VerificationError
from dlkit.registry import did_you_mean
from dlkit.specs import ImageSpec

VARIANTS = {
    "emnist": {"split": "balanced"},
    "emnist_byclass": {"split": "byclass"},
    "emnist_bymerge": {"split": "bymerge"},
    "emnist_letters": {"split": "letters"},
    "emnist_digits": {"split": "digits"},
    "emnist_mnist": {"split": "mnist"},
}
ARCHIVE = "gzip.zip"
PARTS = ("train", "test")
KINDS = {"images-idx3": 3, "labels-idx1": 1}
SOURCES = [  # the publisher's two addresses; SHA-256 as TensorFlow Datasets pins it, MD5 as torchvision does
    Source("https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip", "md5:58c8d27c78d21e728a6bc7b3cc06412e", 561_753_746),
    Source(
        "https://www.itl.nist.gov/iaui/vip/cs_links/EMNIST/gzip.zip",
        "sha256:fb9bb67e33772a9cc0b895e4ecf36d2cf35be8b709693c3564cea2a019fcda8e",
        561_753_746,
    ),
]

COUNTS = {  # classes, train, test
    "byclass": (62, 697_932, 116_323), "bymerge": (47, 697_932, 116_323), "balanced": (47, 112_800, 18_800),
    "letters": (26, 124_800, 20_800), "digits": (10, 240_000, 40_000), "mnist": (10, 60_000, 10_000),
}  # fmt: skip

MERGED = digits + ascii_uppercase + "abdefghnqrt"  # without the small letters that look like capitals
CHARACTERS = {
    "byclass": digits + ascii_uppercase + ascii_lowercase, "bymerge": MERGED, "balanced": MERGED,
    "letters": ascii_uppercase, "digits": digits, "mnist": digits,
}  # fmt: skip
STATISTICS = {  # mean and std from published code; load computes those of the actual images
    "byclass": (0.1736, 0.3317), "bymerge": (0.1736, 0.3317), "balanced": (0.1751, 0.3332), "letters": (0.1722, 0.3309),
    "digits": (0.1733, 0.3317), "mnist": (0.1733, 0.3317),
}  # fmt: skip


def _about(split: str) -> About:
    classes, train, test = COUNTS[split]
    return About(
        title=f"EMNIST {split}, handwritten characters",
        classes=classes,
        sizes={"train": train, "test": test},
        licence="public domain (a work of NIST)",
        citation="Cohen, Afshar, Tapson and van Schaik, 1702.05373, 2017",
        files={ARCHIVE: SOURCES},
    )


ABOUT = {name: _about(fixed["split"]) for name, fixed in VARIANTS.items()}


def fetch(folder: Path, download: Callable[[str], Path]) -> None:
    """Extract the images, labels and class tables of every split, compressed as published."""
    unpacked = folder / "unpacked"
    extract(download(ARCHIVE), unpacked)
    with storage_errors(folder):
        for split in COUNTS:
            for name in (*(f"{_file(split, part, kind)}.gz" for part in PARTS for kind in KINDS), _table(split)):
                file = next(iter(sorted(unpacked.rglob(name))), None)
                if file is None:
                    raise VerificationError(f"{ARCHIVE} has no {name}.")
                file.rename(folder / name)
        shutil.rmtree(unpacked)


def spec(*, split: str = "balanced") -> ImageSpec:
    """The spec, without the data."""
    if split not in COUNTS:
        raise UsageError(f"data set 'emnist' has no split {split!r}. {did_you_mean(split, COUNTS)}")
    mean, std = STATISTICS[split]
    return ImageSpec(1, 28, 28, tuple(CHARACTERS[split]), (mean,), (std,))


def load(folder: Path, *, split: str = "balanced") -> Splits:
    """One of the six published splits."""
    image_spec = spec(split=split)
    classes, first = _classes(folder / _table(split))
    train, test = (_samples(folder, split, part, first, len(classes)) for part in PARTS)
    mean, std = pixel_statistics(train.images)
    return Splits(replace(image_spec, classes=classes, mean=mean, std=std), train=train, test=test)


def _samples(folder: Path, split: str, part: str, first: int, classes: int) -> MemoryImages:
    files = {folder / f"{_file(split, part, kind)}.gz": dimensions for kind, dimensions in KINDS.items()}
    images, labels = (idx.read(file, dimensions) for file, dimensions in files.items())
    targets = labels.astype(np.int64) - first
    if len(images) != len(targets) or targets.min(initial=0) < 0 or targets.max(initial=0) >= classes:
        raise VerificationError(f"{folder}: the {split} {part} images and labels do not belong together.")
    upright = np.ascontiguousarray(images.transpose(0, 2, 1))[:, None]  # (N, 1, 28, 28)
    return MemoryImages(upright, targets)


def _classes(table: Path) -> tuple[tuple[str, ...], int]:
    """The characters, and the first label. Each line is a label and the codes of its characters, upper case first."""
    with storage_errors(table):
        lines = [line.split() for line in table.read_text(encoding="ascii", errors="replace").splitlines() if line]
    try:
        labels, names = zip(*((int(label), chr(int(code))) for label, code, *_ in lines), strict=True)
    except (ValueError, OverflowError) as error:
        raise VerificationError(f"{table}: not a table of labels and characters.") from error
    if list(labels) != list(range(labels[0], labels[0] + len(labels))) or len(set(names)) != len(names):
        raise VerificationError(f"{table}: its labels are not in order, or a character occurs twice.")
    return names, labels[0]


def _file(split: str, part: str, kind: str) -> str:
    return f"emnist-{split}-{part}-{kind}-ubyte"


def _table(split: str) -> str:
    return f"emnist-{split}-mapping.txt"
