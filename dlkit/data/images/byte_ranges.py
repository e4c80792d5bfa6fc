"""Images stored as byte ranges of a larger file.

Random access makes them equivalent to files: the seed determines the order of an epoch, and any number of workers and a
resumed run see the same images.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dlkit.atomic_io import storage_errors
from dlkit.errors import DataError


@dataclass(frozen=True, order=True, slots=True)
class ByteRange:
    """`size` bytes of a file from `start`."""

    file: Path
    name: str
    start: int
    size: int

    def __str__(self) -> str:
        return f"{self.file}/{self.name}"

    def read(self) -> bytes:
        """Raises: DataError if the file ends earlier; StorageError if it cannot be read."""
        with storage_errors(self.file), open(self.file, "rb", buffering=0) as file:
            file.seek(self.start)
            content = file.read(self.size)
        if len(content) != self.size:
            raise DataError(f"{self.file.name} is shorter than when it was first read.")
        return content
