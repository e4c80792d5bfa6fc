"""unpack: a data set held in memory becomes a folder of PNG files, which any program can read."""

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
        UsageError: the folder has this split already, or the data set is made of files as it is.
    """
    target = folder / split
    if target.exists():
        raise UsageError(f"{target} exists. Give another folder, or remove it first.")
    found = library.splits(Data(name=name), log=log)
    samples = {"train": found.train, "validation": found.validation, "test": found.test}.get(split)
    if not isinstance(samples, MemoryImages):
        raise UsageError(f"data set {name!r} has no {split} images in memory to unpack. --split is train or test.")
    beside = folder / f".{split}.{secrets.token_hex(4)}.tmp"
    written = []
    try:
        with atomic_io.storage_errors(target):
            for index, (image, label) in enumerate(zip(samples.images[:limit], samples.targets[:limit], strict=True)):
                place = Path(found.spec.classes[label]) / f"{index:05d}.png"
                (beside / place).parent.mkdir(parents=True, exist_ok=True)
                (beside / place).write_bytes(_png(image))
                written.append(target / place)
        atomic_io.move_folder(beside, target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return written


def _png(image: npt.NDArray[np.uint8]) -> bytes:  # (C, H, W) uint8
    packed = io.BytesIO()
    Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(packed, "png")
    return packed.getvalue()
