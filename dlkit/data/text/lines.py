"""Files of text, read a line or an example at a time; what is wrong in them is told with its place.

Text is UTF-8, with or without a byte order mark, or UTF-16 with one, as spreadsheets and PowerShell write it.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path

from dlkit.atomic_io import storage_errors
from dlkit.errors import DataError

LONGEST = 1 << 18  # bytes of one example: a line, a file, a field
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def lines_of(path: Path, shown: str = "") -> Iterator[tuple[int, str]]:
    """The lines of a file of text with their numbers, from 1, without their ends; errors call the file `shown`.

    Raises:
        DataError: no such file, a line that is not UTF-8 or too long; the message names file and line.
    """
    for number, line in enumerate(raw_lines(path), start=1):
        try:
            yield number, decoded(line)
        except DataError as error:
            raise DataError(f"{shown or path}:{number}: {error}.") from error


def read_example(path: Path) -> bytes:
    """A file's bytes, no more than tell that it is too long; raises DataError without the place where it is none."""
    if not path.is_file():
        raise DataError("not a regular file" if path.exists() else "there is no such file")
    with storage_errors(path), open(path, "rb") as file:
        return file.read(LONGEST + 1)


def decoded(raw: bytes) -> str:
    """One example as text.

    Raises:
        DataError: too long, or not UTF-8; without its place.
    """
    if len(raw) > LONGEST:
        raise DataError(f"more than the {LONGEST:,} bytes that an example may have")
    try:
        return raw.decode("utf-16" if raw.startswith(UTF16) else "utf-8-sig")
    except UnicodeDecodeError as error:
        if raw.startswith(UTF16):
            raise DataError(f"byte {error.start + 1:,} is not UTF-16") from None
        line, byte = raw.count(b"\n", 0, error.start) + 1, raw[error.start]
        where = f"line {line}: " if line > 1 else ""
        raise DataError(f"{where}byte 0x{byte:02x} is not UTF-8") from None


def raw_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file in UTF-8, without their ends; of a longer one no more than tells that it is too long.

    Raises:
        DataError: there is no such file, or it is not the UTF-16 that its byte order mark announces.
    """
    if not path.is_file():
        raise DataError(f"{path}: {'not a regular file' if path.exists() else 'there is no such file'}.")
    with storage_errors(path), open(path, "rb") as file:
        if file.read(2) in UTF16:
            yield from _lines_of_utf16(path)
            return
        file.seek(0)
        while line := file.readline(LONGEST + 3):
            yield line.rstrip(b"\r\n")


def _lines_of_utf16(path: Path) -> Iterator[bytes]:
    number = 0
    try:
        with open(path, encoding="utf-16", newline="\n") as text:
            while line := text.readline(LONGEST + 3):
                number += 1
                yield line.rstrip("\r\n").encode()
    except UnicodeError as error:
        raise DataError(f"{path}:{number + 1}: not UTF-16, which its byte order mark announces.") from error


def quoted(text: str) -> str:
    """A word as an error message names it, cut where it is long."""
    return ascii(text if len(text) <= 40 else text[:37] + "…")
