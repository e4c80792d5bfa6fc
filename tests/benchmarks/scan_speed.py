"""Scanning a folder of images: `python tests/benchmarks/scan_speed.py [--images N] [--workers J] [--rounds R]`.

N made-up JPEG files, one in ten of 500 × 375 pixels, the others of 160 × 120, are decoded by

    alone     the program's own process
    forked    a pool of forked processes, with 64 images to a message: not used, as a fork beside threads can hang
    helpers   dlkit's scan_images, whose processes are started by exec, with what their start costs

The ways take turns, R times. Printed are the medians of the seconds and of the CPU seconds of all processes, and of
their ratios to `forked` within a round.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from dlkit.data.checks.scan import ImageScan, scan_image, scan_images

CHUNK = 64


def make_folder(folder: Path, count: int) -> list[Path]:
    rng = np.random.default_rng(0)
    for number in range(count):
        image = Image.fromarray(rng.integers(0, 255, (16, 21, 3), np.uint8))
        size = (160, 120) if number % 10 else (500, 375)
        image.resize(size, Image.Resampling.BICUBIC).save(folder / f"{number:06}.jpg", quality=90)
    return sorted(folder.iterdir())


def scan_chunk(files: Sequence[Path]) -> list[ImageScan]:
    return [scan_image(path) for path in files]


def forked(files: Sequence[Path], workers: int) -> list[ImageScan]:
    chunks = [files[start : start + CHUNK] for start in range(0, len(files), CHUNK)]
    with ProcessPoolExecutor(workers, multiprocessing.get_context("fork")) as pool:
        return [scan for chunk in pool.map(scan_chunk, chunks) for scan in chunk]


def cpu_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def measure(scan: Callable[[], Sequence[ImageScan]], expected: int) -> tuple[float, float]:
    begun, before = time.perf_counter(), cpu_seconds()
    found = scan()
    assert len(found) == expected and not any(one.problem for one in found)
    return time.perf_counter() - begun, cpu_seconds() - before


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = make_folder(Path(folder), given.images)
        ways: dict[str, Callable[[], Sequence[ImageScan]]] = {
            "alone": lambda: list(scan_images(files, 1)),
            "forked": lambda: forked(files, given.workers),
            "helpers": lambda: list(scan_images(files, given.workers)),
        }
        rounds = [{name: measure(way, len(files)) for name, way in ways.items()} for _ in range(given.rounds)]
    print(f"{given.images} images, {given.workers} processes, {given.rounds} rounds: seconds, CPU seconds, ratios")
    for name in ways:
        medians = [statistics.median(one[name][place] for one in rounds) for place in (0, 1)]
        ratios = [statistics.median(one[name][place] / one["forked"][place] for one in rounds) for place in (0, 1)]
        print(f"{name:8} {medians[0]:6.2f} {medians[1]:6.2f}   {ratios[0]:5.2f} {ratios[1]:5.2f}")


if __name__ == "__main__":
    main()
