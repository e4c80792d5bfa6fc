"""pack: a data set of image files becomes one file of decoded images, which an epoch only has to copy from."""

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

BATCH = 32  # images that a worker hands over at once

Log = Callable[[str], None]
Progress = Callable[[str, int, int], None]  # what is done, images so far, of how many


@dataclass(frozen=True)
class Packed:
    """A pack on the disk; side is the shorter side of its images where they are larger than what the network sees."""

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
    """Decode every image once and write the pack `output`, all of it or nothing.

    The images are as eval sees them; with `side`, whole and resized so that their shorter side is that long, for random
    resized crops.

    Raises:
        UsageError: the data set is in memory anyway, or `side` is smaller than what the network sees.
        DataError: an image that cannot be read; the message names it.
        StorageError: the disk refuses, or has no room.
    """
    if output.is_dir():
        raise UsageError(f"{output} is a folder. -o names the file to write.")
    found = library.splits(data, log=log)
    parts = _files(found, data.name)
    spec = found.spec
    assert isinstance(spec, ImageSpec), "files are images"
    least = max(round(spec.height / spec.crop), round(spec.width / spec.crop))
    if side is not None and side < least:
        raise UsageError(f"--side {side} is less than the {least} pixels that the network's images are cut from.")
    for warning in found.warnings:
        log(f"warning: {warning}")
    total = sum(map(len, parts.values()))
    pixels = spec.height * spec.width if side is None else side * side
    _check_room(output, total * pixels * spec.channels)
    names = _names(parts, data.dir)
    tables = {
        split: {"targets": part.targets, "names": names[split], "groups": found.groups if split == "train" else None}
        for split, part in parts.items()
    }
    done = 0

    def decoded(split: str) -> Iterator[Pixels]:
        nonlocal done
        for image in _decoded(parts[split], spec, side, os.cpu_count() or 1 if workers is None else workers):
            done += 1
            progress("packing", done, total)
            yield image

    with atomic_io.replacing(output) as file:
        packed.write(file, spec, side, tables, decoded)
    return described(output)


def described(path: Path) -> Packed:
    """What a pack holds; its pixels are not read. Raises what packed.opened does."""
    found = packed.opened(path)
    sizes = {split: len(part) for split, part in found.parts.items()}
    spec = found.spec
    return Packed(path, found.bytes, spec.classes, sizes, spec.channels, spec.height, spec.width, found.side)


def verify(path: Path) -> Packed:
    """Compare every image of a pack with its digest.

    Raises:
        VerificationError: one differs; the message names it.
    """
    packed.opened(path).verify()
    return described(path)


class _Decoder:
    """Images (C, H, W) of places, as they are to be packed; a bad one comes back as its error."""

    def __init__(self, samples: ImageFiles, spec: ImageSpec, side: int | None) -> None:
        self.sources, self.spec, self.side = samples.paths, spec, side

    def __getitem__(self, places: range) -> list[Pixels] | DlkitError:
        try:
            if self.side is None:
                return [decode.load(self.sources[place], self.spec) for place in places]
            return [
                decode.load_uncropped(self.sources[place], self.spec.channels, self.side, self.spec.max_pixels)
                for place in places
            ]
        except DlkitError as error:
            return error

    def describe(self, places: range) -> str:
        """A batch in words: x/1.png and 31 more."""
        return str(self.sources[places[0]]) + (f" and {len(places) - 1} more" if len(places) > 1 else "")


def _decoded(samples: ImageFiles, spec: ImageSpec, side: int | None, workers: int) -> Iterator[Pixels]:
    from dlkit.data.workers import in_workers  # imports torch: what a pack says of itself needs none

    places = [range(start, min(start + BATCH, len(samples))) for start in range(0, len(samples), BATCH)]
    for part in in_workers(_Decoder(samples, spec, side), places, workers):
        yield from part


def _files(found: Splits, name: str) -> dict[str, ImageFiles]:
    parts = {"train": found.train, "validation": found.validation, "test": found.test}
    files = {split: part for split, part in parts.items() if isinstance(part, ImageFiles)}
    if "train" not in files:
        raise UsageError(f"data set {name!r} needs no pack: it is held in memory as it is.")
    return files


def _names(parts: Mapping[str, ImageFiles], place: str | None) -> dict[str, list[str]]:
    """What the images are called, below the folder of the data."""
    names = {split: [str(source) for source in part.paths] for split, part in parts.items()}
    root = place if place is not None else os.path.commonpath([name for part in names.values() for name in part])
    prefix = str(Path(root)) + os.sep
    return {split: [name.removeprefix(prefix) for name in part] for split, part in names.items()}


def _check_room(output: Path, needed: int) -> None:
    """Raises: StorageError where the disk cannot hold so many bytes."""
    with atomic_io.storage_errors(output.parent):
        free = shutil.disk_usage(output.parent).free
    if needed > free:
        raise StorageError(f"disk full at {output}: needs {needed / 2**30:.1f} GiB, has {free / 2**30:.1f} GiB.")
