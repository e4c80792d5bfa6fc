"""Word vectors from a file: one word per line and its numbers, separated by spaces, as published for GloVe.

Pennington, Socher and Manning, "GloVe: global vectors for word representation", EMNLP 2014. word2vec's text files are
supported too: their first line gives the number of vectors and their size.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from dlkit.atomic_io import storage_errors
from dlkit.errors import DataError

MAX_LINE = 1 << 20  # bytes


def read_vectors(
    path: Path, words: tuple[str, ...], width: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Read the vectors of `words` that the file contains: their indices in `words` (n,) and vectors (n, width).

    The first of several vectors of one word counts.

    Raises:
        DataError: no such file, or a line that is not a word and `width` numbers; the message names the line.
    """
    if not path.is_file():
        raise DataError(f"word vectors {path}: there is no such file.")
    indices = {word.encode(): index for index, word in enumerate(words)}
    vectors: dict[int, npt.NDArray[np.float32]] = {}
    with storage_errors(path), open(path, "rb") as file:
        number = first = 0
        while line := file.readline(MAX_LINE):
            number += 1
            fields = line.rstrip().rsplit(b" ", width)  # from the right: some words contain a space
            if number == 1 and len(line.split()) == 2 and width > 1:
                continue  # word2vec's first line
            first = first or number
            if len(fields) != width + 1 or (number == first and b" " in fields[0]):
                raise DataError(f"{path}:{number}: {_describe_mismatch(line, width, number == first)}")
            index = indices.get(fields[0])
            if index is not None and index not in vectors:
                vectors[index] = _parse_vector(fields[1:], path, number)
    rows = np.array(list(vectors.values()), dtype=np.float32).reshape(-1, width)
    return np.array(list(vectors), dtype=np.int64), rows


def _describe_mismatch(line: bytes, width: int, first: bool) -> str:
    numbers = len(line.split()) - 1
    hint = "the lines before have that many. Is the file complete?"
    if first:
        hint = f"set model.options.embedding_size={numbers}" if numbers > 1 else "is this a file of word vectors?"
    return f"a word and {numbers} numbers, but the embedding takes {width}; {hint}"


def _parse_vector(fields: list[bytes], path: Path, line: int) -> npt.NDArray[np.float32]:
    try:
        with np.errstate(over="ignore"):  # too large for float32: refused below
            row = np.array([float(field) for field in fields], dtype=np.float32)
    except ValueError:
        raise DataError(f"{path}:{line}: contains a field that is not a number.") from None
    if not np.isfinite(row).all():
        raise DataError(f"{path}:{line}: contains a number that is not finite.")
    return row
