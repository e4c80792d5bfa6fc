"""A look at every image of a data set: decoded whole, on all cores, in order, a few of them in memory at once."""

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
from dlkit.data.splits import ImageSource
from dlkit.errors import DataError, StorageError, WorkerLostError

SIDE = 8  # pixels of a thumbnail
DRAFT = (128, 128)  # a large JPEG is decoded at a fraction of its size: all of its bytes are read all the same
CHUNK = 64  # files a process takes at once
AHEAD = 4  # chunks a process, in flight
FEW = 256  # files that are not worth starting processes for

Thumbnail = npt.NDArray[np.uint8]  # (8, 8, 3)


@dataclass(frozen=True, slots=True)
class Look:
    """What an image's file holds. Where it cannot be used, only the reason is known."""

    problem: str = ""  # without the file's name
    readable: bool = True  # False where the system refused, so that the file itself may be well
    damaged: bool = False  # for certain: not merely of a kind that dlkit does not read
    header: decode.Header | None = None
    notes: tuple[str, ...] = ()  # what was forgiven
    digest: bytes = b""  # SHA-256
    thumbnail: Thumbnail | None = None


def census(
    sources: Sequence[ImageSource], workers: int | None = None, max_pixels: int = decode.MAX_PIXELS
) -> Iterator[Look]:
    """One Look a source, in their order; by as many processes as there are cores, or `workers`.

    Raises:
        WorkerLostError: a process died over a file; the message names those it may have been.
    """
    workers = _cores() if workers is None else workers
    if workers < 2 or len(sources) <= FEW:
        yield from _look_at(sources, max_pixels)
        return
    starts = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
    context = multiprocessing.get_context(starts)
    pool = ProcessPoolExecutor(workers, context, initializer=_start_worker)
    try:
        waiting: deque[tuple[int, Future[list[Look]]]] = deque()
        for start in range(0, len(sources), CHUNK):
            waiting.append((start, pool.submit(_listed_looks, sources[start : start + CHUNK], max_pixels)))
            if len(waiting) == AHEAD * workers:
                yield from _looks(sources, *waiting.popleft())
        for start, future in waiting:
            yield from _looks(sources, start, future)
    finally:
        pool.shutdown(cancel_futures=True)


def _cores() -> int:
    """As many as this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def look(source: ImageSource, max_pixels: int = decode.MAX_PIXELS) -> Look:
    """Decode an image and note what it is. Nothing is raised: a bad file is an answer too."""
    notes: list[str] = []
    name = f"{source}: "
    try:
        image, header = decode.examine(source, 3, draft=DRAFT, notes=notes, max_pixels=max_pixels)
        content = decode.read(source)
    except (DataError, StorageError) as error:
        readable = not isinstance(error, StorageError)
        damaged = readable and not isinstance(error, decode.UnsupportedImageError)
        return Look(str(error).removeprefix(name), readable, damaged)
    except MemoryError:
        return Look("it does not fit in memory.")
    forgiven = tuple(note.removeprefix(name) for note in notes)
    return Look(header=header, notes=forgiven, digest=hashlib.sha256(content).digest(), thumbnail=thumbnail(image))


def thumbnail(image: Image.Image) -> Thumbnail:
    """An RGB image at 8 × 8 pixels, its aspect given up; by a filter that treats both sides alike, unlike a box."""
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def _look_at(sources: Sequence[ImageSource], max_pixels: int) -> Iterator[Look]:
    return (look(source, max_pixels) for source in sources)


def _listed_looks(sources: Sequence[ImageSource], max_pixels: int) -> list[Look]:
    return list(_look_at(sources, max_pixels))


def _looks(sources: Sequence[ImageSource], start: int, future: Future[list[Look]]) -> list[Look]:
    try:
        return future.result()
    except BrokenProcessPool as error:
        last = sources[min(start + CHUNK * AHEAD, len(sources)) - 1]
        raise WorkerLostError(
            f"a process died while it looked at an image between {sources[start]} and {last}: memory ran out, or the "
            "file brought the decoder down. -j 1 looks at them one after another."
        ) from error


def _start_worker() -> None:
    """Ctrl-C is for the parent, which ends its workers; and should it be killed, they end by themselves."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)
