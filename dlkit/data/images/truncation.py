"""Truncated image files, for formats whose errors Pillow does not explain."""

from __future__ import annotations

import os
from typing import IO


def is_truncated(format: str, file: IO[bytes]) -> bool:
    """Whether a TIFF, WebP, BMP, AVIF or HEIF file is shorter than its header states."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(16)
    if format == "TIFF":
        order = "little" if head[:2] == b"II" else "big"
        offset = head[8:16] if head[2:4] in (b"+\0", b"\0+") else head[4:8]
        return int.from_bytes(offset, order) + 2 > size  # type: ignore[arg-type]
    if format == "WEBP":
        return 8 + int.from_bytes(head[4:8], "little") > size
    if format == "BMP":
        return int.from_bytes(head[2:6], "little") > size
    return format in ("AVIF", "HEIF") and _boxes_end(file) > size


def _boxes_end(file: IO[bytes]) -> int:
    """The end of the last top-level box; a box is a size, a name and its content."""
    end = 0
    while True:
        file.seek(end)
        head = file.read(16)
        size = int.from_bytes(head[:4], "big")
        if size == 1:  # the size follows the name
            size = int.from_bytes(head[8:16], "big")
        if len(head) < 8 or size < 8:  # the end, or a box up to the file's end
            return end + (8 if head and len(head) < 8 else 0)
        end += size
