"""Your own images in folders: train/CLASS/*, val/, test/; or CLASS/* alone.

Where there is no val, a part of train is held back for validation. The classes are the folders of train, in natural
order ("2" before "10", case ignored); the other splits are mapped to them by name. Images are found by their extension,
in folders inside folders too, and links to folders are followed. Hidden files and folders, `__MACOSX`, `Thumbs.db` and
their like are ignored.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from dlkit.catalog import did_you_mean
from dlkit.data.images import EXTENSIONS
from dlkit.data.samples import ImageFiles, Splits
from dlkit.durable import storage_errors
from dlkit.errors import DataError, StorageError, UsageError
from dlkit.specs import ImageSpec

VALIDATION = ("val", "validation", "valid")
JUNK = {"__macosx", "thumbs.db", "desktop.ini", "ehthumbs.db", "@eadir", "$recycle.bin", "lost+found", "__pycache__"}
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LEAK_CHECK_FILES = 20_000  # above it, looking for the same image in two splits would take many seconds
LEAK_CHECK_BYTES = 1 << 28  # read at most to compare images of equal size

Classes = Mapping[str, Sequence[Path]]  # class name → its files, sorted


@dataclass(frozen=True)
class Kind:
    """What the class folders hold: files of these extensions."""

    noun: str
    extensions: Collection[str]


IMAGES = Kind("image", EXTENSIONS)


@dataclass(frozen=True)
class Found:
    """The class folders of a data set: the classes in their order, their files by split and class, and what to say."""

    classes: tuple[str, ...]
    splits: Mapping[str, Classes]
    notes: list[str]


@dataclass(frozen=True)
class _Layout:
    train: Path
    validation: Path | None
    test: Path | None


def load(folder: Path, *, size: int = 224, channels: int = 3, crop: float = 1.0) -> Splits:
    """The splits found in `folder`, as paths; nothing is decoded here.

    Raises:
        DataError: no such folder, fewer than two classes, a class without images, a class in val or test that train
            does not have, or names that could be confused.
    """
    if channels not in (1, 3) or not 0 < crop <= 1 or size < 1:
        raise UsageError(f"data set 'folder' takes channels 1 or 3, crop above 0 to 1; not {channels}, {crop}.")
    found = class_folders(folder)
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else ((0.5,), (0.5,))
    splits = {split: _files(classes, found.classes) for split, classes in found.splits.items()}
    spec = ImageSpec(channels, size, size, found.classes, mean, std, crop)
    notes = (*found.notes, *_leaks(splits))
    return Splits(spec, splits["train"], splits.get("validation"), splits.get("test"), notes)


def class_folders(folder: Path, kind: Kind = IMAGES) -> Found:
    """The files below train/CLASS/ and so on, or CLASS/ alone; raises what load does."""
    layout = _layout(folder)
    notes: list[str] = []
    train = _classes(layout.train, kind, notes)
    _check_train(layout.train, train, kind)
    names = tuple(train)
    splits: dict[str, Classes] = {"train": train}
    for split, path in (("validation", layout.validation), ("test", layout.test)):
        if path is not None:
            splits[split] = _mapped(path, names, kind, notes)
    return Found(names, splits, notes)


def natural(name: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """A sort key that counts: "2" before "10", "img9" before "img10", case ignored until all else is equal."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part), name


def _layout(root: Path) -> _Layout:
    if not root.exists():
        raise DataError(f"{root}: there is no such folder.")
    if not root.is_dir():
        raise DataError(f"{root}: not a folder.")
    folders = {entry.name for entry in _entries(root) if entry.is_dir()}
    validations = [name for name in VALIDATION if name in folders]
    if len(validations) > 1:
        raise DataError(f"{root}: has {' and '.join(validations)}; which one is the validation split? Keep one.")
    if "train" not in folders:
        if lonely := validations + [name for name in ("test",) if name in folders]:
            raise DataError(f"{root}: has {' and '.join(lonely)} but no train folder.")
        return _Layout(root, None, None)
    test = root / "test" if "test" in folders else None
    return _Layout(root / "train", root / validations[0] if validations else None, test)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder, less what is hidden and what systems leave behind; sorted by name."""
    try:
        with os.scandir(folder) as found:
            entries = [entry for entry in found if not entry.name.startswith(".") and entry.name.casefold() not in JUNK]
    except OSError as error:
        raise StorageError(f"{folder}: cannot be read: {error.strerror or error}.") from error
    return sorted(entries, key=lambda entry: entry.name)


def _classes(folder: Path, kind: Kind, notes: list[str]) -> dict[str, list[Path]]:
    """Class name → its files of that kind, both in natural order."""
    entries = _entries(folder)
    stray = [entry.name for entry in entries if not entry.is_dir()]
    if stray:
        notes.append(f"{folder}: ignored {len(stray)} files outside the class folders, such as {stray[0]!r}.")
    folders = {_class_name(folder, entry.name): Path(entry.path) for entry in _without_twins(folder, entries)}
    others: list[str] = []
    classes = {name: _files_in(folders[name], kind, others) for name in sorted(folders, key=natural)}
    if others:
        ignored = f"ignored {len(others)} files that are not named like {kind.noun}s, such as {others[0]!r}."
        notes.append(f"{folder}: {ignored}")
    return classes


def _without_twins(folder: Path, entries: Iterable[os.DirEntry[str]]) -> list[os.DirEntry[str]]:
    """The class folders; two names that a person or another file system could take for one are refused."""
    found: dict[str, os.DirEntry[str]] = {}
    for entry in entries:
        if entry.is_dir():
            key = unicodedata.normalize("NFC", entry.name).casefold()
            if key in found:
                raise DataError(
                    f"{folder}: the classes {found[key].name!a} and {entry.name!a} differ only in case or in "
                    "how a letter is encoded. Rename or merge them."
                )
            found[key] = entry
    return list(found.values())


def _class_name(folder: Path, name: str) -> str:
    """A class is called like its folder, in Unicode's composed form, so that it is the same on every system."""
    if any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in name):
        raise DataError(f"{folder}: the class name {name!a} holds a line break or another control character.")
    return unicodedata.normalize("NFC", name)


