"""Your own texts in a table: a .csv or .tsv file with a column of texts and one of labels, or a folder with train.csv.

A folder has train and, optionally, val (or dev) and test, each .csv or .tsv. The first row names the columns; select
them with `text_column` and `label_column`. .csv files may have quotes ("a ""quoted"" field"), .tsv files not. Classes
are the labels of train, "2" before "10". Words, vocabulary and length are as in the data set `text_folder`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from dlkit.data import tables
from dlkit.data.classes import natural
from dlkit.data.splits import Splits
from dlkit.data.text import corpus as text
from dlkit.data.text import lines
from dlkit.data.text.tokenization import tokenize
from dlkit.errors import DataError, UsageError
from dlkit.registry import did_you_mean

GIVES = ("sequences",)
HINT = "Select columns with --text-column and --label-column."
MAX_CLASSES = 1000  # more suggest that the column does not contain labels

Row = tuple[int, list[str], str]  # line, words, label


def load(
    folder: Path,
    *,
    text_column: str = "text",
    label_column: str = "label",
    least: int = 2,
    vocabulary: int = 50000,
    longest: int = 400,
    tokenizer: str = "words",
    normalize: str = "none",
    lower: bool = True,
) -> Splits:
    """The splits of a file or a folder, tokenized.

    Raises:
        DataError: no such file or column, a row that is too short, empty or not UTF-8, or a label that is not in train.
    """
    text.check_options("text_csv", "sequences", least, vocabulary)
    if longest < 1:
        raise UsageError(f"data set 'text_csv' takes longest from 1; not {longest}.")
    tokens = text.tokenization("text_csv", tokenizer, normalize, lower)
    files = tables.files(folder)
    rows = {split: list(_rows(path, text_column, label_column, tokens)) for split, path in files.items()}
    classes = _classes(files["train"], [label for _, _, label in rows["train"]], label_column)
    indices = {name: index for index, name in enumerate(classes)}
    for split, path in files.items():
        for line, _, label in rows[split]:
            if label not in indices:
                hint = did_you_mean(label, classes)
                raise DataError(f"{path}:{line}: the label {lines.quote(label)} is not in train. {hint}")
    corpus = text.SequenceCorpus(
        {split: [words for _, words, _ in part] for split, part in rows.items()},
        {split: [indices[label] for _, _, label in part] for split, part in rows.items()},
        tokens,
    )
    return corpus.splits(classes, least, vocabulary, longest=longest)


def _rows(path: Path, text_column: str, label_column: str, tokens: str) -> Iterator[Row]:
    for line, fields in tables.rows(path, (text_column, label_column), hint=HINT):
        label = fields[label_column].strip()
        if not label:
            raise DataError(f"{path}:{line}: the field {label_column!r} is empty.")
        yield line, _words(path, line, fields[text_column], tokens), label


def _words(path: Path, line: int, content: str, tokens: str) -> list[str]:
    words = tokenize(content, tokens)
    if not words:
        raise DataError(f"{path}:{line}: the text is empty.")
    return words


def _classes(path: Path, labels: Sequence[str], column: str) -> tuple[str, ...]:
    classes = tuple(sorted(set(labels), key=natural))
    if len(classes) < 2:
        raise DataError(f"{path}: the column {column!r} has {len(classes)} label only; a classifier needs two.")
    if len(classes) > MAX_CLASSES:
        raise DataError(
            f"{path}: the column {column!r} has {len(classes):,} different labels. Does it contain classes?"
        )
    return classes
