"""shapes: disk, ring, square, frame, triangle, cross, bar or star; made by code, nothing to download.

Each image shows one shape, wholly inside, at any place and turn, its radius 0.21 to 0.36 of the image's side, in one
colour on another, with Gaussian noise over all. Shape and ground differ by 0.25 to 1 in every channel; light on dark
and dark on light are equally likely, so that brightness alone tells little.

The best reachable accuracy is 1, as near as anyone can measure. The closest two shapes are a square and a frame: in
6,000 random fits to the smallest frames, in place, size, turn and colours, at least 0.25 · √7.8 = 0.70 remained (28
pixels a side, one channel, least contrast), 11 times the noise of 0.06. At that distance the wrong shape fits better
with a probability below 10^-8; a search that comes closer than half of it would still leave it below 10^-2.
A linear classifier on the pixels gets 0.16 right (by chance: 0.125), since every shape is as often light as dark.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from dlkit.data.splits import About, MemoryImages, Splits
from dlkit.errors import UsageError
from dlkit.specs import ImageSpec

CLASSES = ("disk", "ring", "square", "frame", "triangle", "cross", "bar", "star")

ABOUT = About(
    title="Geometric shapes, made by code",
    classes=len(CLASSES),
    sizes={"train": 6000, "test": 1000},
    licence="none needed: the images are computed",
    citation="made by dlkit",
)

RADIUS = (0.21, 0.36)  # of the image's side
CONTRAST = 0.25  # least difference between shape and ground, in each channel

Array = npt.NDArray[Any]  # float32


def load(
    folder: object = None,
    *,
    train: int = 6000,
    test: int = 1000,
    size: int = 28,
    channels: int = 3,
    noise: float = 0.06,
    seed: int = 0,
) -> Splits:
    """Draw both splits from `seed`; the test images do not depend on how many there are to train on."""
    if channels not in (1, 3) or not 8 <= size <= 1024 or not 0 <= noise <= 1 or min(train, test, seed) < 0:
        raise UsageError(
            "data set 'shapes' takes channels 1 or 3, size 8 to 1024, noise 0 to 1, and train, test and seed from 0; "
            f"not channels={channels}, size={size}, noise={noise}, train={train}, test={test}, seed={seed}."
        )
    spec = ImageSpec(channels, size, size, CLASSES, mean=(0.5,) * channels, std=(0.34,) * channels)
    return Splits(
        spec,
        train=draw(train, size, channels, noise, np.random.default_rng([seed, 0])),
        test=draw(test, size, channels, noise, np.random.default_rng([seed, 1])),
    )


def draw(count: int, size: int, channels: int, noise: float, rng: np.random.Generator) -> MemoryImages:
    """`count` images, all classes equally often (to within one), in random order."""
    targets = rng.permutation(np.arange(count, dtype=np.int64) % len(CLASSES))
    radius = rng.uniform(*RADIUS, count).astype(np.float32) * size  # pixels
    centre = radius + rng.random((2, count), np.float32) * (size - 2 * radius)
    turn = rng.random(count, np.float32) * np.float32(2 * np.pi)
    shape = np.empty((count, size, size), np.float32)
    for index, name in enumerate(CLASSES):
        of_class = targets == index
        shape[of_class] = coverage(name, size, centre[:, of_class], radius[of_class], turn[of_class])
    return MemoryImages(_paint(shape, channels, noise, rng), targets)


def coverage(name: str, size: int, centre: Array, radius: Array, turn: Array) -> Array:
    """(N, size, size): the part of each pixel that the shape covers, edges smoothed over one pixel."""
    pixel = np.arange(size, dtype=np.float32) + 0.5
    x = ((pixel[None, :] - centre[0][:, None]) / radius[:, None])[:, None, :]  # (N, 1, W)
    y = ((pixel[None, :] - centre[1][:, None]) / radius[:, None])[:, :, None]  # (N, H, 1)
    cos, sin = np.cos(turn)[:, None, None], np.sin(turn)[:, None, None]
    depth = _DEPTH[name](cos * x + sin * y, cos * y - sin * x)
    covered: Array = np.clip(depth * radius[:, None, None] + np.float32(0.5), 0, 1)
    return covered


def _paint(shape: Array, channels: int, noise: float, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """(N, H, W) coverage to (N, C, H, W) pixels in random colours."""
    count, size, _ = shape.shape
    contrast = rng.uniform(CONTRAST, 1, (count, channels)).astype(np.float32)
    low = rng.random((count, channels), np.float32) * (1 - contrast)
    light = rng.random((count, 1)) < 0.5  # light on dark, in all channels alike
    ground = np.where(light, low, low + contrast)[:, :, None, None]
    step = np.where(light, contrast, -contrast)[:, :, None, None]
    images = rng.standard_normal((count, channels, size, size), np.float32)
    images *= np.float32(noise)
    images += ground
    images += shape[:, None] * step
    images *= 255
    np.rint(images, out=images)
    return np.clip(images, 0, 255, out=images).astype(np.uint8)


# How deep (x, y) lies inside each shape, in units of its radius; negative outside.


def _disk(x: Array, y: Array) -> Array:
    depth: Array = 1 - np.hypot(x, y)
    return depth


def _ring(x: Array, y: Array) -> Array:
    r = np.hypot(x, y)
    depth: Array = np.minimum(1 - r, r - np.float32(0.55))
    return depth


def _square(x: Array, y: Array) -> Array:
    depth: Array = np.float32(0.7) - np.maximum(abs(x), abs(y))
    return depth


def _frame(x: Array, y: Array) -> Array:
    m = np.maximum(abs(x), abs(y))
    depth: Array = np.minimum(np.float32(0.7) - m, m - np.float32(0.35))
    return depth


def _triangle(x: Array, y: Array) -> Array:
    side = np.float32(np.sqrt(3) / 2) * abs(x) + np.float32(0.5) * y
    depth: Array = np.minimum(np.float32(0.5) - side, np.float32(0.5) + y)
    return depth


def _cross(x: Array, y: Array) -> Array:
    return np.maximum(_box(x, y, 0.95, 0.25), _box(x, y, 0.25, 0.95))


def _bar(x: Array, y: Array) -> Array:
    return _box(x, y, 0.95, 0.3)


def _star(x: Array, y: Array) -> Array:
    """Five points: folded to one half of one point, a star is what lies on one side of a line."""
    r, angle = np.hypot(x, y), np.arctan2(x, y)
    tenth = np.float32(np.pi / 5)
    angle = abs((angle + tenth) % (2 * tenth) - tenth)  # 0 at a point, π/5 in a notch
    notch = 0.4 * np.exp(0.2j * np.pi)
    along = (1 - notch) / abs(1 - notch)
    normal_x, normal_y = np.float32(-along.imag), np.float32(along.real)
    depth: Array = (1 - r * np.cos(angle)) * normal_x - r * np.sin(angle) * normal_y
    return depth


def _box(x: Array, y: Array, half_width: float, half_height: float) -> Array:
    depth: Array = np.minimum(np.float32(half_width) - abs(x), np.float32(half_height) - abs(y))
    return depth


_DEPTH: dict[str, Callable[[Array, Array], Array]] = {
    "disk": _disk,
    "ring": _ring,
    "square": _square,
    "frame": _frame,
    "triangle": _triangle,
    "cross": _cross,
    "bar": _bar,
    "star": _star,
}
