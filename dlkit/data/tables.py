"""Tables with columns separated by commas, semicolons or tabs; the first row names the columns.

A folder has one table per split (train.csv, val.csv, test.csv, and the usual synonyms), or there is a single table. The
separator is detected from the first row. Text is UTF-8, with or without a byte order mark, or UTF-16 with one. Quotes
follow RFC 4180, except in tab-separated .tsv files, where they are ordinary characters.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from dlkit.atomic_io import storage_errors
from dlkit.config.split_names import resolve_splits
from dlkit.data.text import lines
from dlkit.errors import DataError
from dlkit.registry import did_you_mean

ENDINGS = (".csv", ".tsv")
DELIMITERS = (",", ";", "\t")

Row = tuple[int, dict[str, str]]  # line, column → field


def files(path: Path) -> dict[str, Path]:
    """The table of each split in a folder; a single file is train."""
    if not path.is_dir():
        return {"train": path}
    with storage_errors(path):
        tables = {file.name: file.stem for file in sorted(path.iterdir()) if file.suffix.lower() in ENDINGS}
    splits = resolve_splits(path, tables)
    if "train" not in splits:
        hint = f" It has {', '.join(tables)}." if tables else ""
        raise DataError(f"{path}: has neither train.csv nor train.tsv.{hint}")
    return {split: path / name for split, name in splits.items()}


def rows(path: Path, columns: Sequence[str], *, optional: Sequence[str] = (), hint: str = "") -> Iterator[Row]:
    """The line number of each row and its fields in these columns; the table may lack `optional` columns.

    Raises:
        DataError: no such file or column, a duplicate column, a row that is too short or not UTF-8; with its line.
    """
    reader, header = _open(path, [*columns, *optional])
    try:
        present = [column for column in optional if _find_columns(header, column)]
        indices = {column: _column_index(path, header, column, hint) for column in (*columns, *present)}
        for row in reader:
            if len(row) <= max(indices.values()):
                raise DataError(f"{path}:{reader.line_num}: {len(row)} fields, but the header has {len(header)}.")
            yield reader.line_num, {column: row[index] for column, index in indices.items()}
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: {error}.") from error


def _open(path: Path, columns: Sequence[str]) -> tuple[Any, list[str]]:  # csv's own type has no name
    """A csv reader after the header, and the header; line numbers are those of the file."""
    text = (line + "\n" for _, line in lines.read_lines(path))
    first = next(text, "")
    delimiter = _delimiter(first, path, columns)
    if path.suffix.lower() in (".tsv", ".tab") and delimiter == "\t":
        reader = csv.reader(chain([first], text), delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(chain([first], text), delimiter=delimiter, strict=True)
    try:
        return reader, next(reader, [])
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: {error}.") from error


def _delimiter(header: str, path: Path, columns: Sequence[str]) -> str:
    """The delimiter with most of these columns; then the one with most columns."""

    def score(delimiter: str) -> tuple[int, int]:
        try:
            fields = next(csv.reader([header], delimiter=delimiter), [])
        except csv.Error:  # a carriage return within the line; the table's own reader reports it with its line
            return 0, 0
        return sum(bool(_find_columns(fields, column)) for column in columns), len(fields)

    tabs_first = path.suffix.lower() in (".tsv", ".tab")
    return max(reversed(DELIMITERS) if tabs_first else DELIMITERS, key=score)


def _find_columns(header: Sequence[str], column: str) -> list[int]:
    """The indices of columns with exactly this name, otherwise ignoring case."""
    exact = [index for index, name in enumerate(header) if name == column]
    folded = column.strip().casefold()
    return exact or [index for index, name in enumerate(header) if name.strip().casefold() == folded]


def _column_index(path: Path, header: Sequence[str], column: str, hint: str) -> int:
    matches = _find_columns(header, column)
    if len(matches) > 1:
        raise DataError(f"{path}:1: has {len(matches)} columns named {column!r}.")
    if not matches:
        raise DataError(f"{path}:1: has no column {column!r}. {did_you_mean(column, header)} {hint}".rstrip())
    return matches[0]
