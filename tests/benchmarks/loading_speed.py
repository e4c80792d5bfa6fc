"""Loading alone, images a second: `python tests/benchmarks/loading_speed.py DIR [--images N] [--large N] [--rounds R]`.

DIR holds class folders of small JPEG files, such as CIFAR-10's 50,000. An epoch of batches of 128 over them, shuffled,
cropped after padding by 4, mirrored and normalised, by

    torchvision    ImageFolder, RandomCrop, RandomHorizontalFlip, ToTensor, Normalize, DataLoader
    folder         dlkit's TrainingData over the same folder: its first epoch, which decodes
    folder, later  the epochs after it
    packed         the same over what `dlkit dataset pack` made of the folder

and again at 224 pixels over N photographs of 500 × 375 (made up here, each with three links to it), with random
resized crops and mirroring; the pack holds them with a shorter side of 256. Two worker processes each. The ways take
turns, ROUNDS times; the medians of the ratios to torchvision within a round are what counts.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from dlkit.config.schema import Augment, Data
from dlkit.data import library
from dlkit.data.images.pack import pack
from dlkit.data.loader import TrainingData
from dlkit.data.splits import Samples
from dlkit.training import memory

BATCH, WORKERS = 128, 2
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GRAIN = 15  # of made-up photographs: at this their files are as large as ImageNet's, about 100 kB
COPIES = 4  # links to each made-up photograph: decoded anew each time
SMALL = Augment(crop_padding=4, horizontal_flip=0.5)
LARGE = Augment(resized_crop=(0.08, 1.0), horizontal_flip=0.5)


def torchvision_epoch(folder: Path, size: int) -> Callable[[], Iterable[Any]]:
    from torchvision import datasets, transforms

    first = transforms.RandomCrop(32, padding=4) if size == 32 else transforms.RandomResizedCrop(size)
    rest = [transforms.RandomHorizontalFlip(), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    images = datasets.ImageFolder(folder, transforms.Compose([first, *rest]))
    return lambda: torch.utils.data.DataLoader(images, BATCH, shuffle=True, num_workers=WORKERS)


def dlkit_data(place: Path, size: int) -> tuple[Samples, Any]:
    name, settings = ("packed", {}) if place.is_file() else ("folder", {"size": size})
    found = library.splits(Data.model_validate({"name": name, "dir": str(place), **settings}))
    return found.train, found.spec


def dlkit_epochs(place: Path, size: int) -> Callable[[], Iterable[Any]]:
    """Each call gives the next epoch's batches."""
    samples, spec = dlkit_data(place, size)
    augment = SMALL if size == 32 else LARGE
    data = TrainingData(samples, spec, augment, BATCH, seed=0, device=torch.device("cpu"), workers=WORKERS)
    numbers = iter(range(100))
    return lambda: data.epoch(next(numbers))


def speed(batches: Iterable[Any]) -> float:
    """Images a second."""
    images, started = 0, time.perf_counter()
    for batch in batches:
        inputs = batch[0] if isinstance(batch, list) else batch.inputs
        assert inputs.dtype == torch.float32
        images += len(inputs)
    return images / (time.perf_counter() - started)


def compared(title: str, folder: Path, packed: Path, size: int, rounds: int) -> None:
    found: dict[str, list[float]] = {}
    theirs, from_pack = torchvision_epoch(folder, size), dlkit_epochs(packed, size)
    for _ in range(rounds):
        from_folder = dlkit_epochs(folder, size)  # anew, so that nothing of it is in memory yet
        ways = [("torchvision", theirs), ("folder", from_folder), ("packed", from_pack)]
        if size == 32:
            ways.insert(2, ("folder, later", from_folder))
        for way, epoch in ways:
            found.setdefault(way, []).append(speed(epoch()))
    for way, speeds in found.items():
        ratios = [one / base for one, base in zip(speeds, found["torchvision"], strict=True)]
        span = f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(f"{title}  {way:14} {statistics.median(speeds):9,.0f}/s  {statistics.median(ratios):6.2f} × ({span})")


def linked(folder: Path, count: int, target: Path) -> Path:
    """A folder of links to `count` of the files, of each class its share."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    for label in classes:
        (target / label.name).mkdir(parents=True)
        for path in sorted(label.iterdir())[: -(-count // len(classes))]:
            (target / label.name / path.name).symlink_to(path.absolute())
    return target


def photographs(count: int, folder: Path) -> Path:
    """Made-up JPEG files of 500 × 375, about as large as photographs are."""
    rng = np.random.default_rng(0)
    for number in range(0, count, COPIES):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize(
            (500, 375), Image.Resampling.BICUBIC
        )
        grain = rng.normal(0, GRAIN, (375, 500, 1)).astype(np.float32)
        place = folder / f"class{number // COPIES % 4}"
        place.mkdir(parents=True, exist_ok=True)
        path = place / f"{number:05}.jpg"
        Image.fromarray((np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8)).save(path, quality=90)
        for copy in range(1, COPIES):
            (place / f"{number + copy:05}.jpg").symlink_to(path.name)
    return folder


def packed_at(folder: Path, size: int, side: int | None) -> Path:
    path = folder.with_suffix(".pack")
    pack(Data(name="folder", dir=str(folder), size=size), path, side=side)
    print(f"{path.name}: {path.stat().st_size / 1e6:,.0f} MB", flush=True)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description="See the head of this file.")
    parser.add_argument("folder", type=Path, help="class folders of small JPEG files")
    parser.add_argument("--images", type=int, default=50_000, help="of these, how many; 0: none")
    parser.add_argument("--large", type=int, default=4096, help="made-up photographs; 0: none")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    memory.keep_freed()  # as train does
    with tempfile.TemporaryDirectory() as temporary:
        if given.images:
            folder = linked(given.folder, given.images, Path(temporary) / "small")
            compared("32 pixels", folder, packed_at(folder, 32, None), 32, given.rounds)
        if given.large:
            folder = photographs(given.large, Path(temporary) / "large")
            compared("224 pixels", folder, packed_at(folder, 224, 256), 224, given.rounds)


if __name__ == "__main__":
    main()
