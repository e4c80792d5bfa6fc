"""Decode plain JPEG files with torchvision: the same pixels as images.decode, small files in a third of the time.

Both use libjpeg-turbo; each process checks once that the two builds agree. torchvision plans to remove its decoder;
then images.decode decodes all. Only the operator is loaded, since importing torchvision takes a second.

A plain file is complete, has one or three 8-bit components, and no segment that rotates it or changes its colors.
images.decode decodes all others, and those that fail, and explains errors.
"""

from __future__ import annotations

import functools
import importlib.util
import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

END = b"\xff\xd9"
APP0, QUANTIZATION, HUFFMAN, RESTART, COMMENT, SCAN = 0xE0, 0xDB, 0xC4, 0xDD, 0xFE, 0xDA
FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended and progressive
HARMLESS = (APP0, QUANTIZATION, HUFFMAN, RESTART, COMMENT)  # not EXIF, Adobe or ICC


def plain_size(content: bytes, channels: int) -> tuple[int, int] | None:
    """(width, height) of a plain JPEG that needs no color conversion for so many channels, else None."""
    position, size = 2, None
    if content[:2] != b"\xff\xd8" or not content.endswith(END):
        return None
    while position + 10 <= len(content) and content[position] == 0xFF:
        marker = content[position + 1]
        if marker == SCAN:
            return size
        if marker in FRAMES:
            bits, components = content[position + 4], content[position + 9]
            height, width = (int.from_bytes(content[position + offset : position + offset + 2]) for offset in (5, 7))
            if size is not None or bits != 8 or components not in (1, channels) or not width * height:
                return None
            size = width, height
        elif marker not in HARMLESS:
            return None
        position += 2 + int.from_bytes(content[position + 2 : position + 4])
    return None


def decode(content: bytes, channels: int) -> Tensor | None:
    """(C, H, W) uint8 of a plain JPEG, its memory (H, W, C); None if torchvision cannot."""
    try:
        data = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        pixels: Tensor = torch.ops.image.decode_jpeg(data, channels, False)  # ImageReadMode: 1 is gray, 3 is RGB
    except RuntimeError:
        return None
    return pixels


@functools.cache
def agrees() -> bool:
    """Whether torchvision has a decoder and it agrees with Pillow."""
    torchvision = importlib.util.find_spec("torchvision")
    if torchvision is None or torchvision.origin is None:
        return False
    try:
        for library in Path(torchvision.origin).parent.glob("image*.so"):
            torch.ops.load_library(library)  # type: ignore[no-untyped-call]
        _ = torch.ops.image.decode_jpeg
    except (AttributeError, OSError, RuntimeError):
        return False
    noise = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    image = Image.fromarray(noise).resize((83, 61), Image.Resampling.BICUBIC)
    return all(_same(image, subsampling, progressive) for subsampling in (0, 1, 2) for progressive in (False, True))


def _same(image: Image.Image, subsampling: int, progressive: bool) -> bool:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80, subsampling=subsampling, progressive=progressive)
    pixels = decode(file.getvalue(), 3)
    return pixels is not None and np.array_equal(pixels.permute(1, 2, 0).numpy(), np.asarray(Image.open(file)))
