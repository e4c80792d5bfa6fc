"""The same images in every form that a person's own may have: class folders, a table, tar shards, a saved data set."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

from shapes_on_disk import write_folder

from dlkit.data.class_folders import find_class_folders

SPLITS = {"train": 96, "test": 32}


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def write_shard(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            add(archive, name, content)
    return path


def in_folder_order(root: Path, split: str) -> list[tuple[Path, str]]:
    """Each image with its class, in the order that the data set `folder` has them."""
    found = find_class_folders(root).splits[split]
    return [(path, name) for name, paths in found.items() for path in paths]


def as_folder(place: Path) -> Path:
    for split, count in SPLITS.items():
        write_folder(place, split, count=count)
    return place


def as_table(root: Path, place: Path) -> Path:
    rows = [(path, name, split) for split in SPLITS for path, name in in_folder_order(root, split)]
    table = root / f"{place.name}.csv"
    table.write_text("path,label,split\n" + "".join(f"{p.relative_to(root)},{n},{s}\n" for p, n, s in rows))
    return table


def as_shards(root: Path, place: Path, per_shard: int = 20) -> Path:
    for split in SPLITS:
        rows = in_folder_order(root, split)
        for number, start in enumerate(range(0, len(rows), per_shard)):
            members = []
            for place_, (path, name) in enumerate(rows[start : start + per_shard], start=start):
                members += [(f"{place_:06}.png", path.read_bytes()), (f"{place_:06}.cls", name.encode())]
            write_shard(place / f"{split}-{number:03}.tar", members)
    return place


def as_saved(root: Path, place: Path) -> Path:
    """What the package datasets saves."""
    import datasets

    datasets.disable_progress_bars()
    classes = list(find_class_folders(root).classes)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=classes)})
    tables = {}
    for split in SPLITS:
        rows = in_folder_order(root, split)
        images = [{"bytes": path.read_bytes(), "path": path.name} for path, _ in rows]
        columns = {"image": images, "label": [classes.index(name) for _, name in rows]}
        tables[split] = datasets.Dataset.from_dict(columns, features=features)
    datasets.DatasetDict(tables).save_to_disk(str(place))
    return place
