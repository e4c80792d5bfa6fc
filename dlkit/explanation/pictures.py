"""Where the pictures of a verb go: one file, or a folder in which each has a name of its own."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dlkit.data.inputs import STDIN_NAME, Given
from dlkit.errors import StorageError, UsageError

LONGEST_STEM = 40  # characters of an image's name in its picture's


@dataclass(frozen=True)
class Pictures:
    """Where pictures go: one file, or a folder in which each has a name of its own."""

    folder: Path
    file: Path | None
    taken: set[str]
    sources: frozenset[str]  # real paths of the images, never to be written over

    @classmethod
    def at(cls, output: Path | str | None, default: Path, paths: Iterable[Given]) -> Pictures:
        """Raises: UsageError or StorageError where nothing could be written, before any work."""
        path = default if output is None else Path(output)
        sources = frozenset(
            os.path.realpath(given) for given in (paths if isinstance(paths, Sequence) else ())
            if isinstance(given, str | Path)
        )  # fmt: skip
        if output is not None and path.suffix.lower() == ".png" and not path.is_dir():
            if os.path.realpath(path) in sources:
                raise UsageError(f"-o {path} is the image itself. Give another name.")
            _check_folder(path.parent, path)
            return cls(path.parent, path, set(), sources)
        if path.suffix and not path.is_dir() and output is not None:
            raise UsageError(f"-o {path}: pictures are PNG; give a name that ends in .png, or a folder.")
        _check_folder(path.parent if not path.exists() else path, path)
        return cls(path, None, set(), sources)

    def check_room(self, methods: int, paths: Iterable[Given]) -> None:
        """Raises: UsageError where one file is to hold more pictures."""
        if self.file is not None and (methods > 1 or (isinstance(paths, Sequence) and len(paths) > 1) or self.taken):
            raise UsageError(f"-o {self.file} is one file, and there are more pictures. Give a folder or --montage.")

    def place(self, name: str, what: str) -> Path:
        """The file of one picture: of the image's name, and what it shows.

        Raises:
            UsageError: there are more pictures than the one file that was named.
        """
        if self.file is not None:
            self.check_room(1, ())
            self.taken.add(self.file.name)
            return self.file
        line = name.removeprefix(f"{STDIN_NAME}:")  # a text of a pipe is called by its line, -:3
        stem = "stdin" if name == STDIN_NAME else f"line-{line}" if line != name else Path(name).stem[:LONGEST_STEM]
        stem = stem or "image"
        stem = "".join(letter if letter.isprintable() and letter not in "/\\" else "_" for letter in stem)
        base, number = f"{stem}-{what}" if what else stem, 1
        candidate = f"{base}.png"
        while candidate in self.taken or os.path.realpath(self.folder / candidate) in self.sources:
            number += 1
            candidate = f"{base}-{number}.png"
        self.taken.add(candidate)
        return self.folder / candidate


def _check_folder(folder: Path, path: Path) -> None:
    if not folder.is_dir():
        raise StorageError(f"cannot write {path}: there is no folder {folder}. Make it, or give another -o.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StorageError(f"cannot write {path}: no permission in {folder}. Give another -o.")
