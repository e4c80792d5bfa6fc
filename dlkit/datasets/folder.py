"""Your own images in folders: train/CLASS/*, val/, test/; or CLASS/* alone.

The split folders may be written in any letter case and under their usual names: training; valid, validation, dev, eval;
testing; photos_train. Without a validation folder, a part of train is held back. The classes are the folders of train,
in natural order ("2" before "10", case ignored); the other splits are mapped to them by name. Images are found by their
extension, in folders inside folders too. Links to folders are followed, and a link to a folder that it is in is
refused. Hidden files and folders, `__MACOSX`, `Thumbs.db` and their like are ignored.

Where there is no test, data.options.test=0.1 makes a tenth of train into it, the same files whatever the run's seed.
Files that belong together stay together, in these cuts and in that for validation, where data.options.group tells what
belongs together: a regular expression for a file's path below the folder. What its brackets catch is the file's group:
with group=(patient[0-9]+) no patient is on both sides. With group=near those belong together that are one picture,
saved again, resized or mirrored; for that all images are decoded first.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from dlkit.data.classes import class_name, natural, refuse_twins
from dlkit.data.folders import files_below, is_folder, listed
from dlkit.data.images import user_images
from dlkit.data.images.decode import EXTENSIONS
from dlkit.data.splits import ImageFiles, Splits
from dlkit.errors import DataError
from dlkit.registry import did_you_mean
from dlkit.split_names import resolve_splits, unused

NAMED = 5  # folders that a note names

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
    """Where the splits lie, and the folders beside them that are none."""

    train: Path
    validation: Path | None
    test: Path | None
    unused: tuple[str, ...] = ()


def load(
    folder: Path, *, size: int = 224, channels: int = 3, crop: float = 1.0, test: float = 0.0, group: str = ""
) -> Splits:
    """The splits found in `folder`, as paths; nothing is decoded here.

    Raises:
        DataError: no such folder, fewer than two classes, a class without images, a class in val or test that train
            does not have, names that could be confused, or a file without a group.
    """
    look = user_images.Look("folder", size, channels, crop)
    found = class_folders(folder)
    spec = look.spec(found.classes)
    samples = {split: _files(classes, found.classes) for split, classes in found.splits.items()}
    names = (path.relative_to(folder).as_posix() for classes in found.splits["train"].values() for path in classes)
    groups = user_images.groups_of(group, samples["train"].paths, names)
    return user_images.splits(spec, samples, test=test, groups=groups, notes=found.notes)


def class_folders(folder: Path, kind: Kind = IMAGES) -> Found:
    """The files below train/CLASS/ and so on, or CLASS/ alone; raises what load does."""
    layout = find_layout(folder)
    notes = [unused_folders(folder, layout)] if layout.unused else []
    train = _classes(layout.train, kind, notes)
    try:
        _check_train(layout.train, train, kind)
    except DataError as error:
        raise DataError(f"{error}{way_out(folder, layout)}") from error
    names = tuple(train)
    splits: dict[str, Classes] = {"train": train}
    for split, path in (("validation", layout.validation), ("test", layout.test)):
        if path is not None:
            splits[split] = _mapped(path, names, kind, notes)
    return Found(names, splits, notes)


def find_layout(root: Path) -> Layout:
    """Raises: DataError where there is no folder, no train beside val or test, or two names for one split."""
    if not root.exists():
        raise DataError(f"{root}: there is no such folder.")
    if not root.is_dir():
        raise DataError(f"{root}: not a folder. A pack is read by --dataset packed.")
    folders = {entry.name: entry.name for entry in listed(root) if is_folder(entry)}
    splits = resolve_splits(root, folders)
    if not splits:
        return Layout(root, None, None)
    if "train" not in splits:
        lonely = " and ".join(splits.values())
        raise DataError(f"{root}: has {lonely} but no train folder.{_as_classes(root, splits.values())}")
    paths = {split: root / name for split, name in splits.items()}
    others = tuple(unused(folders, splits))
    return Layout(paths["train"], paths.get("validation"), paths.get("test"), others)


def unused_folders(root: Path, layout: Layout) -> str:
    """The note about folders that are no split."""
    more = f" and {len(layout.unused) - NAMED} more" if len(layout.unused) > NAMED else ""
    names = ", ".join(map(repr, layout.unused[:NAMED])) + more
    return f"{root}: ignored {names} beside {layout.train.name!r}: not the name of a split (train, val, test)."


def way_out(root: Path, layout: Layout) -> str:
    """What to do if a folder called train is a class and not a split."""
    return "" if layout.train == root else _as_classes(root, (layout.train.name, *layout.unused))


def _as_classes(root: Path, names: Collection[str]) -> str:
    first, *others = names
    moved = ", ".join(str(root / "train" / name) for name in (first, *(others or ["…"]))[:3])
    return f" If {first!r} is a class, move all class folders below one train folder: {moved}."


def _classes(folder: Path, kind: Kind, notes: list[str]) -> dict[str, list[Path]]:
    """Class name → its files of that kind, both in natural order."""
    entries = listed(folder)
    stray = [entry.name for entry in entries if not is_folder(entry)]
    if stray:
        notes.append(f"{folder}: ignored {len(stray)} files outside the class folders, such as {stray[0]!r}.")
    inner = [entry for entry in entries if is_folder(entry)]
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
    for file in files_below(folder):
        if os.path.splitext(file)[1].lower() in kind.extensions:
            files.append(file)
        else:
            others.append(os.path.basename(file))
    return [Path(file) for file in sorted(files, key=natural)]


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
