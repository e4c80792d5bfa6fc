"""CIFAR-100: 60,000 photographs of a hundred kinds of things, 32 × 32, color.

Krizhevsky, "Learning multiple layers of features from tiny images", technical report, University of Toronto, 2009.
The binary version: no pickle is read. `cifar100` has the hundred classes, `cifar100_coarse` their twenty superclasses.
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
from dlkit.errors import UsageError, VerificationError
from dlkit.registry import did_you_mean
from dlkit.specs import ImageSpec

VARIANTS = {"cifar100": {"labels": "fine"}, "cifar100_coarse": {"labels": "coarse"}}
ARCHIVE = "cifar-100-binary.tar.gz"
FOLDER = "cifar-100-binary"
RECORD = 2 + 3 * 32 * 32  # bytes: the coarse label, the fine label, then the planes red, green, blue
LABELS = {"coarse": (0, 20), "fine": (1, 100)}  # position in the record, number of classes
FILES = ("train.bin", "test.bin", "fine_label_names.txt", "coarse_label_names.txt")
COARSE = (
    "aquatic_mammals fish flowers food_containers fruit_and_vegetables household_electrical_devices "
    "household_furniture insects large_carnivores large_man-made_outdoor_things large_natural_outdoor_scenes "
    "large_omnivores_and_herbivores medium_mammals non-insect_invertebrates people reptiles small_mammals trees "
    "vehicles_1 vehicles_2"
)
FINE = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can "
    "castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin "
    "elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard "
    "lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear "
    "pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark "
    "shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone "
    "television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm"
)
CLASSES = {"coarse": tuple(COARSE.split()), "fine": tuple(FINE.split())}

MIRRORS = (
    "https://www.cs.toronto.edu/~kriz/",
    "https://mindspore-website.obs.cn-north-4.myhuaweicloud.com/notebook/datasets/",
)
SOURCES = [Source(mirror + ARCHIVE, "md5:03b5dce01913d631647c71ecec9e9cb8", 168_513_733) for mirror in MIRRORS]


def _about(title: str, labels: str) -> About:
    return About(
        title=title,
        classes=LABELS[labels][1],
        sizes={"train": 50_000, "test": 10_000},
        licence="none stated by its author, who asks to be cited",
        citation="Krizhevsky, technical report, University of Toronto, 2009",
        files={ARCHIVE: SOURCES},
    )


ABOUT = {
    "cifar100": _about("CIFAR-100, small photographs", "fine"),
    "cifar100_coarse": _about("CIFAR-100, twenty superclasses", "coarse"),
}


def fetch(folder: Path, download: Callable[[str], Path]) -> None:
    """The two files of records and the two of class names."""
    unpacked = folder / "unpacked"
    extract(download(ARCHIVE), unpacked)
    with storage_errors(folder):
        for name in FILES:
            if not (unpacked / FOLDER / name).is_file():
                raise VerificationError(f"{ARCHIVE} has no {FOLDER}/{name}.")
            (unpacked / FOLDER / name).rename(folder / name)
        shutil.rmtree(unpacked)


def spec(*, labels: str = "fine") -> ImageSpec:
    """The spec, without the data."""
    if labels not in CLASSES:
        raise UsageError(f"data set 'cifar100' has no labels {labels!r}. {did_you_mean(labels, CLASSES)}")
    return ImageSpec(3, 32, 32, CLASSES[labels], mean=(0.5071, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2762))


def load(folder: Path, *, labels: str = "fine") -> Splits:
    """The published train and test splits."""
    image_spec = spec(labels=labels)
    classes = _names(folder / f"{labels}_label_names.txt", len(image_spec.classes))
    return Splits(
        replace(image_spec, classes=classes),
        train=_records(folder / "train.bin", labels),
        test=_records(folder / "test.bin", labels),
    )


def _names(path: Path, count: int) -> tuple[str, ...]:
    with storage_errors(path):
        names = tuple(path.read_text(encoding="ascii", errors="replace").split())
    if len(names) != count or len(set(names)) != count:
        raise VerificationError(f"{path}: has {len(names)} class names instead of {count} different ones.")
    return names


def _records(path: Path, labels: str) -> MemoryImages:
    column, count = LABELS[labels]
    with storage_errors(path):
        values = np.fromfile(path, np.uint8)
    if values.size == 0 or values.size % RECORD:
        raise VerificationError(f"{path}: {values.size} bytes are not a multiple of the record size, {RECORD} bytes.")
    records = values.reshape(-1, RECORD)
    targets = records[:, column].astype(np.int64)
    if targets.max() >= count:
        raise VerificationError(f"{path}: contains {labels} label {targets.max()}; the classes are 0 to {count - 1}.")
    return MemoryImages(np.ascontiguousarray(records[:, 2:]).reshape(-1, 3, 32, 32), targets)
