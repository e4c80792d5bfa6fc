"""A contact sheet: a data set in one figure, with some images of each class, original or augmented."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from dlkit import registry
from dlkit.config.schema import Data, Recipe
from dlkit.data import library
from dlkit.data.images import decode as image_files
from dlkit.data.splits import ImageFiles, MemoryImages
from dlkit.errors import UsageError
from dlkit.plots.style import DPI, check_format, figure, shorten
from dlkit.specs import ImageSpec

COLUMNS = 10
MAX_ROWS = 50  # classes; of more, an evenly spaced selection
MAX_PIXELATED_SIDE, MAX_SIDE = 72, 112  # pixels of smaller images are enlarged as squares; larger images are reduced
GAP = 6
MAX_NAME = 28  # characters

Images = npt.NDArray[np.uint8]  # (N, C, H, W)


def contact_sheet(
    data: Data, path: Path, *, recipe: Recipe | None = None, say: Callable[[str], None] = lambda text: None
) -> None:
    """Draw a row of images for each class of the training split.

    With a recipe, each row is one image: the original, then its augmentations in epochs 1, 2, … of a training with the
    recipe's seed.

    Raises:
        UsageError: the data set has no images, or `path` does not end in .png, .svg or .pdf.
        DataError: an image is damaged.
        StorageError: the disk refuses.
    """
    check_format(path)
    if hasattr(registry.load("datasets", data.name), "GIVES"):
        raise UsageError(f"data set {data.name!r} has no images to draw.")
    splits = library.splits(data, log=say)
    spec, train = splits.spec, splits.train
    assert isinstance(spec, ImageSpec) and isinstance(train, MemoryImages | ImageFiles)
    classes = np.unique(np.linspace(0, len(spec.classes) - 1, MAX_ROWS).round().astype(int))
    if len(classes) < len(spec.classes):
        say(f"{len(classes)} of {len(spec.classes)} classes are drawn.")
    rows = {}
    for target in classes.tolist():
        samples = np.flatnonzero(train.targets == target)
        index = np.unique(samples[np.linspace(0, len(samples) - 1, COLUMNS).round().astype(int)])
        images = _original(train, index, spec) if recipe is None else _augmented(train, index[:1], spec, recipe)
        rows[spec.classes[target]] = images
    title = f"{data.dir or data.name}: " + ("original, then augmented, epoch by epoch" if recipe else "training images")
    _write(rows, title, path)


def _original(samples: MemoryImages | ImageFiles, index: npt.NDArray[np.int64], spec: ImageSpec) -> Images:
    if isinstance(samples, MemoryImages):
        return samples.images[index]
    return np.stack([image_files.load(samples.paths[i], spec) for i in index])


def _augmented(
    samples: MemoryImages | ImageFiles, index: npt.NDArray[np.int64], spec: ImageSpec, recipe: Recipe
) -> Images:
    """The original of one image, then its augmentation in each epoch, with the normalization undone."""
    import torch

    from dlkit.data.images.sources import fetcher
    from dlkit.data.loader import TrainingData

    cpu, augment, seed = torch.device("cpu"), recipe.data.augment, recipe.train.seed
    training = TrainingData(samples, spec, augment, 1, seed, cpu)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (spec.mean, spec.std))
    images = [_original(samples, index, spec)]
    for epoch in range(COLUMNS - 1):
        pixels = torch.from_numpy(images[0])
        if augment.resized_crop is not None:
            (pixels,) = fetcher(samples, spec, cpu, 0, seed, augment.resized_crop)([index], epoch)
        augmented = training.preprocess(pixels, index, epoch) * std + mean  # (1, C, H, W)
        images.append(augmented.mul(255).round().clamp(0, 255).byte().numpy())
    return np.concatenate(images)


def _write(rows: dict[str, Images], title: str, path: Path) -> None:
    sheet = _sheet(list(rows.values()))
    with figure(path, sheet.shape[1] / DPI, sheet.shape[0] / DPI) as drawing:
        axes = drawing.subplots()
        axes.imshow(sheet, interpolation="nearest")
        axes.set_title(title)
        height = len(sheet) // len(rows)
        axes.set_yticks([(row + 0.5) * height for row in range(len(rows))], [shorten(name, MAX_NAME) for name in rows])
        axes.set_xticks([])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.grid(False)


def _sheet(rows: list[Images]) -> npt.NDArray[np.uint8]:  # (H, W, 3)
    """The images of each row side by side, on white."""
    width, height = _side(rows[0].shape[-2:])
    sheet = np.full((len(rows) * (height + GAP), COLUMNS * (width + GAP), 3), 255, np.uint8)
    for row, images in enumerate(rows):
        for column, pixels in enumerate(images):
            top, left = row * (height + GAP), column * (width + GAP)
            sheet[top : top + height, left : left + width] = np.asarray(_tile(pixels, (width, height)))
    return sheet


def _side(shape: tuple[int, ...]) -> tuple[int, int]:
    """Width and height of an image on the sheet."""
    longest = max(shape)
    factor = max(1, MAX_PIXELATED_SIDE // longest) if longest <= MAX_PIXELATED_SIDE else min(1.0, MAX_SIDE / longest)
    return round(shape[1] * factor), round(shape[0] * factor)


def _tile(pixels: npt.NDArray[np.uint8], side: tuple[int, int]) -> Image.Image:  # (C, H, W)
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    enlarged = side[0] >= image.width
    return image.resize(side, Image.Resampling.NEAREST if enlarged else Image.Resampling.BILINEAR).convert("RGB")
