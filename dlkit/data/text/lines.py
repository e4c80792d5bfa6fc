"""Text files, read one line or one example at a time; errors name the file and the line.

Text is UTF-8, with or without a byte order mark, or UTF-16 with one (spreadsheets, PowerShell).
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path

from dlkit.atomic_io import storage_errors
from dlkit.errors import DataError

MAX_BYTES = 1 << 18  # of one example: a line, a file, a field
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_lines(path: Path, shown: str = "") -> Iterator[tuple[int, str]]:
    """The lines of a text file, without line ends, and their numbers from 1; errors call the file `shown`.

    Raises:
        DataError: no such file, a line that is too long or not UTF-8; the message names file and line.
    """
    for number, line in enumerate(read_raw_lines(path), start=1):
        try:
            yield number, decode_text(line)
        except DataError as error:
            raise DataError(f"{shown or path}:{number}: {error}.") from error


def read_example(path: Path) -> bytes:
    """The bytes of a file, at most MAX_BYTES + 1. Raises DataError, without the path, if there is no such file."""
    if not path.is_file():
        raise DataError("not a regular file" if path.exists() else "there is no such file")
    with storage_errors(path), open(path, "rb") as file:
        return file.read(MAX_BYTES + 1)


def decode_text(raw: bytes) -> str:
    """Decode one example.

    Raises:
        DataError: too long, or not UTF-8; the message does not name the file.
    """
    if len(raw) > MAX_BYTES:
        raise DataError(f"more than {MAX_BYTES:,} bytes, the limit of one example")
    try:
        return raw.decode("utf-16" if raw.startswith(UTF16) else "utf-8-sig")
    except UnicodeDecodeError as error:
        if raw.startswith(UTF16):
            raise DataError(f"byte {error.start + 1:,} is not UTF-16") from None
        line, byte = raw.count(b"\n", 0, error.start) + 1, raw[error.start]
        where = f"line {line}: " if line > 1 else ""
        raise DataError(f"{where}byte 0x{byte:02x} is not UTF-8") from None


def read_raw_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file as UTF-8 bytes, without line ends; a longer line than MAX_BYTES is cut shortly after it.

    Raises:
        DataError: there is no such file, or it has a UTF-16 byte order mark and is not UTF-16.
    """
    if not path.is_file():
        raise DataError(f"{path}: {'not a regular file' if path.exists() else 'there is no such file'}.")
    with storage_errors(path), open(path, "rb") as file:
        if file.read(2) in UTF16:
            yield from _read_utf16_lines(path)
            return
        file.seek(0)
        while line := file.readline(MAX_BYTES + 3):
            yield line.rstrip(b"\r\n")


def _read_utf16_lines(path: Path) -> Iterator[bytes]:
    number = 0
    try:
        with open(path, encoding="utf-16", newline="\n") as text:
            while line := text.readline(MAX_BYTES + 3):
                number += 1
                yield line.rstrip("\r\n").encode()
    except UnicodeError as error:
        raise DataError(f"{path}:{number + 1}: not UTF-16, although its byte order mark says so.") from error


def quote(text: str) -> str:
    """A word as error messages show it, truncated if long."""
    return ascii(text if len(text) <= 40 else text[:37] + "…")
