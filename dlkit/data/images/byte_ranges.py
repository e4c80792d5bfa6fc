"""Images that are no files of their own: byte ranges of a larger file.

Read by their place, in any order, so that they obey the laws of files: the order of an epoch is drawn by the seed, and
any number of workers and a resume see the same images.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dlkit.atomic_io import storage_errors
from dlkit.errors import DataError


@dataclass(frozen=True, order=True, slots=True)
class Piece:
    """A file within a file: `size` bytes of it from `start` on."""

    file: Path
    name: str
    start: int
    size: int

    def __str__(self) -> str:
        return f"{self.file}/{self.name}"

    def read(self) -> bytes:
        """Raises: DataError where the file ends before; StorageError where it cannot be read."""
        with storage_errors(self.file), open(self.file, "rb", buffering=0) as file:
            file.seek(self.start)
            content = file.read(self.size)
        if len(content) != self.size:
            raise DataError(f"{self.file.name} has become shorter since it was read first.")
        return content
