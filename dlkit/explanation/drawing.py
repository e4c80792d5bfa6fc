"""Colors, sizes, text and the PNG file of explanations: drawn with Pillow, pixel by pixel."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from dlkit import atomic_io

Colour = tuple[int, int, int]
Point = tuple[float, float]

PAPER: Colour = (255, 255, 255)
INK: Colour = (33, 37, 41)
SOFT: Colour = (108, 117, 125)
GRID: Colour = (226, 229, 233)
BLUE: Colour = (23, 92, 163)
ORANGE: Colour = (208, 84, 10)

TEXT, TITLE = 14, 18  # font sizes
MARGIN = 24


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def write(pen: ImageDraw.ImageDraw, at: Point, text: str, anchor: str, colour: Colour = INK, size: int = TEXT) -> None:
    """Text at a point; `anchor` is Pillow's, as "lt" for left and top."""
    pen.text(at, text, fill=colour, font=font(size), anchor=anchor)


def text_width(text: str, size: int = TEXT) -> float:
    """In pixels."""
    return font(size).getlength(text)


def clipped(name: str, longest: int) -> str:
    """A name fit to be drawn: no control characters, not too long."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in name)
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def save(image: Image.Image, path: Path) -> None:
    """Write a PNG file, and its folder where there is none.

    Raises: StorageError where the disk refuses.
    """
    with atomic_io.storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    atomic_io.write_bytes(path, buffer.getvalue())
