"""Augmentation of a batch of images as batched tensor operations on its device.

Each operation draws its numbers with `draw(name)`, a function of (seed, epoch, sample index): see dlkit.data.rng.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from dlkit.config.schema import Augment

Draw = Callable[[str], Tensor]  # name → (N,) float32 in [0, 1), on the images' device

ERASED_AREA = (0.02, 1 / 3)  # Zhong et al. 2017, random erasing: minimum and maximum fraction
ERASED_ASPECT = 0.3  # height / width between this and its inverse


def move_pixels(images: Tensor, augment: Augment, draw: Draw) -> Tensor:
    """Crop and flip images (N, C, H, W) of any type; uint8 is fastest."""
    if augment.crop_padding:
        images = random_crop(images, augment.crop_padding, draw)
    if augment.horizontal_flip:
        images = random_flip(images, -1, augment.horizontal_flip, draw("horizontal_flip"))
    if augment.vertical_flip:
        images = random_flip(images, -2, augment.vertical_flip, draw("vertical_flip"))
    return images


def change_pixels(images: Tensor, augment: Augment, draw: Draw) -> Tensor:
    """Affine transforms, then color, on images (N, C, H, W) in [0, 1]."""
    if augment.rotation or augment.translate or augment.shear or augment.scale != (1.0, 1.0):
        images = random_affine(images, augment, draw)
    if augment.brightness or augment.contrast or augment.saturation or augment.hue:
        images = color_jitter(images, augment, draw)
    return images


def random_crop(images: Tensor, padding: int, draw: Draw) -> Tensor:
    """Pad with zeros on each side, then crop to the original size at a random position."""
    height, width = images.shape[-2:]
    top = (draw("crop_top") * (2 * padding + 1)).long()
    left = (draw("crop_left") * (2 * padding + 1)).long()
    padded = F.pad(images, (padding, padding, padding, padding))
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (N, C, 2p + 1, 2p + 1, H, W), a view
    return windows[torch.arange(len(images), device=images.device), :, top, left]


def random_flip(images: Tensor, dim: int, probability: float, numbers: Tensor) -> Tensor:
    """Flip each image along `dim` with a probability."""
    both = torch.cat([images, images.flip(dim)])  # copying whole images is faster than torch.where
    index = torch.arange(len(images), device=images.device)
    return both.index_select(0, index + len(images) * (numbers < probability))


def random_affine(images: Tensor, augment: Augment, draw: Draw) -> Tensor:
    """Rotate, scale, shear and translate about the center; pixels outside the image repeat its border."""
    height, width = images.shape[-2:]
    angle = _around_zero(draw("rotation"), math.radians(augment.rotation))
    shear = torch.tan(_around_zero(draw("shear"), math.radians(augment.shear)))
    low, high = augment.scale
    zoom = torch.exp(math.log(low) + draw("scale") * (math.log(high) - math.log(low)))
    shift_x = _around_zero(draw("translate_x"), 2 * augment.translate)  # the grid spans [-1, 1]
    shift_y = _around_zero(draw("translate_y"), 2 * augment.translate)
    cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    aspect = height / width
    # The grid maps output to input positions, so this is the inverse map, in units of half a side.
    row_x = torch.stack([cos, (sin + cos * shear) * aspect, shift_x], dim=1)
    row_y = torch.stack([-sin / aspect, cos - sin * shear, shift_y], dim=1)
    theta = torch.stack([row_x, row_y], dim=1).to(images.dtype)  # (N, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def color_jitter(images: Tensor, augment: Augment, draw: Draw) -> Tensor:
    """Brightness, contrast, saturation and hue, each by a random amount and clamped to [0, 1], as in torchvision.

    Always in this order; torchvision's ColorJitter draws a random one. Gray images have neither saturation nor hue.
    """
    color = images.shape[1] == 3
    if augment.brightness:
        images = (images * _factor(draw("brightness"), augment.brightness)).clamp(0, 1)
    if augment.contrast:
        mean = _gray(images).mean(dim=(1, 2, 3), keepdim=True)
        images = _blend(images, mean, _factor(draw("contrast"), augment.contrast))
    if augment.saturation and color:
        images = _blend(images, _gray(images), _factor(draw("saturation"), augment.saturation))
    if augment.hue and color:
        images = rotate_hue(images, _around_zero(draw("hue"), augment.hue))
    return images


def rotate_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Rotate the hue of HSV by `turns` (N,) of a circle; saturation and value (the largest channel) stay the same."""
    red, green, blue = torch.split(images, 1, dim=1)  # (N, 1, H, W) each
    value = images.amax(dim=1, keepdim=True)
    chroma = value - images.amin(dim=1, keepdim=True)
    divisor = chroma.where(chroma > 0, 1.0)
    blue_or_green = torch.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor)
    hue = torch.where(value == red, (green - blue) / divisor, blue_or_green)  # in sixths of the circle
    hue = hue + 6 * turns.to(images)[:, None, None, None]
    channel = (hue + torch.tensor([5, 3, 1], device=images.device)[:, None, None]) % 6  # (N, 3, H, W)
    return value - chroma * torch.minimum(channel, 4 - channel).clamp(0, 1)


def erase(images: Tensor, probability: float, draw: Draw) -> Tensor:
    """Random erasing (Zhong et al. 2017) on normalized images: a box of zeros, the mean color."""
    height, width = images.shape[-2:]
    low, high = ERASED_AREA
    area = (low + draw("erase_area") * (high - low)) * height * width
    aspect = torch.exp(_around_zero(draw("erase_aspect"), -math.log(ERASED_ASPECT)))
    box_height = (area * aspect).sqrt().clamp(1, height).round()
    box_width = (area / aspect).sqrt().clamp(1, width).round()
    top = (draw("erase_top") * (height - box_height + 1)).floor()
    left = (draw("erase_left") * (width - box_width + 1)).floor()
    rows = torch.arange(height, device=images.device)[None, :]
    columns = torch.arange(width, device=images.device)[None, :]
    in_rows = (rows >= top[:, None]) & (rows < (top + box_height)[:, None])  # (N, H)
    in_columns = (columns >= left[:, None]) & (columns < (left + box_width)[:, None])  # (N, W)
    is_erased = (draw("erase") < probability)[:, None, None]
    box = in_rows[:, :, None] & in_columns[:, None, :] & is_erased
    return images.masked_fill(box[:, None], 0.0)


def apply_policy(images: Tensor, policy: str, seeds: list[int]) -> Tensor:
    """TrivialAugment or RandAugment of torchvision on uint8 images, one by one, each with its own seed."""
    from torchvision.transforms import v2

    transform = v2.TrivialAugmentWide() if policy == "trivial" else v2.RandAugment()
    with torch.random.fork_rng(devices=[]):
        augmented = []
        for image, seed in zip(images, seeds, strict=True):
            torch.manual_seed(seed)
            augmented.append(transform(image))
    return torch.stack(augmented)


def _gray(images: Tensor) -> Tensor:
    if images.shape[1] == 1:
        return images
    weights = torch.tensor([0.2989, 0.587, 0.114], dtype=images.dtype, device=images.device)  # torchvision's luma
    return (images * weights[None, :, None, None]).sum(dim=1, keepdim=True)


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return (other + (images - other) * factor).clamp(0, 1)


def _around_zero(numbers: Tensor, extent: float) -> Tensor:
    return (2 * numbers - 1) * extent


def _factor(numbers: Tensor, extent: float) -> Tensor:
    return (1 + _around_zero(numbers, extent)).clamp(min=0)[:, None, None, None]
