"""The one image loader: from a file or its bytes to pixels, by the same rules in every verb.

PNG, JPEG, WebP, AVIF, BMP, GIF, TIFF and PPM are told apart by their content, never by their name; so is HEIC, which
needs the extra `heif`. EXIF orientation is
applied; 16-bit gray is scaled (v / 257); alpha is composited on white; CMYK, palette and 1-bit images become RGB or
gray; of an animation the first frame is taken. Float images are refused, and so is what is larger than 50 megapixels
or 20,000 pixels a side, from the header alone; data.max_pixels moves both limits in proportion. `decode` never waits: a
named pipe or a device is refused.
"""

from __future__ import annotations

import functools
import importlib.util
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

# Each allowed format's plugin is imported by name: Pillow would otherwise import all of its sixty to look for one.
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from dlkit.data.images.packed import PackedImage
from dlkit.data.images.resize_crop import Pixels, prepare, shrunk
from dlkit.data.images.truncation import is_cut
from dlkit.data.splits import ImageSource
from dlkit.errors import DataError, StorageError
from dlkit.specs import MAX_PIXELS as MAX_PIXELS
from dlkit.specs import ImageSpec

MAX_SIDE = 20_000  # pixels, of images of up to MAX_PIXELS; for more in proportion
READ_WHOLE = 1 << 20  # bytes; a file up to this size is read in one go
FORMATS = "PNG, JPEG, WebP, AVIF, BMP, GIF, TIFF, PPM"
# What to look for in a folder; what a file holds decides in the end.
EXTENSIONS = frozenset(
    {".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".heic", ".heif", ".hif"}
)

_PLUGINS = (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
_ORIENTATION = 0x0112  # the EXIF and TIFF tag
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_FOREIGN = {
    b"%!PS": "EPS",
    b"\xc5\xd0\xd3\xc6": "EPS",
    b"%PDF": "PDF",
    b"SIMPLE  =": "FITS",
    b"8BPS": "PSD",
    b"<svg": "SVG",
    b"<?xml": "SVG",
    b"\0\0\1\0": "ICO",
    b"\0\0\0\x0cjP": "JPEG 2000",
    b"\xff\x0a": "JPEG XL",
}
_AVIF, _HEIF = (b"avif", b"avis"), (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_ANIMATED = ("GIF", "PNG", "WEBP", "TIFF", "AVIF", "HEIF")
_BROKEN_EXIF = "its EXIF block is broken and was ignored."
_header_lock = threading.Lock()


class UnsupportedImageError(DataError):
    """An image that may be a good one, though dlkit does not read it: too large, or of a format that it lacks."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of its image, before anything is done to it; format and mode by Pillow's names."""

    format: str
    mode: str
    width: int  # pixels, as stored
    height: int
    orientation: int  # EXIF's, 1 to 8; 1 is upright, and stands for what EXIF does not define
    alpha: bool  # some pixels may be transparent


def load(source: ImageSource | bytes, spec: ImageSpec, *, notes: list[str] | None = None) -> Pixels:
    """An image as eval and predict see it: decoded, then prepared; (C, H, W) uint8.

    Of a pack it may be prepared already. With legacy_resize, a large JPEG is decoded at a fraction of its size, never
    below twice what the network sees.
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
    """The upright image, mode "L" for one channel or "RGB" for three.

    draft is a (width, height) that a JPEG may be shrunk towards while it is decoded, never below it. What was
    forgiven (an animation, a broken EXIF block, a single pixel) is added to `notes`, a line each.

    Raises:
        DataError: not an image that dlkit reads, or damaged, or too large; the message names the path.
        StorageError: the file may not be read.
    """
    return examine(source, channels, draft=draft, notes=notes, max_pixels=max_pixels)[0]


def examine(
    source: ImageSource | bytes,
    channels: int,
    *,
    draft: tuple[int, int] | None = None,
    notes: list[str] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> tuple[Image.Image, Header]:
    """What `decode` gives, and what the file said of it."""
    name = "the image" if isinstance(source, bytes) else str(source)
    found: list[str] = []
    try:
        with _opened(source) as file, _open_image(file, found, max_pixels) as image:
            check_size(image.size, max_pixels)
            _note_frames(image, found)
            format, mode, (width, height) = image.format or "", image.mode, image.size
            if draft is not None and min(width, height) >= 2 * max(draft):  # else it changes nothing, but takes time
                image.draft(None, (max(draft), max(draft)))  # square, because EXIF may turn the image later
            _load_pixels(image, file)
            orientation = _orientation(image, found)
            header = Header(format, mode, width, height, orientation, image.has_transparency_data)
            turn = _UPRIGHT.get(orientation)
            flat = _flatten(image, channels)
    except (DataError, StorageError, MemoryError) as error:
        if isinstance(error, MemoryError):
            raise
        raise type(error)(f"{name}: {error}") from error
    except Exception as error:  # hostile bytes may raise anything inside Pillow
        if _lacks(error):
            raise UnsupportedImageError(f"{name}: this kind of image cannot be read: {_reason(error)}.") from error
        raise DataError(f"{name}: the image is damaged: {_reason(error)}.") from error
    if notes is not None:
        notes.extend(f"{name}: {note}" for note in found)
    return flat if turn is None else flat.transpose(turn), header


def read(source: ImageSource) -> bytes:
    """The bytes of an image's file; a named pipe, a device or an empty file is refused as by `decode`, without waiting.

    Raises:
        DataError, StorageError: the message names the path.
    """
    try:
        with _opened(source) as file:
            return file.read()
    except (DataError, StorageError) as error:
        raise type(error)(f"{source}: {error}") from error
    except OSError as error:
        raise StorageError(f"{source}: cannot be read: {error.strerror or error}.") from error


def whole(source: ImageSource | bytes, channels: int, side: int, max_pixels: int = MAX_PIXELS) -> Pixels:
    """(C, H, W) of a whole image, its shorter side made `side` long where it is longer; very long ends are cut off.

    Prepared for a network that cuts its images from that side, it is what `load` gives.
    """
    return shrunk(decode(source, channels, max_pixels=max_pixels), side)


@contextmanager
def _opened(source: ImageSource | bytes) -> Iterator[IO[bytes]]:
    """The source as an open file. Opened without waiting, so that a pipe is seen to be one."""
    if not isinstance(source, Path):
        content = source if isinstance(source, bytes) else source.read()
        if not content:
            raise DataError("the image is empty.")
        yield io.BytesIO(content)
        return
    try:
        descriptor = os.open(source, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise _cannot_open(source, error) from error
    with open(descriptor, "rb", buffering=0) as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            pipe = "pipe or a device. Pipe it in: --stdin-image < PIPE"
            raise UnsupportedImageError(f"not a file but a {'folder' if stat.S_ISDIR(status.st_mode) else pipe}.")
        if status.st_size == 0:
            raise DataError("the file is empty.")
        small = status.st_size <= READ_WHOLE  # Pillow asks for a header's few bytes at a time
        yield io.BytesIO(file.read(status.st_size)) if small else io.BufferedReader(file)


def _cannot_open(path: Path, error: OSError) -> DataError | StorageError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return UnsupportedImageError("the link points to nothing." if os.path.islink(path) else "no such file.")
    if isinstance(error, IsADirectoryError):
        return UnsupportedImageError("not a file but a folder.")
    return StorageError(f"cannot be read: {error.strerror or error}.")


def _open_image(file: IO[bytes], notes: list[str], max_pixels: int) -> Image.Image:
    """Read the header. Pillow's warnings stay here, but that on EXIF, which it reads for the resolution."""
    kind = _kind(file.read(1024))
    file.seek(0)
    if kind == "HEIF":
        _need_heif()
    try:
        with _header_lock, warnings.catch_warnings(record=True) as complaints:  # swaps a global: one thread at a time
            warnings.simplefilter("always")
            if Image.MAX_IMAGE_PIXELS is not None and max_pixels > Image.MAX_IMAGE_PIXELS:
                Image.MAX_IMAGE_PIXELS = max_pixels  # data.max_pixels allows more than Pillow does by itself
            image = Image.open(file, formats=(kind,))
        notes.extend({_BROKEN_EXIF for complaint in complaints if "EXIF" in str(complaint.message)})
        return image
    except Image.DecompressionBombError:
        raise UnsupportedImageError(_too_large(max_pixels)) from None
    except UnidentifiedImageError:
        if kind in ("PNG", "JPEG", "GIF") or is_cut(kind, file):
            raise DataError(f"the image is damaged: its {kind} header cannot be read.") from None
        raise UnsupportedImageError(f"its {kind} header cannot be read: it is damaged, or of a rare kind.") from None


@functools.cache
def _need_heif() -> None:
    """Have Pillow read HEIC."""
    if importlib.util.find_spec("pillow_heif") is None:
        raise UnsupportedImageError("HEIC needs pillow-heif: python -m pip install 'dlkit[heif]'. Or convert it.")
    importlib.import_module("pillow_heif").register_heif_opener(thumbnails=False)


def _load_pixels(image: Image.Image, file: IO[bytes]) -> None:
    if image.format != "TIFF":
        image.load()
        return
    from dlkit.data.images import tiff

    tiff.check_strips(image, file)
    with tiff.complaints_refused():
        image.load()


def _lacks(error: Exception) -> bool:
    """Whether Pillow says of an image that it cannot read its kind, not that it is damaged."""
    if isinstance(error, KeyError):  # of a TIFF's compressions
        return True
    return bool(re.search("not available|not supported|unsupported|not implemented", str(error), re.IGNORECASE))


def _kind(head: bytes) -> str:
    """Pillow's name for the format that these first bytes announce."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "TIFF"
    if head.startswith(b"BM"):
        return "BMP"
    if head[:1] == b"P" and head[1:2] in (b"1", b"2", b"3", b"4", b"5", b"6", b"f", b"F") and head[2:3].isspace():
        return "PPM"
    if head[4:8] == b"ftyp":
        return _kind_of_container(head)
    raise _not_an_image(head)


def _kind_of_container(head: bytes) -> str:
    """AVIF or HEIF, by the brands that a file of boxes begins with."""
    size = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[8:12], *(head[start : start + 4] for start in range(16, size, 4))}
    if brands & set(_AVIF):
        return "AVIF"
    if brands & set(_HEIF):
        return "HEIF"
    raise UnsupportedImageError(f"video is not a format that dlkit reads. Convert it to one of {FORMATS}.")


def _not_an_image(head: bytes) -> DataError:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")) or b"<html" in text:
        return DataError("not an image but a web page? It starts like HTML; fetch the file again.")
    for magic, name in _FOREIGN.items():
        if head.startswith(magic) or text.startswith(magic):
            return UnsupportedImageError(f"{name} is not a format that dlkit reads. Convert it to one of {FORMATS}.")
    return DataError(f"not an image that dlkit reads ({FORMATS}).")


def check_size(size: tuple[int, int], max_pixels: int) -> None:
    """Raises: DataError where an image of this width and height is none, or larger than data.max_pixels allows."""
    width, height = size
    if width < 1 or height < 1:
        raise DataError(f"the image has no pixels: {width} × {height}.")
    if width * height > max_pixels or max(size) > _max_side(max_pixels):
        raise UnsupportedImageError(_too_large(max_pixels, f"; it is {width:,} × {height:,}"))


def _max_side(max_pixels: int) -> int:
    return MAX_SIDE * max_pixels // MAX_PIXELS


def _too_large(max_pixels: int, found: str = "") -> str:
    limits = f"above {max_pixels / 10**6:,g} megapixels or {_max_side(max_pixels):,} pixels a side"
    return f"the image is too large: {limits}{found}. data.max_pixels allows more."


def _note_frames(image: Image.Image, notes: list[str]) -> None:
    if image.size == (1, 1):
        notes.append("the image is a single pixel.")
    if image.format in _ANIMATED and getattr(image, "is_animated", False):
        notes.append("of several frames only the first is used.")


def _orientation(image: Image.Image, notes: list[str]) -> int:
    """How the camera was held, 1 to 8. Asked after loading: a PNG may say it behind its pixels."""
    if "exif" not in image.info and "xmp" not in image.info and image.format not in ("TIFF", "PNG"):
        return 1
    broken = False
    with _header_lock, warnings.catch_warnings(record=True) as complaints:
        warnings.simplefilter("always")
        try:
            value = image.getexif().get(_ORIENTATION, 1)
        except Exception:  # any: the block is a stranger's bytes, and the pixels do not depend on it
            value, broken = 1, True
    if (broken or complaints) and _BROKEN_EXIF not in notes:
        notes.append(_BROKEN_EXIF)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _flatten(image: Image.Image, channels: int) -> Image.Image:
    """Any mode to "L" or "RGB"."""
    mode = "L" if channels == 1 else "RGB"
    if image.mode == mode and "transparency" not in image.info:
        return image
    if image.mode == "F":
        raise UnsupportedImageError(
            "float images are not supported: their range is unknown. Save it with 8 or 16 bits."
        )
    if image.mode.startswith("I"):
        return _eight_bits(image).convert(mode)
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert(mode)


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit gray to 8 bits: round(v / 257), which maps 65,535 to 255."""
    tags = getattr(image, "tag_v2", {})
    if image.mode == "I" and image.format not in ("PNG", "PPM"):  # Pillow gives these two 16 bits in an int32
        raise UnsupportedImageError(
            "32-bit integer images are not supported: their range is unknown. Save it with 8 or 16 bits."
        )
    most = 4095 if tags.get(258) == (12,) else 65535  # BitsPerSample
    values = np.asarray(image).astype(np.uint32)  # (H, W)
    if tags.get(262) == 0:  # PhotometricInterpretation: white is zero
        values = most - values
    return Image.fromarray(((values * 255 + most // 2) // most).clip(0, 255).astype(np.uint8))


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
