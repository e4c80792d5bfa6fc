"""Arrays, texts and structures of MATLAB 5 files, the format of some data sets.

A file is a header of 128 bytes, then elements: a tag (type, bytes) and a body padded to 8. A compressed element is a
zlib stream of one array; the elements of an array are its flags, dimensions, name and numbers, first index fastest.
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
LIMIT = 1 << 30  # bytes of a decompressed array

Bytes = npt.NDArray[np.uint8]


def arrays(path: Path) -> dict[str, Bytes]:
    """The uint8 arrays of a file by name.

    Raises:
        VerificationError: a damaged file, or other contents.
    """
    values = variables(path)
    for name, value in values.items():
        if not isinstance(value, np.ndarray) or value.dtype != np.uint8:
            raise VerificationError(f"{path}: {name} is not an array of bytes.")
    return values


def variables(path: Path) -> dict[str, Any]:
    """The variables of a file by name: arrays of numbers, texts, and lists of dicts for structures.

    Raises:
        VerificationError: a damaged file, or other contents.
    """
    with storage_errors(path):
        content = path.read_bytes()
    try:
        if content[124:HEADER] != b"\x00\x01IM":
            raise ValueError("not a MATLAB 5 file in little-endian order")
        return dict(_matrix(body) for kind, body in _elements(content[HEADER:]) if kind == MATRIX)
    except (struct.error, zlib.error, *MALFORMED) as error:
        raise VerificationError(f"{path}: damaged, or not a readable MATLAB file: {error}.") from error


def _elements(content: bytes) -> Iterator[tuple[int, bytes]]:
    """The consecutive elements of `content`, decompressed."""
    position = 0
    while position < len(content):
        kind, size = struct.unpack_from("<II", content, position)
        if kind >> 16:  # a small element: type and size in two bytes each, then the body
            kind, size, begin, end = kind & 0xFFFF, kind >> 16, position + 4, position + 8
        else:
            begin = position + 8
            end = begin + size + (0 if kind == COMPRESSED else -size % 8)
        if begin + size > len(content):
            raise ValueError("an element is truncated")
        body = content[begin : begin + size]
        position = end
        if kind == COMPRESSED:
            yield from _elements(_decompress(body))
        else:
            yield kind, body


def _decompress(body: bytes) -> bytes:
    stream = zlib.decompressobj()
    content = stream.decompress(body, LIMIT)
    if not stream.eof:
        raise ValueError("a compressed array is truncated or too large")
    return content


def _matrix(body: bytes) -> tuple[str, Any]:
    """The name and value of an array; one without elements is MATLAB's empty array."""
    elements = list(_elements(body))
    if not elements:
        return "", np.zeros((0, 0))
    (_, flags), (_, shape), (_, name), *rest = elements
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


def _structures(elements: list[tuple[int, bytes]], count: int) -> list[dict[str, Any]]:
    (_, length), (_, names), *values = elements
    width = int(np.frombuffer(length, "<i4")[0])
    fields = [names[i : i + width].rstrip(b"\0").decode("ascii") for i in range(0, len(names), width)]
    if len(values) != count * len(fields):
        raise ValueError(f"{len(values)} values for {count} structures of {len(fields)} fields")
    matrices = [_matrix(body)[1] for _, body in values]
    return [dict(zip(fields, matrices[i:], strict=False)) for i in range(0, len(matrices), len(fields))]
