"""Arrays, texts and structures in MATLAB files of version 5, in which some data sets are published.

A file is a header of 128 bytes, then elements: a tag (type, bytes) and a body padded to 8. A compressed element is a
zlib stream of one array; an array's parts are its flags, its dimensions, its name and its numbers, first index fastest.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dlkit.atomic_io import storage_errors
from dlkit.errors import MALFORMED, VerificationError

HEADER = 128
UINT16, COMPRESSED, MATRIX = 4, 15, 14  # types of elements
NUMBERS = {1: "<i1", 2: "<u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8", 12: "<i8", 13: "<u8"}
STRUCTURE, TEXT = 2, 4  # classes of arrays
LIMIT = 1 << 30  # bytes that a compressed array may unpack to

Bytes = npt.NDArray[np.uint8]


def arrays(path: Path) -> dict[str, Bytes]:
    """The uint8 arrays of a file by their names.

    Raises:
        VerificationError: it is damaged, or holds something else.
    """
    found = variables(path)
    for name, value in found.items():
        if not isinstance(value, np.ndarray) or value.dtype != np.uint8:
            raise VerificationError(f"{path}: {name} does not hold bytes.")
    return found


def variables(path: Path) -> dict[str, Any]:
    """What a file holds by its names: arrays of numbers, texts, and lists of dicts where it has structures.

    Raises:
        VerificationError: it is damaged, or holds something else.
    """
    with storage_errors(path):
        content = path.read_bytes()
    try:
        if content[124:HEADER] != b"\x00\x01IM":
            raise ValueError("not a MATLAB 5 file in little-endian order")
        return dict(_matrix(body) for kind, body in _elements(content[HEADER:]) if kind == MATRIX)
    except (struct.error, zlib.error, *MALFORMED) as error:
        raise VerificationError(f"{path}: damaged, or not a MATLAB file that can be read: {error}.") from error


def _elements(content: bytes) -> Iterator[tuple[int, bytes]]:
    """The elements side by side in `content`, the compressed ones unpacked."""
    place = 0
    while place < len(content):
        kind, size = struct.unpack_from("<II", content, place)
        if kind >> 16:  # a small element: type and size in two bytes each, the body where the size would be
            kind, size, begin, end = kind & 0xFFFF, kind >> 16, place + 4, place + 8
        else:
            begin = place + 8
            end = begin + size + (0 if kind == COMPRESSED else -size % 8)
        if begin + size > len(content):
            raise ValueError("an element is cut off")
        body = content[begin : begin + size]
        place = end
        if kind == COMPRESSED:
            yield from _elements(_unpacked(body))
        else:
            yield kind, body


def _unpacked(body: bytes) -> bytes:
    stream = zlib.decompressobj()
    content = stream.decompress(body, LIMIT)
    if not stream.eof:
        raise ValueError("a compressed array is cut off or too large")
    return content


def _matrix(body: bytes) -> tuple[str, Any]:
    """An array's name and value; one without parts is MATLAB's empty array."""
    parts = list(_elements(body))
    if not parts:
        return "", np.zeros((0, 0))
    (_, flags), (_, shape), (_, name), *rest = parts
    dimensions = np.frombuffer(shape, "<i4").tolist()
    count = int(np.prod(dimensions, dtype=object))
    if min(dimensions) < 0:
        raise ValueError(f"array {name!r} has the dimensions {dimensions}")
    if flags[0] == STRUCTURE:
        return name.decode("ascii"), _structures(rest, count)
    kind, numbers = rest[0]
    if flags[0] == TEXT:
        return name.decode("ascii"), numbers.decode("utf-16-le" if kind == UINT16 else "utf-8")
    values = np.frombuffer(numbers, NUMBERS[kind]) if kind in NUMBERS else np.zeros(0)
    if values.size != count:
        raise ValueError(f"array {name!r} has {values.size} numbers for {dimensions}")
    return name.decode("ascii"), values.reshape(dimensions, order="F")


def _structures(parts: list[tuple[int, bytes]], count: int) -> list[dict[str, Any]]:
    (_, length), (_, names), *values = parts
    width = int(np.frombuffer(length, "<i4")[0])
    fields = [names[place : place + width].rstrip(b"\0").decode("ascii") for place in range(0, len(names), width)]
    if len(values) != count * len(fields):
        raise ValueError(f"{len(values)} values for {count} structures of {len(fields)} fields")
    found = [_matrix(body)[1] for _, body in values]
    return [dict(zip(fields, found[place:], strict=False)) for place in range(0, len(found), len(fields))]