def _files_in(folder: Path, kind: Kind, others: list[str]) -> list[Path]:
    files = []
    for file in _walk(folder, set()):
        if os.path.splitext(file)[1].lower() in kind.extensions:
            files.append(file)
        else:
            others.append(os.path.basename(file))
    return [Path(file) for file in sorted(files, key=natural)]


def _walk(folder: Path, seen: set[tuple[int, int]]) -> Iterator[str]:
    """All files below a folder. A folder that was seen is not entered again: links may run in circles."""
    with storage_errors(folder):
        status = folder.stat()
    if (status.st_dev, status.st_ino) in seen:
        return
    seen.add((status.st_dev, status.st_ino))
    for entry in _entries(folder):
        if entry.is_dir():
            yield from _walk(Path(entry.path), seen)
        else:
            yield entry.path


def _check_train(folder: Path, classes: Classes, kind: Kind) -> None:
    if not classes:
        raise DataError(f"{folder}: has no class folders. Each class is a folder of {kind.noun}s.")
    if len(classes) == 1:
        raise DataError(f"{folder}: has one class only, {next(iter(classes))!r}; there is nothing to tell apart.")
    for name, files in classes.items():
        if not files:
            raise DataError(f"{folder / name}: the class folder holds no {kind.noun}.")


def _mapped(folder: Path, names: tuple[str, ...], kind: Kind, notes: list[str]) -> Classes:
    classes = _classes(folder, kind, notes)
    for name in classes:
        if name not in names:
            raise DataError(f"{folder}: the class {name!r} is not in train. {did_you_mean(name, names)}")
    missing = [name for name in names if not classes.get(name)]
    if len(missing) == len(names):
        raise DataError(f"{folder}: holds no {kind.noun}.")
    if missing:
        notes.append(f"{folder}: has no {kind.noun} of {', '.join(map(repr, missing))}.")
    return classes


def _files(classes: Classes, names: tuple[str, ...]) -> ImageFiles:
    files = [classes.get(name, ()) for name in names]
    targets = np.repeat(np.arange(len(names), dtype=np.int64), [len(part) for part in files])
    return ImageFiles(list(chain.from_iterable(files)), targets)


def _leaks(splits: Mapping[str, ImageFiles]) -> list[str]:
    """A line for each split that holds images of train: what is measured on them is too good."""
    if len(splits) == 1 or sum(map(len, splits.values())) > LEAK_CHECK_FILES:
        return []
    sizes = {split: [_size(path) for path in samples.paths] for split, samples in splits.items()}
    notes = []
    for split in splits:
        shared = set(sizes["train"]) & set(sizes[split]) if split != "train" else set()
        known = _contents(splits["train"], sizes["train"], shared)
        count = sum(content in known for content in _contents(splits[split], sizes[split], shared))
        if count:
            notes.append(f"{count} of {len(splits[split])} {split} images are also in train: its results will flatter.")
    return notes


def _contents(samples: ImageFiles, sizes: Sequence[int], shared: set[int]) -> list[bytes]:
    """The digests of the files whose size another split shares: only those can be equal."""
    candidates = [path for path, size in zip(samples.paths, sizes, strict=True) if size in shared]
    if sum(size for size in sizes if size in shared) > LEAK_CHECK_BYTES:
        return []
    return [_digest(path) for path in candidates]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1  # a dangling link: the loader will say so, with its path


def _digest(path: Path) -> bytes:
    try:
        return hashlib.sha256(path.read_bytes()).digest() if path.is_file() else os.fsencode(path)
    except OSError:
        return os.fsencode(path)  # equal to nothing
