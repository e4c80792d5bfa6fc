"""The paths of output images: a single file, or a folder in which each image has a name of its own."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dlkit.data.inputs import STDIN_NAME, InputLike
from dlkit.errors import StorageError, UsageError

MAX_STEM = 40  # characters of the input's name in the output's name


@dataclass(frozen=True)
class OutputPaths:
    """Assigns an output path to each image; never that of an input."""

    folder: Path
    file: Path | None
    used: set[str]
    sources: frozenset[str]  # real paths of the inputs, which must not be overwritten

    @classmethod
    def create(cls, output: Path | str | None, default: Path, paths: Iterable[InputLike]) -> OutputPaths:
        """Raises: UsageError or StorageError if nothing can be written there; checked before any work."""
        path = default if output is None else Path(output)
        sources = frozenset(
            os.path.realpath(path) for path in (paths if isinstance(paths, Sequence) else ())
            if isinstance(path, str | Path)
        )  # fmt: skip
        if output is not None and path.suffix.lower() == ".png" and not path.is_dir():
            if os.path.realpath(path) in sources:
                raise UsageError(f"-o {path} is the input image itself. Choose another name.")
            _check_folder(path.parent, path)
            return cls(path.parent, path, set(), sources)
        if path.suffix and not path.is_dir() and output is not None:
            raise UsageError(f"-o {path}: explanations are PNG images. Use a name that ends in .png, or a folder.")
        _check_folder(path.parent if not path.exists() else path, path)
        return cls(path, None, set(), sources)

    def check_capacity(self, methods: int, paths: Iterable[InputLike]) -> None:
        """Raises: UsageError if a single file would have to hold more than one image."""
        if self.file is not None and (methods > 1 or (isinstance(paths, Sequence) and len(paths) > 1) or self.used):
            raise UsageError(
                f"-o {self.file} is one file, but there is more than one image. Use a folder or --montage."
            )

    def assign(self, name: str, suffix: str) -> Path:
        """The path of the next image: the name of its input, then what it shows.

        Raises:
            UsageError: -o names a single file, which is already used.
        """
        if self.file is not None:
            self.check_capacity(1, ())
            self.used.add(self.file.name)
            return self.file
        stem = _stem(name)
        base, number = f"{stem}-{suffix}" if suffix else stem, 1
        candidate = f"{base}.png"
        while candidate in self.used or os.path.realpath(self.folder / candidate) in self.sources:
            number += 1
            candidate = f"{base}-{number}.png"
        self.used.add(candidate)
        return self.folder / candidate


def _stem(name: str) -> str:
    line = name.removeprefix(f"{STDIN_NAME}:")  # the third line of text on stdin is named -:3
    stem = "stdin" if name == STDIN_NAME else f"line-{line}" if line != name else Path(name).stem[:MAX_STEM]
    return "".join(letter if letter.isprintable() and letter not in "/\\" else "_" for letter in stem or "image")


def _check_folder(folder: Path, path: Path) -> None:
    if not folder.is_dir():
        raise StorageError(f"cannot write {path}: folder {folder} does not exist. Create it, or use another -o.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StorageError(f"cannot write {path}: no permission to write to {folder}. Use another -o.")
