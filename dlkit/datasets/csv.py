"""Your own images in a table: a .csv or .tsv file of paths and labels, or a folder with train.csv.

The first row names the columns; data.options.path_column and label_column select them, by default "path" and
"label". Columns are separated by commas, semicolons or tabs. Paths are relative to the folder of the table; paths
outside of it are refused, unless data.options.outside=true. If a table has the column "split" (split_column), its
fields are train, val or test, or their usual synonyms; a folder has train and, optionally, val and test, each .csv or
.tsv. Rows with the same field in group_column, or in one data.options.group as in the data set `folder`, stay in one
split when validation, or test with data.options.test=0.1, is held out from train. Classes are the labels of train, "2"
before "10".
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dlkit.config.split_names import SYNONYMS, split_in, split_of
from dlkit.data import tables
from dlkit.data.classes import class_name
from dlkit.data.images import user_images
from dlkit.data.splits import ImageFiles, Splits
from dlkit.errors import DataError, UsageError
from dlkit.registry import did_you_mean

HINT = "Select columns with data.options.path_column and label_column."


@dataclass(frozen=True)
class _Row:
    line: str  # file:line
    image: Path
    label: str
    split: str
    group: str


@dataclass(frozen=True)
class _Columns:
    path: str
    label: str
    split: str
    group: str  # "": none


def load(
    folder: Path,
    *,
    path_column: str = "path",
    label_column: str = "label",
    split_column: str = "split",
    group_column: str = "",
    group: str = "",
    outside: bool = False,
    test: float = 0.0,
    size: int = 224,
    channels: int = 3,
    crop: float = 1.0,
) -> Splits:
    """The splits of the table, as paths; no image is decoded.

    Raises:
        DataError: no such table or column, or an invalid image, label or split in a row; with its line.
    """
    options = user_images.ImageOptions("csv", size, channels, crop)
    columns = _Columns(path_column, label_column, split_column, group_column)
    files = tables.files(folder)
    rows = [row for split, path in files.items() for row in _rows(path, columns, split, len(files) == 1, outside)]
    _refuse_contradictions(rows)
    rows.sort(key=lambda row: user_images.sort_key(row.label, row.image))
    parts = {split: [row for row in rows if row.split == split] for split in ("train", "validation", "test")}
    classes = _classes(files["train"], parts["train"])
    samples = {split: _samples(part, classes) for split, part in parts.items() if part}
    if group and group_column:
        raise UsageError(f"data.options.group is {group!r} and group_column is {group_column!r}. Set only one of them.")
    groups = user_images.groups_of(group, samples["train"].paths, (str(row.image) for row in parts["train"]))
    groups = user_images.number_groups([row.group for row in parts["train"]]) if group_column else groups
    notes = [line for split, part in samples.items() for line in user_images.missing_class_notes(split, part, classes)]
    return user_images.splits(options.spec(classes), samples, test=test, groups=groups, notes=notes)


def _rows(path: Path, columns: _Columns, split: str, is_single: bool, outside: bool) -> Iterator[_Row]:
    """The rows of a table; a single table may have a split column."""
    required = [columns.path, columns.label, *([columns.group] if columns.group else [])]
    optional = [columns.split] if is_single else []
    if is_single and columns.split != "split":  # named explicitly
        required, optional = required + optional, []
    for line, fields in tables.rows(path, required, optional=optional, hint=HINT):
        fields = {column: field.strip() for column, field in fields.items()}
        if empty := [column for column, field in fields.items() if not field]:
            raise DataError(f"{path}:{line}: the field {empty[0]!r} is empty.")
        try:
            image = _image(path.parent, fields[columns.path], outside)
            label = class_name(fields[columns.label])
            split = _split(fields[columns.split]) if columns.split in fields else split
        except DataError as error:
            raise DataError(f"{path}:{line}: {error}") from error
        yield _Row(f"{path}:{line}", image, label, split, fields[columns.group] if columns.group else "")


def _image(folder: Path, field: str, outside: bool) -> Path:
    path = Path(field)
    if not outside and (path.is_absolute() or ".." in path.parts):
        raise DataError(f"{field!a} is outside the table's folder. Allow it: data.options.outside=true.")
    image = folder / path
    if not os.path.isfile(image):
        raise DataError(f"there is no file {os.fspath(image)!a}.")
    return image


def _split(field: str) -> str:
    split = split_of(field) or split_in(field)
    if split is None:
        raise DataError(f"unknown split {field!a}. {did_you_mean(field, SYNONYMS)}")
    return split


def _refuse_contradictions(rows: Sequence[_Row]) -> None:
    first: dict[Path, _Row] = {}
    for row in rows:
        other = first.setdefault(row.image, row)
        if other.label != row.label:
            raise DataError(f"{row.line}: {row.image.name!a} is {row.label!r}, but {other.label!r} at {other.line}.")


def _classes(path: Path, train: Sequence[_Row]) -> tuple[str, ...]:
    classes = user_images.train_classes(path, [row.label for row in train])
    if len(classes) > max(1000, len(train) // 2):
        raise DataError(f"{path}: {len(classes):,} labels for {len(train):,} images. Does the column contain classes?")
    return classes


def _samples(rows: Sequence[_Row], classes: tuple[str, ...]) -> ImageFiles:
    images, labels = [row.image for row in rows], [row.label for row in rows]
    return user_images.label_images(images, labels, classes, (row.line for row in rows))
