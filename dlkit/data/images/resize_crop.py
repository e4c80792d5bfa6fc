"""Which part of a decoded image a network sees, and at what size: pixels as it expects them, (C, H, W) bytes.

Eval and predict see the centre; training with resized crops sees random parts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image

from dlkit.specs import ImageSpec

Pixels = npt.NDArray[np.uint8]


FAR_ENDS = 256  # an image keeps so many times the length that the network sees of it: 64 MB at 256 pixels a side
LEGACY_FAR_ENDS = 4
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def prepare(image: Image.Image, spec: ImageSpec) -> Pixels:
    """(C, H, W) uint8 as the network expects: resized to cover (height / crop, width / crop), then center cropped.

    The aspect is kept, the longer side truncated to whole pixels, and the resizing antialiased, as by torchvision's
    Resize and CenterCrop of PIL images. legacy_resize is what earlier versions did: see ImageSpec.
    """
    if spec.is_prepared(*image.size):
        return pixels(image)
    target = round(spec.width / spec.crop), round(spec.height / spec.crop)
    image = _covering(image, target, spec.legacy_resize, FILTERS[spec.interpolation])
    left, top = round((image.width - spec.width) / 2), round((image.height - spec.height) / 2)
    return pixels(image.crop((left, top, left + spec.width, top + spec.height)))


def shrink(image: Image.Image, side: int) -> Pixels:
    """(C, H, W) of the whole image, its shorter side at most `side` long; very long ends are cut off."""
    target = (side, side)
    return pixels(_covering(image, target) if min(image.size) > side else _without_far_ends(image, target, FAR_ENDS))


def random_resized_crop(
    image: Image.Image, spec: ImageSpec, area: tuple[float, float], numbers: Iterator[float]
) -> Pixels:
    """(C, H, W) uint8 of a random part of the image, `area` of it, aspect 3:4 to 4:3, resized to the network's size.

    Szegedy et al., "Going deeper with convolutions", 2015, section 6.
    """
    box = random_box(image.width, image.height, area, numbers)
    # cropped first: a box given to resize would let the pixels around it into the edges
    return pixels(image.crop(box).resize((spec.width, spec.height), FILTERS[spec.interpolation]))


def crop_draft(spec: ImageSpec, area: tuple[float, float]) -> tuple[int, int]:
    """The draft at which the smallest random part still has four pixels for each that the network sees of it."""
    return (math.ceil(2 * spec.width / math.sqrt(area[0])), math.ceil(2 * spec.height / math.sqrt(area[0])))


def random_box(
    width: int, height: int, area: tuple[float, float], numbers: Iterator[float]
) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a random part: `area` of the whole, aspect 3:4 to 4:3, by numbers in [0, 1)."""
    least, most = area
    for _ in range(10):
        wanted = width * height * (least + next(numbers) * (most - least))
        aspect = math.exp((2 * next(numbers) - 1) * math.log(4 / 3))
        w, h = round(math.sqrt(wanted * aspect)), round(math.sqrt(wanted / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(next(numbers) * (width - w + 1)), int(next(numbers) * (height - h + 1))
            return left, top, left + w, top + h
    # Too long for any such part: the largest one in the centre.
    w = max(1, min(width, round(height * 4 / 3)))
    h = max(1, min(height, round(width * 4 / 3)))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def _covering(
    image: Image.Image,
    target: tuple[int, int],
    legacy: bool = False,
    filter: Image.Resampling = Image.Resampling.BILINEAR,
) -> Image.Image:
    """The image resized until it just covers (width, height), less its far ends."""
    image = _without_far_ends(image, target, LEGACY_FAR_ENDS if legacy else FAR_ENDS)
    if legacy:
        scale = max(target[0] / image.width, target[1] / image.height)
        width, height = (max(side, round(scale * length)) for side, length in zip(target, image.size, strict=True))
    else:
        area = max(target[0] * image.height, target[1] * image.width)
        width, height = area // image.height, area // image.width
    # One side after the other, the order being that of Pillow 13, which earlier versions choose differently.
    tall = image.height > 2 * image.width and height < image.height and not legacy
    first = (image.width, height) if tall else (width, image.height)
    return image.resize(first, filter).resize((width, height), filter)


def _without_far_ends(image: Image.Image, target: tuple[int, int], times: int) -> Image.Image:
    """A very long image less what a center crop never sees, so that resizing it cannot take gigabytes."""
    scale = max(target[0] / image.width, target[1] / image.height)
    width = min(image.width, math.ceil(times * target[0] / scale))
    height = min(image.height, math.ceil(times * target[1] / scale))
    if (width, height) == image.size:
        return image
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def pixels(image: Image.Image) -> Pixels:
    """(C, H, W), a copy that may be written to."""
    if image.mode == "L":
        return np.array(image)[None]
    lines = np.frombuffer(image.tobytes("raw", "RGB;L"), np.uint8)  # line by line, of each its red, green and blue
    return lines.reshape(image.height, 3, image.width).transpose(1, 0, 2).copy()
