"""Tables that a person writes: .csv with quotes, .tsv without; the first row names the columns.

A table of each split lies in one folder (train.csv, val.csv, test.csv), or a table is all there is.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dlkit.catalog import did_you_mean
from dlkit.data import lines
from dlkit.errors import DataError

NAMES = {"train": ("train",), "validation": ("val", "validation", "valid", "dev"), "test": ("test",)}
ENDINGS = (".csv", ".tsv")

Row = tuple[int, dict[str, str]]  # line, column → field


def files(place: Path) -> dict[str, Path]:
    """The table of each split that is in a folder; a file alone is train."""
    if not place.is_dir():
        return {"train": place}
    found = {}
    for split, names in NAMES.items():
        here = [place / f"{name}{ending}" for name in names for ending in ENDINGS]
        here = [path for path in here if path.exists()]
        if len(here) > 1:
            raise DataError(
                f"{place}: has {here[0].name} and {here[1].name}; which one is the {split} split? Keep one."
            )
        if here:
            found[split] = here[0]
    if "train" not in found:
        raise DataError(f"{place}: holds no train.csv and no train.tsv.")
    return found


def rows(path: Path, columns: Sequence[str], *, if_there: Sequence[str] = (), hint: str = "") -> Iterator[Row]:
    """Each row's line and its fields of these columns; `if_there` are columns that the table may lack.

    Raises:
        DataError: no such file or column, a column twice, a row that is short or not UTF-8; the message names the line.
    """
    reader = _reader(path)
    try:
        header: list[str] = next(reader, [])
        wanted = [*columns, *(column for column in if_there if column in header)]
        places = {column: _place(path, header, column, hint) for column in wanted}
        for row in reader:
            if len(row) <= max(places.values()):
                raise DataError(f"{path}:{reader.line_num}: {len(row)} fields, where the header has {len(header)}.")
            yield reader.line_num, {column: row[place] for column, place in places.items()}
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: {error}.") from error


def _reader(path: Path) -> Any:  # csv's own type has no name
    found = (line + "\n" for _, line in lines.lines_of(path))
    if path.suffix.lower() in (".tsv", ".tab"):
        return csv.reader(found, delimiter="\t", quoting=csv.QUOTE_NONE)
    return csv.reader(found, strict=True)


def _place(path: Path, header: Sequence[str], column: str, hint: str) -> int:
    if header.count(column) > 1:
        raise DataError(f"{path}:1: has {header.count(column)} columns that are called {column!r}.")
    if column not in header:
        raise DataError(f"{path}:1: has no column {column!r}. {did_you_mean(column, header)} {hint}".rstrip())
    return header.index(column)
