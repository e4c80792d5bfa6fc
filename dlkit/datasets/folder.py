"""Your own images in folders: train/CLASS/*, val/, test/; or CLASS/* alone.

Where there is no val, a part of train is held back for validation. The classes are the folders of train, in natural
order ("2" before "10", case ignored); the other splits are mapped to them by name. Images are found by their extension,
in folders inside folders too, and links to folders are followed. Hidden files and folders, `__MACOSX`, `Thumbs.db` and
their like are ignored.

Where there is no test, data.options.test=0.1 makes a tenth of train into it, the same files whatever the run's seed.
Files that belong together stay together, in these cuts and in that for validation, where data.options.group tells what
belongs together: a regular expression for a file's path below the folder. What its brackets catch is the file's group:
with group=(patient[0-9]+) no patient is on both sides.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from dlkit.catalog import did_you_mean
from dlkit.data import own_images
from dlkit.data.classes import class_name, natural, refuse_twins
from dlkit.data.images import EXTENSIONS
from dlkit.data.samples import ImageFiles, Splits
from dlkit.durable import storage_errors
from dlkit.errors import DataError, StorageError

VALIDATION = ("val", "validation", "valid")
JUNK = {"__macosx", "thumbs.db", "desktop.ini", "ehthumbs.db", "@eadir", "$recycle.bin", "lost+found", "__pycache__"}

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
class Layout:
    """Where the splits lie."""

    train: Path
    validation: Path | None
    test: Path | None


def load(
    folder: Path, *, size: int = 224, channels: int = 3, crop: float = 1.0, test: float = 0.0, group: str = ""
) -> Splits:
    """The splits found in `folder`, as paths; nothing is decoded here.

    Raises:
        DataError: no such folder, fewer than two classes, a class without images, a class in val or test that train
            does not have, names that could be confused, or a file without a group.
    """
    look = own_images.Look("folder", size, channels, crop)
    found = class_folders(folder)
    spec = look.spec(found.classes)
    samples = {split: _files(classes, found.classes) for split, classes in found.splits.items()}
    names = (path.relative_to(folder).as_posix() for classes in found.splits["train"].values() for path in classes)
    groups = own_images.groups_by_pattern(group, names)
    return own_images.splits(spec, samples, test=test, groups=groups, notes=found.notes)


def class_folders(folder: Path, kind: Kind = IMAGES) -> Found:
    """The files below train/CLASS/ and so on, or CLASS/ alone; raises what load does."""
    layout = find_layout(folder)
    notes: list[str] = []
    train = _classes(layout.train, kind, notes)
    _check_train(layout.train, train, kind)
    names = tuple(train)
    splits: dict[str, Classes] = {"train": train}
    for split, path in (("validation", layout.validation), ("test", layout.test)):
        if path is not None:
            splits[split] = _mapped(path, names, kind, notes)
    return Found(names, splits, notes)


def find_layout(root: Path) -> Layout:
    """Raises: DataError where there is no folder, no train beside val or test, or two that could be val."""
    if not root.exists():
        raise DataError(f"{root}: there is no such folder.")
    if not root.is_dir():
        raise DataError(f"{root}: not a folder. A pack is read by --dataset packed.")
    folders = {entry.name for entry in listed(root) if entry.is_dir()}
    validations = [name for name in VALIDATION if name in folders]
    if len(validations) > 1:
        raise DataError(f"{root}: has {' and '.join(validations)}; which one is the validation split? Keep one.")
    if "train" not in folders:
        if lonely := validations + [name for name in ("test",) if name in folders]:
            raise DataError(f"{root}: has {' and '.join(lonely)} but no train folder.")
        return Layout(root, None, None)
    test = root / "test" if "test" in folders else None
    return Layout(root / "train", root / validations[0] if validations else None, test)


def listed(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder, less what is hidden and what systems leave behind; sorted by name."""
    try:
        with os.scandir(folder) as found:
            entries = [entry for entry in found if not entry.name.startswith(".") and entry.name.casefold() not in JUNK]
    except OSError as error:
        raise StorageError(f"{folder}: cannot be read: {error.strerror or error}.") from error
    return sorted(entries, key=lambda entry: entry.name)


def _classes(folder: Path, kind: Kind, notes: list[str]) -> dict[str, list[Path]]:
    """Class name → its files of that kind, both in natural order."""
    entries = listed(folder)
    stray = [entry.name for entry in entries if not entry.is_dir()]
    if stray:
        notes.append(f"{folder}: ignored {len(stray)} files outside the class folders, such as {stray[0]!r}.")
    inner = [entry for entry in entries if entry.is_dir()]
    try:
        refuse_twins(entry.name for entry in inner)
        folders = {class_name(entry.name): Path(entry.path) for entry in inner}
    except DataError as error:
        raise DataError(f"{folder}: {error}") from error
    others: list[str] = []
    classes = {name: _files_in(folders[name], kind, others) for name in sorted(folders, key=natural)}
    if others:
        files = "1 file" if len(others) == 1 else f"{len(others)} files"
        notes.append(f"{folder}: ignored {files} not named like {kind.noun}s, such as {others[0]!r}.")
    return classes


def _files_in(folder: Path, kind: Kind, others: list[str]) -> list[Path]:
    files = []
    for file in files_below(folder, set()):
        if os.path.splitext(file)[1].lower() in kind.extensions:
            files.append(file)
        else:
            others.append(os.path.basename(file))
    return [Path(file) for file in sorted(files, key=natural)]


def files_below(folder: Path, seen: set[tuple[int, int]]) -> Iterator[str]:
    """All files below a folder. A folder that was seen is not entered again: links may run in circles."""
    with storage_errors(folder):
        status = folder.stat()
    if (status.st_dev, status.st_ino) in seen:
        return
    seen.add((status.st_dev, status.st_ino))
    for entry in listed(folder):
        if entry.is_dir():
            yield from files_below(Path(entry.path), seen)
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
