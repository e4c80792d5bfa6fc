"""CIFAR-10: 60,000 photographs of ten kinds of things, 32 × 32, color.

Krizhevsky, "Learning multiple layers of features from tiny images", technical report, University of Toronto, 2009.
The binary version: no pickle is read. Its publisher states only an MD5.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from dlkit.atomic_io import storage_errors
from dlkit.data.download.archives import extract
from dlkit.data.splits import About, MemoryImages, Source, Splits
from dlkit.errors import VerificationError
from dlkit.specs import ImageSpec

MIRRORS = (
    "https://www.cs.toronto.edu/~kriz/",
    "https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10/",
)
ARCHIVE = "cifar-10-binary.tar.gz"
FOLDER = "cifar-10-batches-bin"
RECORD = 1 + 3 * 32 * 32  # bytes: the label, then the planes red, green, blue
TRAIN = [f"data_batch_{number}.bin" for number in range(1, 6)]
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

ABOUT = About(
    title="CIFAR-10, small photographs",
    classes=10,
    sizes={"train": 50_000, "test": 10_000},
    licence="none stated by its authors; they ask to be cited",
    citation="Krizhevsky, technical report, University of Toronto, 2009",
    files={
        ARCHIVE: [Source(mirror + ARCHIVE, "md5:c32a1d4ab5d03f1284b67883e8d87530", 170_052_171) for mirror in MIRRORS]
    },
)


def fetch(folder: Path, download: Callable[[str], Path]) -> None:
    """The six batches and the file of class names."""
    unpacked = folder / "unpacked"
    extract(download(ARCHIVE), unpacked)
    with storage_errors(folder):
        for name in [*TRAIN, "test_batch.bin", "batches.meta.txt"]:
            if not (unpacked / FOLDER / name).is_file():
                raise VerificationError(f"{ARCHIVE} has no {FOLDER}/{name}.")
            (unpacked / FOLDER / name).rename(folder / name)
        shutil.rmtree(unpacked)


def spec() -> ImageSpec:
    """The spec, without the data."""
    return ImageSpec(3, 32, 32, CLASSES, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))


def load(folder: Path) -> Splits:
    """The published train and test splits."""
    image_spec = replace(spec(), classes=_classes(folder))
    return Splits(image_spec, train=_batches(folder, TRAIN), test=_batches(folder, ["test_batch.bin"]))


def _classes(folder: Path) -> tuple[str, ...]:
    path = folder / "batches.meta.txt"
    with storage_errors(path):
        names = tuple(path.read_text(encoding="ascii", errors="replace").split())
    if len(names) != 10 or len(set(names)) != 10:
        raise VerificationError(f"{path}: has {len(names)} class names instead of ten different ones.")
    return names


def _batches(folder: Path, names: list[str]) -> MemoryImages:
    parts = [_records(folder / name) for name in names]
    images = np.concatenate([part[:, 1:] for part in parts]).reshape(-1, 3, 32, 32)
    return MemoryImages(images, np.concatenate([part[:, 0] for part in parts]).astype(np.int64))


def _records(path: Path) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    with storage_errors(path):
        values = np.fromfile(path, np.uint8)
    if values.size == 0 or values.size % RECORD:
        raise VerificationError(f"{path}: {values.size} bytes are not a multiple of the record size, {RECORD} bytes.")
    records = values.reshape(-1, RECORD)
    if records[:, 0].max() > 9:
        raise VerificationError(f"{path}: contains label {records[:, 0].max()}; the classes are 0 to 9.")
    return records
