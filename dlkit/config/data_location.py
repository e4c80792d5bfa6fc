"""A data set and the location of its files: NAME, NAME:PATH, or the path of a folder, a table, shards or a pack.

A name in the registry always means that data set; ./mnist is a folder of the same name. Which data set reads a path
depends on its files and on what the model accepts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path

from dlkit import registry
from dlkit.atomic_io import storage_errors
from dlkit.config.split_names import resolve_splits
from dlkit.errors import DataError, UsageError

ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/+")  # two letters at least: C:/ is a drive
TABLES = (".csv", ".tsv", ".tab")
OTHER_FILES = {  # endings → what to do instead
    (".zip", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar"): "Unpack it and give the folder.",
    (".jpg", ".jpeg", ".png", ".webp", ".heic", ".gif", ".bmp", ".tif", ".tiff"): "Train on a folder of images: "
    "photos/CLASS/*.jpg; `dlkit predict {}` says what one shows.",
    (".yaml", ".yml"): "A recipe? Write --recipe {}.",
}
BESIDE_SHARDS = {".tar", ".txt", ".json", ".idx", ".md", ""}
PACK_HEADER = b'{"__metadata__": {"schema": "dlkit.pack/'
MAX_FILES = 1000  # that are looked at to identify a folder


def resolve_dataset(target: str, path: str | None = None, takes: Sequence[str] = ()) -> tuple[str, str | None]:
    """A data set's name and the path of its files; `takes` are the kinds of spec that the model accepts.

    Raises:
        UsageError: neither a data set nor a path, or two paths.
        DataError: there is nothing at the path.
    """
    known = registry.entries("datasets")
    name, separator, inner = target.partition(":")
    if separator and path not in (None, inner):
        raise UsageError(f"two locations: --dataset {target} and --data-dir {path}. Give one.")
    if name in known:
        return name, (inner or None) if separator else path
    if path is None and _is_location(target):
        return _reader(target, takes), target
    if path is None and os.sep in target and not separator:
        raise DataError(f"{target}: no such folder, table or shard.")
    hint = registry.did_you_mean(name, known)
    raise UsageError(f"data set {target!r} not found. {hint}")


def is_dataset(target: str) -> bool:
    """Whether this is the name of a data set, NAME:PATH, or a path."""
    return target.partition(":")[0] in registry.entries("datasets") or _is_location(target)


def absolute(name: str, path: str) -> str:
    """A data set's path as an absolute one; addresses and names of a hub stay."""
    return str(Path.cwd() / path) if on_disk(name, path) else path


def on_disk(name: str, path: str) -> bool:
    """Whether a data set's path is on this machine."""
    return not ADDRESS.match(path) and (name != "hf" or os.path.isdir(path))


def _is_location(target: str) -> bool:
    """Whether this is a path that exists, shards with a range in braces, or an address."""
    return os.path.lexists(target) or bool(ADDRESS.match(target)) or ("{" in target and target.endswith(".tar"))


def _reader(path: str, takes: Sequence[str] = ()) -> str:
    """The data set that reads these files.

    Raises:
        UsageError: none does. StorageError: they cannot be read.
    """
    with storage_errors(Path(path)):
        return _reader_of_folder(Path(path), takes) if os.path.isdir(path) else _reader_of_file(path, takes)


def _reader_of_file(path: str, takes: Sequence[str]) -> str:
    ending = os.path.splitext(path)[1].lower()
    if ending == ".tar" or not os.path.lexists(path):
        return "wds"
    if ending in TABLES:
        return "text_csv" if _reads_text(takes) or (not takes and _has_texts(path)) else "csv"
    if _is_pack(path):
        return "packed"
    hint = next((hint for endings, hint in OTHER_FILES.items() if ending in endings), "")
    kinds = "a folder, a table (.csv, .tsv), shards (.tar) or a pack (dlkit dataset pack)"
    raise UsageError(f"{path}: not {kinds}. {hint.format(path)}".rstrip())


def _reads_text(takes: Collection[str]) -> bool:
    return bool(takes) and "images" not in takes


def _reader_of_folder(folder: Path, takes: Sequence[str]) -> str:
    names = {path.name: path.stem for path in folder.iterdir() if not path.is_dir()}
    endings = {os.path.splitext(name)[1].lower() for name in islice(_files(folder), MAX_FILES)}
    has_table, has_trees = (_has_train(folder, names, kinds) for kinds in (TABLES, (".txt", ".conllu")))
    if "trees" in takes and (has_trees or "sequences" not in takes):
        return "trees"
    if _reads_text(takes) or (not takes and endings and endings <= {".txt", ".md", ""}):
        return "text_csv" if has_table else "trees" if has_trees else "text_folder"
    if {"dataset_dict.json", "state.json"} & names.keys():
        return "hf"
    if ".tar" in endings and endings <= BESIDE_SHARDS:
        return "wds"
    return "csv" if has_table and not _has_train_folder(folder) else "folder"


def _files(folder: Path) -> Iterator[str]:
    for _, folders, files in os.walk(folder, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (name for name in files if not name.startswith("."))


def _has_train(folder: Path, names: dict[str, str], endings: Collection[str]) -> bool:
    tables = {name: stem for name, stem in names.items() if os.path.splitext(name)[1].lower() in endings}
    return "train" in resolve_splits(folder, tables)


def _has_train_folder(folder: Path) -> bool:
    return "train" in resolve_splits(folder, {path.name: path.name for path in folder.iterdir() if path.is_dir()})


def _has_texts(table: str) -> bool:
    """Whether the header has a column of texts and none of paths."""
    with open(table, "rb") as file:
        header = file.readline(1 << 16).replace(b"\0", b"").decode(errors="replace").lower()  # UTF-16 too
    columns = set(re.findall(r"\w+", header))
    return "text" in columns and "path" not in columns


def _is_pack(path: str) -> bool:
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        return file.read(8 + len(PACK_HEADER))[8:] == PACK_HEADER
