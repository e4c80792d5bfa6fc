"""The image loader of all commands: from a file or its bytes to pixels.

Reads PNG, JPEG, WebP, AVIF, BMP, GIF, TIFF and PPM, and HEIC with the extra `heif`; the content decides, not the file
name. Applies the EXIF orientation, scales 16-bit gray (v / 257), composites alpha on white, converts CMYK, palette and
1-bit images to RGB or gray, and uses the first frame of an animation. Refuses float images and, from the header alone,
images above 50 megapixels or 20,000 pixels a side; data.max_pixels scales both limits. Never blocks: a named pipe or a
device is refused.
"""

from __future__ import annotations

import io
import math
import os
import re
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, UnidentifiedImageError

from dlkit.data.images.formats import EXTENSIONS as EXTENSIONS
from dlkit.data.images.formats import BadImageError, UnsupportedImageError, detect_format, register_heif
from dlkit.data.images.packed import PackedImage
from dlkit.data.images.resize_crop import Pixels, prepare, shrink
from dlkit.data.images.truncation import is_truncated
from dlkit.data.splits import ImageSource
from dlkit.errors import DataError, StorageError
from dlkit.specs import MAX_PIXELS as MAX_PIXELS
from dlkit.specs import ImageSpec

MAX_SIDE = 20_000  # pixels, for images up to MAX_PIXELS; scales with data.max_pixels
MAX_BUFFERED = 1 << 20  # bytes; smaller files are read at once

_ORIENTATION = 0x0112  # the EXIF and TIFF tag
_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ANIMATED = ("GIF", "PNG", "WEBP", "TIFF", "AVIF", "HEIF")
_BROKEN_EXIF = "its EXIF block is broken and was ignored."
_header_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Header:
    """Format, mode and size of an image as stored; format and mode by Pillow's names."""

    format: str
    mode: str
    width: int  # pixels
    height: int
    orientation: int  # EXIF, 1 to 8; 1 (no rotation) for undefined values
    alpha: bool  # some pixels may be transparent


def load(source: ImageSource | bytes, spec: ImageSpec, *, notes: list[str] | None = None) -> Pixels:
    """An image as eval and predict see it: decoded and prepared, (C, H, W) uint8.

    Images of a pack may be prepared already. With legacy_resize, a large JPEG is decoded at a fraction of its size, at
    least twice the network's input.
    """
    if isinstance(source, PackedImage) and source.is_prepared_for(spec):
        return source.part.image(source.row).copy()
    sides = (2 * math.ceil(spec.width / spec.crop), 2 * math.ceil(spec.height / spec.crop))
    draft = sides if spec.legacy_resize else None
    return prepare(decode(source, spec.channels, draft=draft, notes=notes, max_pixels=spec.max_pixels), spec)


