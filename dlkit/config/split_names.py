"""Names of splits: of folders, tables and shards, and in a table's column.

Letter case is ignored: Train, TRAINING, Valid, dev and Testing are splits. So are compound names that end in one
(photos_train, photos-val) or only describe one (test_images, val2017), where that cannot be the name of a class.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from dlkit.errors import DataError

SYNONYMS = {
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
    "eval": "validation", "evaluation": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
FILLERS = {"image", "images", "imgs", "img", "set", "split", "data", "dataset", "files", "folder"}


def split_of(name: str) -> str | None:
    """The split with this name: "Training" is train, "dev" is validation."""
    return SYNONYMS.get(name.strip().casefold())


def split_in(name: str) -> str | None:
    """The split in a compound name: photos_train, val-images, test2017."""
    words = [word for word in re.split(r"[\W\d_]+", name.casefold()) if word]
    if words and words[-1] in SYNONYMS:
        return SYNONYMS[words[-1]]
    return SYNONYMS.get(words[0]) if words and FILLERS.issuperset(words[1:]) else None


def resolve_splits(folder: Path, names: Mapping[str, str]) -> dict[str, str]:
    """Split → its name in a folder; the keys of `names` are shown to the user, the values are matched.

    A compound name counts beside a plain train, or if every name in the folder is a split: toy_train beside toy_car
    is a class.

    Raises:
        DataError: two names for one split.
    """
    plain = {name: split for name, read in names.items() if (split := split_of(read))}
    compound = {name: split for name, read in names.items() if name not in plain and (split := split_in(read))}
    matches = plain
    if "train" in plain.values():
        matches = plain | {name: split for name, split in compound.items() if split not in plain.values()}
    elif "train" in compound.values() and len(plain) + len(compound) == len(names) > 1:
        matches = plain | compound
    result: dict[str, str] = {}
    for name, split in matches.items():
        if split in result:
            raise DataError(f"{folder}: both {result[split]} and {name} are named like the {split} split. Keep one.")
        result[split] = name
    return result


def unused(names: Collection[str], splits: Mapping[str, str]) -> list[str]:
    """The names that belong to no split, sorted."""
    return sorted(set(names) - set(splits.values()))
