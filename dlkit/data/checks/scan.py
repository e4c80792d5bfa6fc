"""Scan the images of a data set: decode all of them on all cores, in order, with few in memory at once."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from dlkit.data.images import decode
from dlkit.data.images.formats import UnsupportedImageError
from dlkit.data.splits import ImageSource
from dlkit.errors import DataError, StorageError, WorkerLostError

SIDE = 8  # pixels of a thumbnail
DRAFT = (128, 128)  # a large JPEG is decoded at a fraction of its size; this still reads all of its bytes
CHUNK = 64  # images per task
PREFETCH = 4  # tasks in flight per process
MAX_SERIAL = 256  # images; starting processes takes longer than scanning so few

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
    if workers < 2 or len(sources) <= MAX_SERIAL:
        yield from (scan_image(source, max_pixels) for source in sources)
        return
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
    context = multiprocessing.get_context(method)
    pool = ProcessPoolExecutor(workers, context, initializer=_start_worker)
    try:
        pending: deque[tuple[int, Future[list[ImageScan]]]] = deque()
        for start in range(0, len(sources), CHUNK):
            pending.append((start, pool.submit(_scan_chunk, sources[start : start + CHUNK], max_pixels)))
            if len(pending) == PREFETCH * workers:
                yield from _result(sources, *pending.popleft())
        for start, future in pending:
            yield from _result(sources, start, future)
    finally:
        pool.shutdown(cancel_futures=True)


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


def _scan_chunk(sources: Sequence[ImageSource], max_pixels: int) -> list[ImageScan]:
    return [scan_image(source, max_pixels) for source in sources]


def _result(sources: Sequence[ImageSource], start: int, future: Future[list[ImageScan]]) -> list[ImageScan]:
    try:
        return future.result()
    except BrokenProcessPool as error:
        last = sources[min(start + CHUNK * PREFETCH, len(sources)) - 1]
        raise WorkerLostError(
            f"a process died while scanning an image between {sources[start]} and {last}: out of memory, or the file "
            "crashed the decoder. -j 1 scans them one by one."
        ) from error


def _start_worker() -> None:
    """Leaves Ctrl-C to the parent process, and exits if the parent is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)
