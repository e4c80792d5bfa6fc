"""Colors, fonts, text and PNG output for explanations, drawn with Pillow."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from dlkit import atomic_io

Color = tuple[int, int, int]
Point = tuple[float, float]

BACKGROUND: Color = (255, 255, 255)
FOREGROUND: Color = (33, 37, 41)
MUTED: Color = (108, 117, 125)
GRID: Color = (226, 229, 233)
BLUE: Color = (23, 92, 163)
ORANGE: Color = (208, 84, 10)

TEXT, TITLE = 14, 18  # font sizes
MARGIN = 24


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def draw_text(
    pen: ImageDraw.ImageDraw, position: Point, text: str, anchor: str, color: Color = FOREGROUND, size: int = TEXT
) -> None:
    """Draw text at a position; `anchor` is Pillow's, for example "lt" for left and top."""
    pen.text(position, text, fill=color, font=font(size), anchor=anchor)


def text_width(text: str, size: int = TEXT) -> float:
    """In pixels."""
    return font(size).getlength(text)


def truncate(name: str, limit: int) -> str:
    """A name without control characters, shortened to `limit` characters."""
    printable = "".join(letter if letter.isprintable() else "?" for letter in name)
    return printable if len(printable) <= limit else printable[: limit - 1] + "…"


def save_png(image: Image.Image, path: Path) -> None:
    """Write a PNG file, and create its folder if it is missing.

    Raises: StorageError if the disk refuses.
    """
    with atomic_io.storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    atomic_io.write_bytes(path, buffer.getvalue())
