"""Plain JPEG files decoded by torchvision: the pixels that images.decode gives, and small files in a third of its time.

Both call libjpeg-turbo; whether their builds give the same pixels is asked once a process. torchvision means to drop
its decoder one day: images.decode then does all. The operator is loaded alone, since torchvision takes a second.

Plain is a file that is whole, of one or three components of 8 bits, and has no block that may turn it or change its
colours. Any other, and any that fails, is left to images.decode, which also says what is wrong.
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
HARMLESS = (APP0, QUANTIZATION, HUFFMAN, RESTART, COMMENT)  # none of EXIF, Adobe's and ICC's


def plain_size(content: bytes, channels: int) -> tuple[int, int] | None:
    """(width, height) of a plain JPEG that becomes so many channels without arithmetic on colours, else None."""
    place, found = 2, None
    if content[:2] != b"\xff\xd8" or not content.endswith(END):
        return None
    while place + 10 <= len(content) and content[place] == 0xFF:
        marker = content[place + 1]
        if marker == SCAN:
            return found
        if marker in FRAMES:
            bits, components = content[place + 4], content[place + 9]
            height, width = (int.from_bytes(content[place + at : place + at + 2]) for at in (5, 7))
            if found is not None or bits != 8 or components not in (1, channels) or not width * height:
                return None
            found = width, height
        elif marker not in HARMLESS:
            return None
        place += 2 + int.from_bytes(content[place + 2 : place + 4])
    return None


def decode(content: bytes, channels: int) -> Tensor | None:
    """(C, H, W) uint8 of a plain JPEG, its memory (H, W, C); None where torchvision cannot."""
    try:
        data = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        pixels: Tensor = torch.ops.image.decode_jpeg(data, channels, False)  # its number for gray is 1, for RGB 3
    except RuntimeError:
        return None
    return pixels


@functools.cache
def agrees() -> bool:
    """Whether torchvision is built with a decoder, and it gives Pillow's pixels."""
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
    found = decode(file.getvalue(), 3)
    return found is not None and np.array_equal(found.permute(1, 2, 0).numpy(), np.asarray(Image.open(file)))
