"""Hugging Face data sets of images: hf:NAME on the hub, or hf:FOLDER from save_to_disk.

Requires the package datasets: python -m pip install 'dlkit[hf]'. NAME is a name on the hub, such as ylecun/mnist;
hf:NAME:CONFIG selects one of several configurations. The data set is downloaded once and stored in the cache in the
format of save_to_disk, so that later changes on the hub do not affect resumed runs.

The image is the column of type Image, the label the one of type ClassLabel, whose names are the classes in order. If
there are several, or the label is text or a number, select with data.options.image_column and label_column. Rows with
the same value in group_column, or in one data.options.group as in the data set `folder`, stay in one split when
validation, or test with data.options.test=0.1, is held out from train.
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
MISSING_LABEL = "-1"  # of ClassLabel, in test splits without published labels

Table = Any  # a datasets.Dataset; the package has no types that mypy could follow


@dataclass(frozen=True, order=True)
class Row:
    """An image in a table."""

    split: str
    index: int
    table: Table = field(compare=False, repr=False)
    column: str = field(compare=False)
    folder: Path = field(compare=False)

    def __str__(self) -> str:
        return f"{self.folder}/{self.split}/{self.index}"

    @property
    def size(self) -> int:
        return len(self.read())

    def read(self) -> bytes:
        """Raises: DataError if the row contains no image."""
        image = self.table[self.index][self.column]
        if image is None or image["bytes"] is None:
            raise DataError("the row contains no image, or only its path.")
        return bytes(image["bytes"])


def locate(name: str, allow_download: bool, log: Callable[[str], None]) -> Path:
    """The folder of the data set; downloads one from the hub into the cache and logs it."""
    if os.path.isdir(name):
        return Path(name)
    if not NAME.fullmatch(name) or ".." in name:
        raise DataError(f"{name}: no such folder, and not a name on the hub such as owner/name.")
    folder = cache.datasets_dir() / "hf" / re.sub(r"[/:]", "--", name)
    if folder.is_dir():
        return folder
    if offline() or not allow_download:
        raise user_images.not_cached(f"{name}: no such folder, and the hub's data set with this name")
    cache.writable(folder.parent)
    with locked(folder, log):
        if not folder.is_dir():
            log(f"data set {name!r} is not in the cache; downloading it from the Hugging Face hub")
            _fetch(name, folder)
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
    """The splits of a folder from save_to_disk; images are read on demand.

    Raises:
        UsageError: the package datasets is not installed.
        DataError: no such data set, no or several matching columns, or a label that is not in train.
    """
    options = user_images.ImageOptions("hf", size, channels, crop)
    tables = _tables(folder)
    image = _column(folder, tables["train"], image_column, "Image", "image_column")
    label = _column(folder, tables["train"], label_column, "ClassLabel", "label_column")
    labels = {split: _labels(folder, split, table, label) for split, table in tables.items()}
    notes = [f"the {split} split has no labels and is not used." for split, names in labels.items() if names is None]
    labelled = {split: names for split, names in labels.items() if names is not None}
    classes = _classes(folder, tables["train"].features[label], labelled["train"])
    rows = {split: _rows(folder, split, tables[split], image) for split in labelled}
    samples = {
        split: user_images.label_images(rows[split], labelled[split], classes, rows[split]) for split in labelled
    }
    notes += [line for split, part in samples.items() for line in user_images.missing_class_notes(split, part, classes)]
    if group and group_column:
        raise UsageError(f"data.options.group is {group!r} and group_column is {group_column!r}. Set only one of them.")
    groups = user_images.groups_of(group, samples["train"].paths, map(str, rows["train"]))
    groups = user_images.number_groups(_values(folder, tables["train"], group_column)) if group_column else groups
    return user_images.splits(options.spec(classes), samples, test=test, groups=groups, notes=notes)


def _datasets() -> ModuleType:
    """The package datasets, without progress bars."""
    if importlib.util.find_spec("datasets") is None:
        raise UsageError("hf needs the package datasets, which is not installed: python -m pip install 'dlkit[hf]'.")
    datasets = importlib.import_module("datasets")
    datasets.disable_progress_bars()
    return datasets


def _fetch(address: str, folder: Path) -> None:
    """Download a data set of the hub next to the folder, rename it, and remove the downloads."""
    datasets = _datasets()
    work = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(work, ignore_errors=True)
    name, _, configuration = address.partition(":")
    try:
        dataset = datasets.load_dataset(name, configuration or None, cache_dir=os.fspath(work / "hub"))
        dataset.save_to_disk(os.fspath(work / "set"))
        atomic_io.move_folder(work / "set", folder)
    except datasets.exceptions.DatasetNotFoundError as error:
        raise DataError(f"{address}: neither a public data set on the hub nor a folder.") from error
    except ConnectionError as error:
        raise UnreachableError(f"{address}: the Hugging Face hub cannot be reached: {_reason(error)}") from error
    except OSError as error:
        raise StorageError(f"{address}: {_reason(error)}") from error
    except (ValueError, RuntimeError) as error:  # several configurations, or a data set script
        raise DataError(f"{address}: {_reason(error)}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _tables(folder: Path) -> dict[str, Table]:
    datasets = _datasets()
    try:
        dataset = datasets.load_from_disk(os.fspath(folder))
    except Exception as error:  # a damaged table may raise anything inside pyarrow
        raise DataError(f"{folder}: not a folder from save_to_disk: {_reason(error)}") from error
    if not isinstance(dataset, Mapping):
        return {"train": dataset}
    tables: dict[str, Table] = {}
    for name, table in dataset.items():
        split = split_of(name)
        if split is None or split in tables:
            raise DataError(f"{folder}: {name!r} is not train, validation or test. It has: {', '.join(dataset)}.")
        tables[split] = table
    if "train" not in tables:
        raise DataError(f"{folder}: has {' and '.join(dataset)} but no train split.")
    return tables


def _column(folder: Path, table: Table, name: str, kind: str, option: str) -> str:
    """The column with this name, or the only one of this type if the name is empty."""
    if name:
        if name not in table.features:
            raise DataError(f"{folder}: has no column {name!r}. {did_you_mean(name, table.features)}")
        return name
    columns: list[str] = [name for name, feature in table.features.items() if type(feature).__name__ == kind]
    if len(columns) != 1:
        features = ", ".join(f"{name} ({type(feature).__name__})" for name, feature in table.features.items())
        raise DataError(
            f"{folder}: has {len(columns)} columns of type {kind}. Set data.options.{option}. It has: {features}."
        )
    return columns[0]


def _labels(folder: Path, split: str, table: Table, column: str) -> list[str] | None:
    """The class name of each row; None if the labels are not published."""
    values = _values(folder, table, column)
    names = getattr(table.features[column], "names", None)
    if names is None:
        return [_class_name(folder, value) for value in values]
    if split != "train" and set(values) == {MISSING_LABEL}:
        return None
    known = {str(index): _class_name(folder, name) for index, name in enumerate(names)}
    if unknown := sorted(set(values) - known.keys()):
        raise DataError(f"{folder}/{split}: the column {column!r} contains the label {unknown[0]}, which has no name.")
    return [known[value] for value in values]


def _class_name(folder: Path, name: str) -> str:
    try:
        return class_name(name)
    except DataError as error:
        raise DataError(f"{folder}: {error}") from error


def _values(folder: Path, table: Table, column: str) -> list[str]:
    """A column of strings or integers, as strings."""
    if column not in table.features:
        raise DataError(f"{folder}: has no column {column!r}. {did_you_mean(column, table.features)}")
    values = table.select_columns([column])[:][column]
    for index, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise DataError(f"{folder}: row {index} of the column {column!r} is neither text nor an integer.")
    return [str(value) for value in values]


def _classes(folder: Path, feature: Any, labels: Sequence[str]) -> tuple[str, ...]:
    """The class names of the column's type, otherwise the distinct labels."""
    if names := getattr(feature, "names", None):
        user_images.train_classes(folder, names)
        return tuple(_class_name(folder, name) for name in names)
    return user_images.train_classes(folder, labels)


def _rows(folder: Path, split: str, table: Table, column: str) -> list[Row]:
    encoded = table.cast_column(column, _datasets().Image(decode=False))
    return [Row(split, index, encoded, column, folder) for index in range(len(table))]


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:300].rstrip(".") + "."
