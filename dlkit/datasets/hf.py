"""Hugging Face data sets of images: hf:NAME, of the hub, or hf:FOLDER, that save_to_disk wrote.

They need the package datasets: python -m pip install 'dlkit[hf]'. NAME is the hub's, such as ylecun/mnist, and
hf:NAME:CONFIG names one of several configurations. It is fetched once and kept in the cache as save_to_disk writes it,
so that a run goes on with what it began with, whatever becomes of the hub's.

The image is the column of that type, the label the one of type ClassLabel, whose names are the classes in their order.
Where there are several, or the label is text or a number, data.options.image_column and label_column say which. Rows
with the same value in group_column, or of one data.options.group as in the data set `folder`, stay together when
validation is cut from train, and test by data.options.test=0.1.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from dlkit import atomic_io, cache
from dlkit.config.split_names import split_of
from dlkit.data.classes import class_name
from dlkit.data.download.download import locked
from dlkit.data.download.http import UnreachableError
from dlkit.data.images import user_images
from dlkit.data.splits import Splits
from dlkit.errors import DataError, StorageError, UsageError
from dlkit.privacy import offline
from dlkit.registry import did_you_mean

NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?(:[\w.-]+)?")
NOT_GIVEN = "-1"  # what ClassLabel holds where a test split keeps its labels to itself

Table = Any  # a datasets.Dataset; the package has no types that mypy could follow


@dataclass(frozen=True, order=True)
class Row:
    """An image in a table."""

    split: str
    place: int
    table: Table = field(compare=False, repr=False)
    column: str = field(compare=False)
    folder: Path = field(compare=False)

    def __str__(self) -> str:
        return f"{self.folder}/{self.split}/{self.place}"

    @property
    def size(self) -> int:
        return len(self.read())

    def read(self) -> bytes:
        """Raises: DataError where the row has no image of its own."""
        image = self.table[self.place][self.column]
        if image is None or image["bytes"] is None:
            raise DataError("the table holds no image here, or only the path of one.")
        return bytes(image["bytes"])


def bring(place: str, allow_download: bool, log: Callable[[str], None]) -> Path:
    """The folder of the data set; one of the hub is fetched into the cache, which is said."""
    if os.path.isdir(place):
        return Path(place)
    if not NAME.fullmatch(place) or ".." in place:
        raise DataError(f"{place}: there is no such folder, and the hub's names look like owner/name.")
    folder = cache.datasets_dir() / "hf" / re.sub(r"[/:]", "--", place)
    if folder.is_dir():
        return folder
    if offline() or not allow_download:
        raise user_images.not_fetched(f"{place}: there is no such folder, and the hub's data set of this name")
    cache.writable(folder.parent)
    with locked(folder, log):
        if not folder.is_dir():
            log(f"data set {place!r} is not in the cache; fetching it from the Hugging Face hub")
            _fetch(place, folder)
    return folder


def load(
    folder: Path,
    *,
    image_column: str = "",
    label_column: str = "",
    group_column: str = "",
    group: str = "",
    test: float = 0.0,
    size: int = 224,
    channels: int = 3,
    crop: float = 1.0,
) -> Splits:
    """The splits of a folder that save_to_disk wrote; the images are read when they are needed.

    Raises:
        UsageError: the package datasets is not installed.
        DataError: no such data set, no or several columns that could be meant, or a label that train does not have.
    """
    options = user_images.ImageOptions("hf", size, channels, crop)
    tables = _tables(folder)
    image = _column(folder, tables["train"], image_column, "Image", "image_column")
    label = _column(folder, tables["train"], label_column, "ClassLabel", "label_column")
    labels = {split: _labels(folder, split, table, label) for split, table in tables.items()}
    notes = [f"the {split} split has no labels; it is left out." for split, found in labels.items() if found is None]
    told = {split: found for split, found in labels.items() if found is not None}
    classes = _classes(folder, tables["train"].features[label], told["train"])
    rows = {split: _rows(folder, split, tables[split], image) for split in told}
    samples = {split: user_images.labelled(rows[split], told[split], classes, rows[split]) for split in told}
    notes += [line for split, part in samples.items() for line in user_images.missing(split, part, classes)]
    if group and group_column:
        raise UsageError(f"data.options.group is {group!r} and group_column is {group_column!r}: give one of them.")
    groups = user_images.groups_of(group, samples["train"].paths, map(str, rows["train"]))
    groups = user_images.numbered(_values(folder, tables["train"], group_column)) if group_column else groups
    return user_images.splits(options.spec(classes), samples, test=test, groups=groups, notes=notes)


def _datasets() -> ModuleType:
    """The package, without its progress bars."""
    if importlib.util.find_spec("datasets") is None:
        raise UsageError("hf needs the package datasets, which is not installed: python -m pip install 'dlkit[hf]'.")
    datasets = importlib.import_module("datasets")
    datasets.disable_progress_bars()
    return datasets


def _fetch(place: str, folder: Path) -> None:
    """The hub's data set, written beside its place and renamed; what was downloaded for it goes."""
    datasets = _datasets()
    work = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(work, ignore_errors=True)
    name, _, configuration = place.partition(":")
    try:
        found = datasets.load_dataset(name, configuration or None, cache_dir=os.fspath(work / "hub"))
        found.save_to_disk(os.fspath(work / "set"))
        atomic_io.move_folder(work / "set", folder)
    except datasets.exceptions.DatasetNotFoundError as error:
        raise DataError(f"{place}: the hub has no such data set that anyone may read, nor is it a folder.") from error
    except ConnectionError as error:
        raise UnreachableError(f"{place}: the Hugging Face hub cannot be reached: {_reason(error)}") from error
    except OSError as error:
        raise StorageError(f"{place}: {_reason(error)}") from error
    except (ValueError, RuntimeError) as error:  # several configurations, or a data set that is a program
        raise DataError(f"{place}: {_reason(error)}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _tables(folder: Path) -> dict[str, Table]:
    datasets = _datasets()
    try:
        found = datasets.load_from_disk(os.fspath(folder))
    except Exception as error:  # a damaged table may raise anything inside pyarrow
        raise DataError(f"{folder}: not a folder that save_to_disk wrote: {_reason(error)}") from error
    if not isinstance(found, Mapping):
        return {"train": found}
    tables: dict[str, Table] = {}
    for name, table in found.items():
        split = split_of(name)
        if split is None or split in tables:
            raise DataError(f"{folder}: is {name!r} train, validation or test? It has: {', '.join(found)}.")
        tables[split] = table
    if "train" not in tables:
        raise DataError(f"{folder}: has {' and '.join(found)} but no train split.")
    return tables


def _column(folder: Path, table: Table, given: str, kind: str, option: str) -> str:
    """The column that was named, or the only one of this type."""
    if given:
        if given not in table.features:
            raise DataError(f"{folder}: has no column {given!r}. {did_you_mean(given, table.features)}")
        return given
    found: list[str] = [name for name, feature in table.features.items() if type(feature).__name__ == kind]
    if len(found) != 1:
        there = ", ".join(f"{name} ({type(feature).__name__})" for name, feature in table.features.items())
        raise DataError(
            f"{folder}: has {len(found)} columns of type {kind}; data.options.{option} says which. It has: {there}."
        )
    return found[0]


def _labels(folder: Path, split: str, table: Table, column: str) -> list[str] | None:
    """The class's name of each row; None where the labels are kept back."""
    values = _values(folder, table, column)
    names = getattr(table.features[column], "names", None)
    if names is None:
        return [_named(folder, value) for value in values]
    if split != "train" and set(values) == {NOT_GIVEN}:
        return None
    known = {str(place): _named(folder, name) for place, name in enumerate(names)}
    if unknown := sorted(set(values) - known.keys()):
        raise DataError(f"{folder}/{split}: the column {column!r} holds the label {unknown[0]}, which has no name.")
    return [known[value] for value in values]


def _named(folder: Path, name: str) -> str:
    try:
        return class_name(name)
    except DataError as error:
        raise DataError(f"{folder}: {error}") from error


def _values(folder: Path, table: Table, column: str) -> list[str]:
    """A column of text or whole numbers, as text."""
    if column not in table.features:
        raise DataError(f"{folder}: has no column {column!r}. {did_you_mean(column, table.features)}")
    values = table.select_columns([column])[:][column]
    for place, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise DataError(f"{folder}: row {place} of the column {column!r} is no text and no whole number.")
    return [str(value) for value in values]


def _classes(folder: Path, feature: Any, labels: Sequence[str]) -> tuple[str, ...]:
    """The names that the column's type lists, else those that occur."""
    if names := getattr(feature, "names", None):
        user_images.classes_of_train(folder, names)
        return tuple(_named(folder, name) for name in names)
    return user_images.classes_of_train(folder, labels)


def _rows(folder: Path, split: str, table: Table, column: str) -> list[Row]:
    encoded = table.cast_column(column, _datasets().Image(decode=False))
    return [Row(split, place, encoded, column, folder) for place in range(len(table))]


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:300].rstrip(".") + "."
