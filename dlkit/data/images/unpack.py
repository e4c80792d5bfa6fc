"""unpack: write an in-memory data set as a folder of PNG files."""

from __future__ import annotations

import io
import secrets
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from dlkit import atomic_io
from dlkit.config.schema import Data
from dlkit.data import library
from dlkit.data.splits import MemoryImages
from dlkit.errors import UsageError


def unpack(name: str, folder: Path, *, split: str = "test", limit: int | None = None, log: library.Log) -> list[Path]:
    """Write folder/SPLIT/CLASS/00042.png for the first `limit` images of a split; returns the paths in order.

    Raises:
        UsageError: the folder has this split already, or the data set consists of files.
    """
    target = folder / split
    if target.exists():
        raise UsageError(f"{target} exists. Choose another folder, or remove it first.")
    splits = library.splits(Data(name=name), log=log)
    samples = {"train": splits.train, "validation": splits.validation, "test": splits.test}.get(split)
    if not isinstance(samples, MemoryImages):
        raise UsageError(f"data set {name!r} has no {split} images in memory to unpack. --split is train or test.")
    temporary = folder / f".{split}.{secrets.token_hex(4)}.tmp"
    paths = []
    try:
        with atomic_io.storage_errors(target):
            for index, (image, label) in enumerate(zip(samples.images[:limit], samples.targets[:limit], strict=True)):
                path = Path(splits.spec.classes[label]) / f"{index:05d}.png"
                (temporary / path).parent.mkdir(parents=True, exist_ok=True)
                (temporary / path).write_bytes(_png(image))
                paths.append(target / path)
        atomic_io.move_folder(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return paths


def _png(image: npt.NDArray[np.uint8]) -> bytes:  # (C, H, W) uint8
    file = io.BytesIO()
    Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(file, "png")
    return file.getvalue()
