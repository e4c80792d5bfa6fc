"""Where a data set lies: NAME, NAME:PLACE, or the path of a folder, a table, shards or a pack.

A name of the registry always means that data set; ./mnist is a folder that is called like one. What reads a path is
seen from what lies there and from what the model takes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path

from dlkit import registry as catalog
from dlkit.atomic_io import storage_errors
from dlkit.config.split_names import resolve_splits
from dlkit.errors import DataError, UsageError

ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/+")  # two letters at least: C:/ is a drive
TABLES = (".csv", ".tsv", ".tab")
BESIDE_SHARDS = {".tar", ".txt", ".json", ".idx", ".md", ""}
PACK_HEADER = b'{"__metadata__": {"schema": "dlkit.pack/'
LOOKED_AT = 1000  # files that show what a folder holds


def apart(dataset: str | None, place: str | None = None) -> tuple[str | None, str | None]:
    """A data set's name and where it lies: NAME:PLACE is both, as in wds:shards-{00..09}.tar.

    Raises:
        UsageError: the place is told twice.
    """
    if dataset is None or ":" not in dataset:
        return dataset, place
    name, _, inner = dataset.partition(":")
    if place is not None and place != inner:
        raise UsageError(f"--dataset {dataset} tells where the data lies, and --data-dir is {place}. Say it once.")
    return name, inner or None


def resolve_dataset(given: str, place: str | None = None, takes: Sequence[str] = ()) -> tuple[str, str | None]:
    """A data set's name and where it lies, from NAME, NAME:PLACE or a path; `takes` are the kinds that a model takes.

    Raises:
        UsageError: no data set has the name and nothing lies there, or the place is told twice.
        DataError: a path at which there is nothing.
    """
    registry = catalog.entries("datasets")
    name, inner = apart(given, place)
    if name in registry:
        return str(name), inner
    if place is None and is_place(given):
        return reader_of(given, takes), given
    hint = catalog.did_you_mean(str(name), registry)
    if place is None and os.sep in given and name == given:
        raise DataError(f"{given}: there is no such folder, table or shard.")
    raise UsageError(f"there is no folder, table or shard {given!r}, and no data set is called {name!r}. {hint}")


def is_place(given: str) -> bool:
    """Whether this is where data lies: a path that exists, shards counted in braces, or an address."""
    return os.path.lexists(given) or bool(ADDRESS.match(given)) or ("{" in given and given.endswith(".tar"))


def reader_of(path: str, takes: Sequence[str] = ()) -> str:
    """The data set that reads what lies here.

    Raises:
        UsageError: none does. StorageError: it may not be read.
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
    raise UsageError(f"{path}: not a folder, a table (.csv, .tsv), shards (.tar) or a pack (dlkit dataset pack).")


def absolute(name: str, place: str) -> str:
    """A data set's place so that it means the same in any folder; addresses and names of a hub stay."""
    if not on_disk(name, place):
        return place
    return str(Path.cwd() / place)


def on_disk(name: str, place: str) -> bool:
    """Whether a data set's place is a path of this machine."""
    return not ADDRESS.match(place) and (name != "hf" or os.path.isdir(place))


def _reads_text(takes: Collection[str]) -> bool:
    return bool(takes) and "images" not in takes


def _reader_of_folder(folder: Path, takes: Sequence[str]) -> str:
    names = {path.name: path.stem for path in folder.iterdir() if not path.is_dir()}
    endings = {os.path.splitext(name)[1].lower() for name in islice(_files(folder), LOOKED_AT)}
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
    """Whether the first row names a column of texts and none of paths."""
    with open(table, "rb") as file:
        header = file.readline(1 << 16).replace(b"\0", b"").decode(errors="replace").lower()  # UTF-16 too
    columns = set(re.findall(r"\w+", header))
    return "text" in columns and "path" not in columns


def _is_pack(path: str) -> bool:
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        return file.read(8 + len(PACK_HEADER))[8:] == PACK_HEADER