def decode(
    source: ImageSource | bytes,
    channels: int,
    *,
    draft: tuple[int, int] | None = None,
    notes: list[str] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Image.Image:
    """The image in its EXIF orientation, mode "L" for one channel or "RGB" for three.

    draft: the (width, height) that a JPEG may be reduced to while decoding, never below it.
    notes: gets a line for each oddity that was tolerated (an animation, a broken EXIF block, a single pixel).

    Raises:
        DataError: not an image that dlkit reads, or damaged, or too large; the message names the path.
        StorageError: no permission to read the file, or an I/O error.
    """
    return decode_with_header(source, channels, draft=draft, notes=notes, max_pixels=max_pixels)[0]


def decode_with_header(
    source: ImageSource | bytes,
    channels: int,
    *,
    draft: tuple[int, int] | None = None,
    notes: list[str] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> tuple[Image.Image, Header]:
    """The result of `decode`, and the image's header."""
    name = "the image" if isinstance(source, bytes) else str(source)
    new_notes: list[str] = []
    try:
        with _open(source) as file, _open_image(file, new_notes, max_pixels) as image:
            check_size(image.size, max_pixels)
            _note_frames(image, new_notes)
            format, mode, (width, height) = image.format or "", image.mode, image.size
            if draft is not None and min(width, height) >= 2 * max(draft):  # else it changes nothing and costs time
                image.draft(None, (max(draft), max(draft)))  # square, because EXIF may turn the image later
            _load_pixels(image, file)
            orientation = _read_orientation(image, new_notes)
            header = Header(format, mode, width, height, orientation, image.has_transparency_data)
            transpose = _TRANSPOSES.get(orientation)
            converted = _convert(image, channels)
    except MemoryError:
        raise
    except (DataError, StorageError) as error:
        raise type(error)(f"{name}: {error}") from error
    except Exception as error:  # hostile bytes may raise anything inside Pillow
        if _is_unsupported(error):
            raise UnsupportedImageError(f"{name}: this kind of image cannot be read: {_reason(error)}.") from error
        raise BadImageError(f"{name}: the image is damaged: {_reason(error)}.") from error
    if notes is not None:
        notes.extend(f"{name}: {note}" for note in new_notes)
    return converted if transpose is None else converted.transpose(transpose), header


def image_size(source: ImageSource, max_pixels: int = MAX_PIXELS) -> tuple[int, int] | None:
    """The (width, height) that an image's header names, before its EXIF rotation; None if it cannot be read."""
    try:
        with _open(source) as file, _open_image(file, [], max_pixels) as image:
            return image.size
    except MemoryError:
        raise
    except Exception:  # whatever Pillow raises; who decodes the image reports it
        return None


def read(source: ImageSource) -> bytes:
    """The bytes of an image's file. Refuses a named pipe, a device or an empty file without blocking, as `decode` does.

    Raises:
        DataError, StorageError: the message names the path.
    """
    try:
        with _open(source) as file:
            return file.read()
    except (DataError, StorageError) as error:
        raise type(error)(f"{source}: {error}") from error
    except OSError as error:
        raise StorageError(f"{source}: cannot be read: {error.strerror or error}.") from error


def load_uncropped(source: ImageSource | bytes, channels: int, side: int, max_pixels: int = MAX_PIXELS) -> Pixels:
    """(C, H, W), the image with its shorter side reduced to at most `side`; only the ends of very long images are cut.

    `load` gives the same pixels if they are prepared for a network that crops from that side.
    """
    return shrink(decode(source, channels, max_pixels=max_pixels), side)


@contextmanager
def _open(source: ImageSource | bytes) -> Iterator[IO[bytes]]:
    """The source as an open file; opened non-blocking, so that a pipe can be refused."""
    if not isinstance(source, Path):
        content = source if isinstance(source, bytes) else source.read()
        if not content:
            raise BadImageError("the image is empty.")
        yield io.BytesIO(content)
        return
    try:
        descriptor = os.open(source, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise _open_error(source, error) from error
    with open(descriptor, "rb", buffering=0) as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            pipe = "pipe or a device. Pipe it in: --stdin-image < PIPE"
            raise UnsupportedImageError(f"not a file but a {'folder' if stat.S_ISDIR(status.st_mode) else pipe}.")
        if status.st_size == 0:
            raise BadImageError("the file is empty.")
        small = status.st_size <= MAX_BUFFERED  # Pillow reads a header a few bytes at a time
        yield io.BytesIO(file.read(status.st_size)) if small else io.BufferedReader(file)


def _open_error(path: Path, error: OSError) -> DataError | StorageError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return UnsupportedImageError("the link points to nothing." if os.path.islink(path) else "no such file.")
    if isinstance(error, IsADirectoryError):
        return UnsupportedImageError("not a file but a folder.")
    return StorageError(f"cannot be read: {error.strerror or error}.")


def _open_image(file: IO[bytes], notes: list[str], max_pixels: int) -> Image.Image:
    """Read the header. Of Pillow's warnings only the one about EXIF, which it reads for the resolution, is kept."""
    format = detect_format(file.read(1024))
    file.seek(0)
    if format == "HEIF":
        register_heif()
    try:
        with _header_lock, warnings.catch_warnings(record=True) as messages:  # swaps a global: one thread at a time
            warnings.simplefilter("always")
            if Image.MAX_IMAGE_PIXELS is not None and max_pixels > Image.MAX_IMAGE_PIXELS:
                Image.MAX_IMAGE_PIXELS = max_pixels  # data.max_pixels may allow more than Pillow's default
            image = Image.open(file, formats=(format,))
        notes.extend({_BROKEN_EXIF for warning in messages if "EXIF" in str(warning.message)})
        return image
    except Image.DecompressionBombError:
        raise UnsupportedImageError(_too_large(max_pixels)) from None
    except UnidentifiedImageError:
        if format in ("PNG", "JPEG", "GIF") or is_truncated(format, file):
            raise BadImageError(f"the image is damaged: its {format} header cannot be read.") from None
        raise UnsupportedImageError(f"its {format} header cannot be read: it is damaged, or of a rare kind.") from None


def _load_pixels(image: Image.Image, file: IO[bytes]) -> None:
    if image.format != "TIFF":
        image.load()
        return
    from dlkit.data.images import tiff

    tiff.check_strips(image, file)
    with tiff.warnings_as_errors():
        image.load()


def _is_unsupported(error: Exception) -> bool:
    """Whether Pillow's error means that it cannot read this kind of image, not that the image is damaged."""
    if isinstance(error, KeyError):  # an unknown TIFF compression
        return True
    return bool(re.search("not available|not supported|unsupported|not implemented", str(error), re.IGNORECASE))


def check_size(size: tuple[int, int], max_pixels: int) -> None:
    """Raises: DataError if an image of this width and height is empty, or larger than data.max_pixels allows."""
    width, height = size
    if width < 1 or height < 1:
        raise BadImageError(f"the image has no pixels: {width} × {height}.")
    if width * height > max_pixels or max(size) > _max_side(max_pixels):
        raise UnsupportedImageError(_too_large(max_pixels, f"; it is {width:,} × {height:,}"))


def _max_side(max_pixels: int) -> int:
    return MAX_SIDE * max_pixels // MAX_PIXELS


def _too_large(max_pixels: int, actual: str = "") -> str:
    limits = f"above {max_pixels / 10**6:,g} megapixels or {_max_side(max_pixels):,} pixels a side"
    return f"the image is too large: {limits}{actual}. data.max_pixels allows more."


def _note_frames(image: Image.Image, notes: list[str]) -> None:
    if image.size == (1, 1):
        notes.append("the image is a single pixel.")
    if image.format in _ANIMATED and getattr(image, "is_animated", False):
        notes.append("of several frames only the first is used.")


def _read_orientation(image: Image.Image, notes: list[str]) -> int:
    """The EXIF orientation, 1 to 8. Called after loading, because a PNG may store it behind its pixels."""
    if "exif" not in image.info and "xmp" not in image.info and image.format not in ("TIFF", "PNG"):
        return 1
    broken = False
    with _header_lock, warnings.catch_warnings(record=True) as messages:
        warnings.simplefilter("always")
        try:
            value = image.getexif().get(_ORIENTATION, 1)
        except Exception:  # any: the block is untrusted, and the pixels do not depend on it
            value, broken = 1, True
    if (broken or messages) and _BROKEN_EXIF not in notes:
        notes.append(_BROKEN_EXIF)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _convert(image: Image.Image, channels: int) -> Image.Image:
    """Any mode to "L" or "RGB"."""
    mode = "L" if channels == 1 else "RGB"
    if image.mode == mode and "transparency" not in image.info:
        return image
    if image.mode == "F":
        raise UnsupportedImageError(
            "float images are not supported: their range is unknown. Save it with 8 or 16 bits."
        )
    if image.mode.startswith("I"):
        return _to_eight_bits(image).convert(mode)
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert(mode)


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """16-bit gray to 8 bits: round(v / 257), which maps 65,535 to 255."""
    tags = getattr(image, "tag_v2", {})
    if image.mode == "I" and image.format not in ("PNG", "PPM"):  # for these two Pillow stores 16 bits in an int32
        raise UnsupportedImageError(
            "32-bit integer images are not supported: their range is unknown. Save it with 8 or 16 bits."
        )
    maximum = 4095 if tags.get(258) == (12,) else 65535  # BitsPerSample
    values = np.asarray(image).astype(np.uint32)  # (H, W)
    if tags.get(262) == 0:  # PhotometricInterpretation: white is zero
        values = maximum - values
    return Image.fromarray(((values * 255 + maximum // 2) // maximum).clip(0, 255).astype(np.uint8))


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
