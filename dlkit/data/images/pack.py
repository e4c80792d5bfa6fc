"""pack: write a data set of image files as one file of decoded images."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dlkit import atomic_io
from dlkit.config.schema import Data
from dlkit.data import library
from dlkit.data.download.download import no_log
from dlkit.data.images import decode, packed
from dlkit.data.images.resize_crop import Pixels
from dlkit.data.splits import ImageFiles, Splits
from dlkit.errors import DlkitError, StorageError, UsageError
from dlkit.specs import ImageSpec

BATCH = 32  # images per item of a worker

Log = Callable[[str], None]
Progress = Callable[[str, int, int], None]  # activity, images done, total


@dataclass(frozen=True)
class Packed:
    """Information about a pack; side is the shorter side of uncropped images, or None."""

    path: Path
    bytes: int
    classes: tuple[str, ...]
    sizes: Mapping[str, int]  # split → images
    channels: int
    height: int
    width: int
    side: int | None


def pack(
    data: Data,
    output: Path,
    *,
    side: int | None = None,
    workers: int | None = None,
    log: Log = no_log,
    progress: Progress = lambda name, done, total: None,
) -> Packed:
    """Decode every image once and write the pack `output` atomically.

    Images are prepared as for evaluation; with `side`, uncropped and resized to this shorter side, for random resized
    crops.

    Raises:
        UsageError: the data set is in memory, or `side` is smaller than the network's input.
        DataError: an image that cannot be read; the message names it.
        StorageError: the disk is full or cannot be written.
    """
    if output.is_dir():
        raise UsageError(f"{output} is a folder. -o names the file to write.")
    splits = library.splits(data, log=log)
    parts = _files(splits, data.name)
    spec = splits.spec
    assert isinstance(spec, ImageSpec), "files are images"
    minimum = max(round(spec.height / spec.crop), round(spec.width / spec.crop))
    if side is not None and side < minimum:
        raise UsageError(f"--side {side} is too small: the network's input is cropped from {minimum} pixels.")
    for warning in splits.warnings:
        log(f"warning: {warning}")
    total = sum(map(len, parts.values()))
    pixels = spec.height * spec.width if side is None else side * side
    _check_space(output, total * pixels * spec.channels)
    names = _names(parts, data.dir)
    tables = {
        split: {"targets": part.targets, "names": names[split], "groups": splits.groups if split == "train" else None}
        for split, part in parts.items()
    }
    done = 0

    def decode_split(split: str) -> Iterator[Pixels]:
        nonlocal done
        for image in _decode_all(parts[split], spec, side, os.cpu_count() or 1 if workers is None else workers):
            done += 1
            progress("packing", done, total)
            yield image

    with atomic_io.replacing(output) as file:
        packed.write(file, spec, side, tables, decode_split)
    return describe(output)


def describe(path: Path) -> Packed:
    """Information about a pack, without reading its pixels. Raises the errors of packed.opened."""
    file = packed.opened(path)
    sizes = {split: len(part) for split, part in file.parts.items()}
    spec = file.spec
    return Packed(path, file.bytes, spec.classes, sizes, spec.channels, spec.height, spec.width, file.side)


def verify(path: Path) -> Packed:
    """Compare every image of a pack with its digest.

    Raises:
        VerificationError: one differs; the message names it.
    """
    packed.opened(path).verify()
    return describe(path)


class _Decoder:
    """Images (C, H, W) of a range of indices, prepared for the pack; returns the error of an invalid one."""

    def __init__(self, samples: ImageFiles, spec: ImageSpec, side: int | None) -> None:
        self.sources, self.spec, self.side = samples.paths, spec, side

    def __getitem__(self, indices: range) -> list[Pixels] | DlkitError:
        try:
            if self.side is None:
                return [decode.load(self.sources[index], self.spec) for index in indices]
            return [
                decode.load_uncropped(self.sources[index], self.spec.channels, self.side, self.spec.max_pixels)
                for index in indices
            ]
        except DlkitError as error:
            return error

    def describe(self, indices: range) -> str:
        """A batch in words: x/1.png and 31 more."""
        return str(self.sources[indices[0]]) + (f" and {len(indices) - 1} more" if len(indices) > 1 else "")


def _decode_all(samples: ImageFiles, spec: ImageSpec, side: int | None, workers: int) -> Iterator[Pixels]:
    from dlkit.data.workers import in_workers  # imports torch, which describe does not need

    batches = [range(start, min(start + BATCH, len(samples))) for start in range(0, len(samples), BATCH)]
    for part in in_workers(_Decoder(samples, spec, side), batches, workers):
        yield from part


def _files(splits: Splits, name: str) -> dict[str, ImageFiles]:
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    files = {split: part for split, part in parts.items() if isinstance(part, ImageFiles)}
    if "train" not in files:
        raise UsageError(f"data set {name!r} needs no pack: it is in memory.")
    return files


def _names(parts: Mapping[str, ImageFiles], folder: str | None) -> dict[str, list[str]]:
    """The names of the images, relative to the folder of the data."""
    names = {split: [str(source) for source in part.paths] for split, part in parts.items()}
    root = folder if folder is not None else os.path.commonpath([name for part in names.values() for name in part])
    prefix = str(Path(root)) + os.sep
    return {split: [name.removeprefix(prefix) for name in part] for split, part in names.items()}


def _check_space(output: Path, needed: int) -> None:
    """Raises: StorageError if the disk has less free space."""
    with atomic_io.storage_errors(output.parent):
        free = shutil.disk_usage(output.parent).free
    if needed > free:
        raise StorageError(f"disk full at {output}: needs {needed / 2**30:.1f} GiB, has {free / 2**30:.1f} GiB.")
