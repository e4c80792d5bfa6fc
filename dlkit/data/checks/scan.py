"""Scan the images of a data set: decode all of them on all cores, in order, with few in memory at once."""

from __future__ import annotations

import hashlib
import os
import time
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from dlkit.data.images import decode
from dlkit.data.images.formats import UnsupportedImageError
from dlkit.data.processes import Helpers
from dlkit.data.splits import ImageSource, Stored
from dlkit.errors import DataError, DlkitError, StorageError, WorkerLostError

SIDE = 8  # pixels of a thumbnail
DRAFT = (128, 128)  # a large JPEG is decoded at a fraction of its size; this still reads all of its bytes
BATCH = 16  # images per message
PREFETCH = 4  # messages in flight per process
ALONE_S = 0.5  # seconds that are scanned before processes are started, which takes as long

Thumbnail = npt.NDArray[np.uint8]  # (8, 8, 3)


@dataclass(frozen=True, slots=True)
class ImageScan:
    """Header, digest and thumbnail of an image, or why it cannot be used."""

    problem: str = ""  # without the file's name
    readable: bool = True  # False after an I/O error: the image itself may be fine
    damaged: bool = False  # False for a kind of image that dlkit does not read
    header: decode.Header | None = None
    notes: tuple[str, ...] = ()  # oddities that were tolerated
    digest: bytes = b""  # SHA-256
    thumbnail: Thumbnail | None = None


def scan_images(
    sources: Sequence[ImageSource], workers: int | None = None, max_pixels: int = decode.MAX_PIXELS
) -> Iterator[ImageScan]:
    """Scans the sources in order, with one process per core or `workers`.

    Raises:
        WorkerLostError: a process died; the message names the images it may have been decoding.
    """
    workers = _available_cores() if workers is None else workers
    done, spent_s = 0, 0.0
    for source in sources:
        if workers > 1 and spent_s > ALONE_S and spent_s / done * (len(sources) - done) > 2 * ALONE_S:
            break
        begun = time.monotonic()
        scan = scan_image(source, max_pixels)
        done, spent_s = done + 1, spent_s + time.monotonic() - begun
        yield scan
    if done < len(sources):
        yield from _scan_in_processes(sources[done:], workers, max_pixels)


def _scan_in_processes(sources: Sequence[ImageSource], workers: int, max_pixels: int) -> Iterator[ImageScan]:
    try:
        helpers = Helpers(scan_batch, min(workers, -(-len(sources) // BATCH)))
    except OSError as error:
        warnings.warn(f"no processes to scan with: {error.strerror}. Images are scanned one by one.", stacklevel=2)
        yield from (scan_image(source, max_pixels) for source in sources)
        return
    try:
        pending: deque[tuple[str, Future[list[ImageScan]]]] = deque()
        for start in range(0, len(sources), BATCH):
            batch = sources[start : start + BATCH]
            names = f"{batch[0]} and {len(batch) - 1} more were scanned"
            pending.append((names, helpers.submit(_message, batch, max_pixels)))
            if len(pending) == PREFETCH * workers:
                yield from _result(helpers, *pending.popleft())
        for names, future in pending:
            yield from _result(helpers, names, future)
    finally:
        helpers.close()


def _available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def scan_image(source: ImageSource, max_pixels: int = decode.MAX_PIXELS) -> ImageScan:
    """Decodes an image. Raises nothing: a bad file is a result too."""
    notes: list[str] = []
    name = f"{source}: "
    try:
        image, header = decode.decode_with_header(source, 3, draft=DRAFT, notes=notes, max_pixels=max_pixels)
        content = decode.read(source)
    except (DataError, StorageError) as error:
        readable = not isinstance(error, StorageError)
        damaged = readable and not isinstance(error, UnsupportedImageError)
        return ImageScan(str(error).removeprefix(name), readable, damaged)
    except MemoryError:
        return ImageScan("it does not fit in memory.")
    return ImageScan(
        header=header,
        notes=tuple(note.removeprefix(name) for note in notes),
        digest=hashlib.sha256(content).digest(),
        thumbnail=thumbnail(image),
    )


def thumbnail(image: Image.Image) -> Thumbnail:
    """An RGB image squeezed to 8 × 8 pixels; bilinear, because a box filter is not symmetric under mirroring."""
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


@dataclass(frozen=True, slots=True)
class _Content:
    """The bytes of an image that is no file of its own, or why there are none: read where its data set is open."""

    name: str
    content: bytes | DlkitError

    def __str__(self) -> str:
        return self.name

    @property
    def size(self) -> int:
        return 0 if isinstance(self.content, DlkitError) else len(self.content)

    def read(self) -> bytes:
        if isinstance(self.content, DlkitError):
            raise self.content
        return self.content


def _message(batch: Sequence[ImageSource], max_pixels: int) -> tuple[list[str | _Content], int]:
    """What scan_batch takes: files by name, other images by their bytes."""
    return [str(source) if isinstance(source, Path) else _content(source) for source in batch], max_pixels


def _content(source: Stored) -> _Content:
    try:
        return _Content(str(source), source.read())
    except DlkitError as error:
        return _Content(str(source), error)


def scan_batch(message: tuple[list[str | _Content], int]) -> list[ImageScan]:
    """In a helper process."""
    sources, max_pixels = message
    return [scan_image(Path(source) if isinstance(source, str) else source, max_pixels) for source in sources]


def _result(helpers: Helpers, what: str, future: Future[list[ImageScan]]) -> list[ImageScan]:
    try:
        return cast("list[ImageScan]", helpers.result(future, what))
    except WorkerLostError as error:
        raise WorkerLostError(f"{error} Memory may be too small, or a file breaks the decoder: -j 1 tells.") from error
