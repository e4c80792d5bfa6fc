"""Resizing and cropping of decoded images to the input of a network, (C, H, W) uint8.

Evaluation uses the center; training with resized crops uses random crops.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image

from dlkit.specs import ImageSpec

Pixels = npt.NDArray[np.uint8]


MAX_LENGTH_RATIO = 256  # of an image to the network's input along it: 64 MB at 256 pixels a side
LEGACY_MAX_LENGTH_RATIO = 4
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def prepare(image: Image.Image, spec: ImageSpec) -> Pixels:
    """(C, H, W) uint8 as the network expects: resized to cover (height / crop, width / crop), then center cropped.

    The aspect is kept, the longer side truncated to whole pixels, and the resizing antialiased, as by torchvision's
    Resize and CenterCrop of PIL images. legacy_resize reproduces earlier versions: see ImageSpec.
    """
    if spec.is_prepared(*image.size):
        return pixels(image)
    target = round(spec.width / spec.crop), round(spec.height / spec.crop)
    image = _resize_to_cover(image, target, spec.legacy_resize, FILTERS[spec.interpolation])
    left, top = round((image.width - spec.width) / 2), round((image.height - spec.height) / 2)
    return pixels(image.crop((left, top, left + spec.width, top + spec.height)))


def shrink(image: Image.Image, side: int) -> Pixels:
    """(C, H, W) of the whole image, its shorter side at most `side` pixels; very long images are cropped."""
    target = (side, side)
    return pixels(
        _resize_to_cover(image, target) if min(image.size) > side else _crop_length(image, target, MAX_LENGTH_RATIO)
    )


def random_resized_crop(
    image: Image.Image, spec: ImageSpec, area: tuple[float, float], numbers: Iterator[float]
) -> Pixels:
    """(C, H, W) uint8: a random crop of a fraction `area`, aspect 3:4 to 4:3, resized to the network's input.

    Szegedy et al., "Going deeper with convolutions", 2015, section 6.
    """
    box = random_box(image.width, image.height, area, numbers)
    # crop first: resize(box=...) would blend pixels outside the box into the edges
    return pixels(image.crop(box).resize((spec.width, spec.height), FILTERS[spec.interpolation]))


def crop_draft(spec: ImageSpec, area: tuple[float, float]) -> tuple[int, int]:
    """The draft size at which the smallest random crop has four pixels per pixel of the network's input."""
    return (math.ceil(2 * spec.width / math.sqrt(area[0])), math.ceil(2 * spec.height / math.sqrt(area[0])))


def random_box(
    width: int, height: int, area: tuple[float, float], numbers: Iterator[float]
) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a random crop, a fraction `area` of the image, aspect 3:4 to 4:3."""
    low, high = area
    for _ in range(10):
        target = width * height * (low + next(numbers) * (high - low))
        aspect = math.exp((2 * next(numbers) - 1) * math.log(4 / 3))
        w, h = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(next(numbers) * (width - w + 1)), int(next(numbers) * (height - h + 1))
            return left, top, left + w, top + h
    # The image is too long for such a crop: use the largest in the center.
    w = max(1, min(width, round(height * 4 / 3)))
    h = max(1, min(height, round(width * 4 / 3)))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def _resize_to_cover(
    image: Image.Image,
    target: tuple[int, int],
    legacy: bool = False,
    filter: Image.Resampling = Image.Resampling.BILINEAR,
) -> Image.Image:
    """The image resized to cover (width, height), cropped first if very long."""
    image = _crop_length(image, target, LEGACY_MAX_LENGTH_RATIO if legacy else MAX_LENGTH_RATIO)
    if legacy:
        scale = max(target[0] / image.width, target[1] / image.height)
        width, height = (max(side, round(scale * length)) for side, length in zip(target, image.size, strict=True))
    else:
        area = max(target[0] * image.height, target[1] * image.width)
        width, height = area // image.height, area // image.width
    # One dimension after the other, in the order of Pillow 13; earlier versions use another order.
    tall = image.height > 2 * image.width and height < image.height and not legacy
    first = (image.width, height) if tall else (width, image.height)
    return image.resize(first, filter).resize((width, height), filter)


def _crop_length(image: Image.Image, target: tuple[int, int], max_ratio: int) -> Image.Image:
    """Crop very long images outside any center crop, so that resizing does not need gigabytes."""
    scale = max(target[0] / image.width, target[1] / image.height)
    width = min(image.width, math.ceil(max_ratio * target[0] / scale))
    height = min(image.height, math.ceil(max_ratio * target[1] / scale))
    if (width, height) == image.size:
        return image
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def pixels(image: Image.Image) -> Pixels:
    """(C, H, W) uint8, a writable copy."""
    if image.mode == "L":
        return np.array(image)[None]
    lines = np.frombuffer(image.tobytes("raw", "RGB;L"), np.uint8)  # per line: red, green, blue
    return lines.reshape(image.height, 3, image.width).transpose(1, 0, 2).copy()
