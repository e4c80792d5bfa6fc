"""Word vectors from a file: a word a line, then its numbers, with spaces between, as GloVe's are published.

Pennington, Socher and Manning, "GloVe: global vectors for word representation", EMNLP 2014. word2vec's text files are
read too: their first line counts the vectors and their numbers.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from dlkit.atomic_io import storage_errors
from dlkit.errors import DataError

LONGEST = 1 << 20  # bytes of a line


def read_vectors(
    path: Path, words: tuple[str, ...], width: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """The words that the file has: their places among `words`, (n,), and their vectors, (n, width).

    Of a word that stands twice the first counts.

    Raises:
        DataError: no such file, or a line that is not a word and `width` numbers; the message names it.
    """
    if not path.is_file():
        raise DataError(f"vectors {path}: there is no such file.")
    places = {word.encode(): place for place, word in enumerate(words)}
    found: dict[int, npt.NDArray[np.float32]] = {}
    with storage_errors(path), open(path, "rb") as file:
        number = first = 0
        while line := file.readline(LONGEST):
            number += 1
            fields = line.rstrip().rsplit(b" ", width)  # from the right: some words hold a space
            if number == 1 and len(line.split()) == 2 and width > 1:
                continue  # word2vec's first line
            first = first or number
            if len(fields) != width + 1 or (number == first and b" " in fields[0]):
                raise DataError(f"{path}:{number}: {_misfit(line, width, number == first)}")
            place = places.get(fields[0])
            if place is not None and place not in found:
                found[place] = _numbers(fields[1:], path, number)
    rows = np.array(list(found.values()), dtype=np.float32).reshape(-1, width)
    return np.array(list(found), dtype=np.int64), rows


def _misfit(line: bytes, width: int, first: bool) -> str:
    numbers = len(line.split()) - 1
    hint = "the lines before have as many as that; is the file whole?"
    if first:
        hint = f"set model.options.embedding_size={numbers}" if numbers > 1 else "is it a file of word vectors?"
    return f"a word and {numbers} numbers, where the embedding takes {width}; {hint}"


def _numbers(fields: list[bytes], path: Path, line: int) -> npt.NDArray[np.float32]:
    try:
        with np.errstate(over="ignore"):  # too large for float32: refused below
            row = np.array([float(field) for field in fields], dtype=np.float32)
    except ValueError:
        raise DataError(f"{path}:{line}: holds what is no number.") from None
    if not np.isfinite(row).all():
        raise DataError(f"{path}:{line}: holds a number that is not finite.")
    return row
