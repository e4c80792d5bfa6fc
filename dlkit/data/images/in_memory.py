"""Images that a program has in memory: PIL images, NumPy arrays and tensors, as files that the one loader decodes.

So they are treated like any file: EXIF orientation, 16 bits, transparency, palettes. Arrays are (H, W) or (H, W, C),
tensors (H, W) or (C, H, W), with 1, 3 or 4 channels; a fourth dimension in front is a batch. They hold uint8, or
fractions in [0, 1].
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from dlkit.errors import UsageError

PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")


def is_in_memory(value: Any) -> bool:
    """Whether this is an image or a batch of images, without importing torch to ask."""
    return isinstance(value, Image.Image | np.ndarray) or _is_tensor(value)


def files(value: Any) -> Iterator[bytes]:
    """The bytes of a file for each image, without loss.

    Raises:
        UsageError: it has another shape or other values than an image.
    """
    if isinstance(value, Image.Image):
        yield _file(value)
        return
    array = np.asarray(value.detach().cpu().movedim(-3, -1) if _is_tensor(value) and value.ndim > 2 else value)
    for image in array if array.ndim == 4 else [array]:
        yield _file(Image.fromarray(_bytes(image)))


def _file(image: Image.Image) -> bytes:
    content = io.BytesIO()
    if image.mode in PNG_MODES:
        image.save(content, "PNG", compress_level=0, exif=image.getexif())
    else:
        image.save(content, "TIFF")
    return content.getvalue()


def _bytes(array: Any) -> Any:
    """(H, W) or (H, W, C) uint8."""
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 3, 4) or 0 in array.shape:
        raise UsageError(
            f"an image of shape {array.shape}: arrays are (H, W) or (H, W, C), tensors (C, H, W), with 1, 3 or 4 "
            "channels."
        )
    if array.dtype != np.uint8:
        if not np.issubdtype(array.dtype, np.floating) or not 0 <= array.min() <= array.max() <= 1:
            raise UsageError(f"an image of {array.dtype}: it takes uint8, or fractions from 0 to 1.")
        array = (array.astype(np.float64) * 255).round().astype(np.uint8)
    return np.ascontiguousarray(array[..., 0] if array.ndim == 3 and channels == 1 else array)


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)
