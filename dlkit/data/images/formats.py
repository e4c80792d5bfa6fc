"""Image formats by their first bytes; the file name does not matter. Also Pillow's reader for HEIC, an extra."""

from __future__ import annotations

import functools
import importlib.util

# The plugins of the allowed formats, imported by name: to find one, Pillow would import all of its sixty.
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from dlkit.errors import DataError

FORMATS = "PNG, JPEG, WebP, AVIF, BMP, GIF, TIFF, PPM"
EXTENSIONS_BY_FORMAT = {
    "JPEG": {".jpg", ".jpeg", ".jpe", ".jfif"}, "PNG": {".png", ".apng"}, "TIFF": {".tif", ".tiff"}, "GIF": {".gif"},
    "PPM": {".ppm", ".pgm", ".pbm", ".pnm"}, "WEBP": {".webp"}, "BMP": {".bmp"}, "AVIF": {".avif"},
    "HEIF": {".heic", ".heif", ".hif"},
}  # fmt: skip
EXTENSIONS = frozenset().union(*EXTENSIONS_BY_FORMAT.values())  # what a search of folders looks for

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
_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"BM": "BMP",
}
_UNSUPPORTED = {
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
_AVIF, _HEIF = {b"avif", b"avis"}, {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}


class BadImageError(DataError):
    """A file that is no image, or a damaged one."""


class UnsupportedImageError(BadImageError):
    """An image that dlkit does not read, though it may be valid: too large, or in a format without a reader."""


def detect_format(head: bytes) -> str:
    """Pillow's name of the format that a file's first bytes declare.

    Raises:
        DataError: not an image, or of another format.
    """
    for signature, name in _SIGNATURES.items():
        if head.startswith(signature):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:1] == b"P" and head[1:2] in (b"1", b"2", b"3", b"4", b"5", b"6", b"f", b"F") and head[2:3].isspace():
        return "PPM"
    if head[4:8] == b"ftyp":
        return _detect_container(head)
    raise _not_an_image(head)


def _detect_container(head: bytes) -> str:
    """AVIF or HEIF, by the brands in the first box of the file."""
    size = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[8:12], *(head[start : start + 4] for start in range(16, size, 4))}
    if brands & _AVIF:
        return "AVIF"
    if brands & _HEIF:
        return "HEIF"
    raise UnsupportedImageError(f"video is not a format that dlkit reads. Convert it to one of {FORMATS}.")


def _not_an_image(head: bytes) -> BadImageError:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")) or b"<html" in text:
        return BadImageError("not an image but a web page? It starts like HTML; download the file again.")
    for signature, name in _UNSUPPORTED.items():
        if head.startswith(signature) or text.startswith(signature):
            return UnsupportedImageError(f"{name} is not a format that dlkit reads. Convert it to one of {FORMATS}.")
    return BadImageError(f"not an image that dlkit reads ({FORMATS}).")


@functools.cache
def register_heif() -> None:
    """Let Pillow read HEIC."""
    if importlib.util.find_spec("pillow_heif") is None:
        raise UnsupportedImageError("HEIC needs pillow-heif: python -m pip install 'dlkit[heif]'. Or convert it.")
    importlib.import_module("pillow_heif").register_heif_opener(thumbnails=False)
