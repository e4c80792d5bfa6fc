"""Class folders: train/CLASS/*, val/, test/, or CLASS/* alone; the classes and files in them, by split."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dlkit.config.split_names import resolve_splits, unused
from dlkit.data.classes import class_name, natural, refuse_twins
from dlkit.data.folders import files_below, is_folder, listed
from dlkit.data.images.formats import EXTENSIONS
from dlkit.errors import DataError
from dlkit.registry import did_you_mean

MAX_NAMED = 5  # folders in a note

FilesByClass = Mapping[str, Sequence[Path]]  # class name → its files, sorted


@dataclass(frozen=True)
class FileKind:
    """The files of a data set, by extension."""

    noun: str
    extensions: Collection[str]


IMAGES = FileKind("image", EXTENSIONS)


@dataclass(frozen=True)
class ClassFolders:
    """The classes in order, the files by split and class, and warnings for the user."""

    classes: tuple[str, ...]
    splits: Mapping[str, FilesByClass]
    notes: list[str]


@dataclass(frozen=True)
class SplitFolders:
    """The folder of each split, and the names of other folders beside them."""

    train: Path
    validation: Path | None
    test: Path | None
    unused: tuple[str, ...] = ()


def find_class_folders(folder: Path, kind: FileKind = IMAGES) -> ClassFolders:
    """Lists the files of all splits and classes; reads none.

    Raises:
        DataError: no such folder, fewer than two classes, a class without files, a class in val or test that train
            does not have, or names that could be confused.
    """
    split_folders = find_split_folders(folder)
    notes = [unused_note(folder, split_folders)] if split_folders.unused else []
    train = _list_classes(split_folders.train, kind, notes)
    try:
        _check_train(split_folders.train, train, kind)
    except DataError as error:
        raise DataError(f"{error}{class_named_train_hint(folder, split_folders)}") from error
    names = tuple(train)
    splits: dict[str, FilesByClass] = {"train": train}
    for split, path in (("validation", split_folders.validation), ("test", split_folders.test)):
        if path is not None:
            splits[split] = _list_known_classes(path, names, kind, notes)
    return ClassFolders(names, splits, notes)


def find_split_folders(root: Path) -> SplitFolders:
    """Raises: DataError if there is no folder, no train beside val or test, or two names for one split."""
    if not root.exists():
        raise DataError(f"{root}: there is no such folder.")
    if not root.is_dir():
        raise DataError(f"{root}: not a folder. --dataset packed reads packs.")
    folders = {entry.name: entry.name for entry in listed(root) if is_folder(entry)}
    splits = resolve_splits(root, folders)
    if not splits:
        return SplitFolders(root, None, None)
    if "train" not in splits:
        others = " and ".join(splits.values())
        raise DataError(f"{root}: has {others} but no train folder.{_class_hint(root, splits.values())}")
    paths = {split: root / name for split, name in splits.items()}
    return SplitFolders(paths["train"], paths.get("validation"), paths.get("test"), tuple(unused(folders, splits)))


def unused_note(root: Path, folders: SplitFolders) -> str:
    more = f" and {len(folders.unused) - MAX_NAMED} more" if len(folders.unused) > MAX_NAMED else ""
    names = ", ".join(map(repr, folders.unused[:MAX_NAMED])) + more
    return f"{root}: ignored {names} beside {folders.train.name!r}: not the name of a split (train, val, test)."


def class_named_train_hint(root: Path, folders: SplitFolders) -> str:
    """What to do if the folder called train is a class and not a split."""
    return "" if folders.train == root else _class_hint(root, (folders.train.name, *folders.unused))


def _class_hint(root: Path, names: Collection[str]) -> str:
    first, *others = names
    moved = ", ".join(str(root / "train" / name) for name in (first, *(others or ["…"]))[:3])
    return f" If {first!r} is a class, move all class folders into one train folder: {moved}."


def _list_classes(folder: Path, kind: FileKind, notes: list[str]) -> dict[str, list[Path]]:
    """Class name → its files of that kind, both in natural order."""
    entries = listed(folder)
    stray = [entry.name for entry in entries if not is_folder(entry)]
    if stray:
        notes.append(f"{folder}: ignored {len(stray)} files outside the class folders, such as {stray[0]!r}.")
    class_folders = [entry for entry in entries if is_folder(entry)]
    try:
        refuse_twins(entry.name for entry in class_folders)
        folders = {class_name(entry.name): Path(entry.path) for entry in class_folders}
    except DataError as error:
        raise DataError(f"{folder}: {error}") from error
    ignored: list[str] = []
    classes = {name: _list_files(folders[name], kind, ignored) for name in sorted(folders, key=natural)}
    if ignored:
        files = "1 file" if len(ignored) == 1 else f"{len(ignored)} files"
        notes.append(f"{folder}: ignored {files} not named like {kind.noun}s, such as {ignored[0]!r}.")
    return classes


def _list_files(folder: Path, kind: FileKind, ignored: list[str]) -> list[Path]:
    files = []
    for file in files_below(folder):
        if os.path.splitext(file)[1].lower() in kind.extensions:
            files.append(file)
        else:
            ignored.append(os.path.basename(file))
    return [Path(file) for file in sorted(files, key=natural)]


def _check_train(folder: Path, classes: FilesByClass, kind: FileKind) -> None:
    if not classes:
        above = f" Is {folder.name!r} a class? Then: dlkit train {folder.parent}." if _holds(folder, kind) else ""
        raise DataError(f"{folder}: has no class folders. Each class is a folder of {kind.noun}s.{above}")
    if len(classes) == 1:
        raise DataError(f"{folder}: has one class only, {next(iter(classes))!r}; a classifier needs two.")
    for name, files in classes.items():
        if not files:
            raise DataError(f"{folder / name}: the class folder holds no {kind.noun}.")


def _holds(folder: Path, kind: FileKind) -> bool:
    """Whether files of that kind lie in the folder itself."""
    return any(os.path.splitext(entry.name)[1].lower() in kind.extensions for entry in listed(folder))


def _list_known_classes(folder: Path, names: tuple[str, ...], kind: FileKind, notes: list[str]) -> FilesByClass:
    classes = _list_classes(folder, kind, notes)
    for name in classes:
        if name not in names:
            raise DataError(f"{folder}: the class {name!r} is not in train. {did_you_mean(name, names)}")
    missing = [name for name in names if not classes.get(name)]
    if len(missing) == len(names):
        raise DataError(f"{folder}: holds no {kind.noun}.")
    if missing:
        notes.append(f"{folder}: has no {kind.noun} of {', '.join(map(repr, missing))}.")
    return classes
