"""Tables that a person writes: columns between commas, semicolons or tabs; the first row names them.

A table of each split lies in one folder (train.csv, val.csv, test.csv; other usual names too), or a table is all there
is. Which letter stands between the columns is read off the first row. Text is UTF-8, with or without a byte order mark,
or UTF-16 with one. Quotes are read as in RFC 4180, but in a .tsv file between tabs they are letters like others.
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


def files(place: Path) -> dict[str, Path]:
    """The table of each split that is in a folder; a file alone is train."""
    if not place.is_dir():
        return {"train": place}
    with storage_errors(place):
        tables = {path.name: path.stem for path in sorted(place.iterdir()) if path.suffix.lower() in ENDINGS}
    splits = resolve_splits(place, tables)
    if "train" not in splits:
        there = f" It has {', '.join(tables)}." if tables else ""
        raise DataError(f"{place}: holds no train.csv and no train.tsv.{there}")
    return {split: place / name for split, name in splits.items()}


def rows(path: Path, columns: Sequence[str], *, if_there: Sequence[str] = (), hint: str = "") -> Iterator[Row]:
    """Each row's line and its fields of these columns; `if_there` are columns that the table may lack.

    Raises:
        DataError: no such file or column, a column twice, a row that is short or not UTF-8; the message names the line.
    """
    reader, header = _opened(path, [*columns, *if_there])
    try:
        present = [column for column in if_there if _matching(header, column)]
        places = {column: _place(path, header, column, hint) for column in (*columns, *present)}
        for row in reader:
            if len(row) <= max(places.values()):
                raise DataError(f"{path}:{reader.line_num}: {len(row)} fields, where the header has {len(header)}.")
            yield reader.line_num, {column: row[place] for column, place in places.items()}
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: {error}.") from error


def _opened(path: Path, columns: Sequence[str]) -> tuple[Any, list[str]]:  # csv's own type has no name
    """A reader of the table, its header read; the line numbers are the file's."""
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
    """Of the delimiters, the one that shows most of these columns, then most columns at all."""

    def score(delimiter: str) -> tuple[int, int]:
        try:
            fields = next(csv.reader([header], delimiter=delimiter), [])
        except csv.Error:  # a carriage return within the line; the table's own reader reports it with its line
            return 0, 0
        return sum(bool(_matching(fields, column)) for column in columns), len(fields)

    tabs_first = path.suffix.lower() in (".tsv", ".tab")
    return max(reversed(DELIMITERS) if tabs_first else DELIMITERS, key=score)


def _matching(header: Sequence[str], column: str) -> list[int]:
    """The positions of a column: of exactly this name, else of this name in other letter case."""
    exact = [index for index, name in enumerate(header) if name == column]
    folded = column.strip().casefold()
    return exact or [index for index, name in enumerate(header) if name.strip().casefold() == folded]


def _place(path: Path, header: Sequence[str], column: str, hint: str) -> int:
    matching = _matching(header, column)
    if len(matching) > 1:
        raise DataError(f"{path}:1: has {len(matching)} columns that are called {column!r}.")
    if not matching:
        raise DataError(f"{path}:1: has no column {column!r}. {did_you_mean(column, header)} {hint}".rstrip())
    return matching[0]
