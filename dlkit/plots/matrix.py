"""The picture of a confusion matrix, with counts where there is room for them: Pillow alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from dlkit.plots.drawing import (
    BLUE,
    INK,
    MARGIN,
    ORANGE,
    PAPER,
    SOFT,
    TEXT,
    TITLE,
    Colour,
    Point,
    clipped,
    font,
    save,
    text_width,
    write,
)

NUMBERS_UP_TO = 20  # classes; beyond, cells are too small for counts
MATRIX_SIDE = 900  # about, where cells hold no numbers
LEGEND_HEIGHT = 240
LONGEST_NAME = 20  # characters of a class name


def confusion_matrix(confusion: npt.NDArray[np.int64], classes: Sequence[str], title: str, path: Path) -> None:
    """Draw a confusion matrix (K, K), rows the true classes, with counts in the cells up to 20 classes.

    A cell's shade is its share of the row, on a square-root scale, so that rare errors are seen.
    """
    names = [clipped(name, LONGEST_NAME) for name in classes]
    cell, stride = _cell_side(confusion, len(names))
    label_width = max(text_width(name) for name in names)
    upright = stride > 1 or label_width > cell - 6  # names under the columns must stand up
    side = cell * len(names)
    left, top = MARGIN + 30 + label_width + 8, MARGIN + TITLE + 24
    below = top + side + 8 + (label_width if upright else TEXT + 4)
    width = max(left + side + 150, 2 * MARGIN + text_width(title, TITLE))
    height = max(below + 30, top + LEGEND_HEIGHT) + MARGIN
    image = Image.new("RGB", (round(width), round(height)), PAPER)
    draw = ImageDraw.Draw(image)
    write(draw, (MARGIN, MARGIN), title, "lt", INK, TITLE)
    _cells(draw, confusion, (left, top), cell)
    draw.rectangle((left - 1, top - 1, left + side, top + side), outline=SOFT)
    for index in range(0, len(names), stride):
        middle = cell * (index + 0.5)
        write(draw, (left - 8, top + middle), names[index], "rm")
        if upright:
            _upright_text(image, (left + middle, top + side + 8), names[index])
        else:
            write(draw, (left + middle, top + side + 8), names[index], "mt")
    write(draw, (left + side / 2, below + 14), "predicted class", "mt", SOFT)
    _upright_text(image, (MARGIN + TEXT / 2, top + (side - text_width("true class")) / 2), "true class", SOFT)
    _shade_legend(draw, (left + side + 28, top))
    save(image, path)


def _cell_side(confusion: npt.NDArray[np.int64], classes: int) -> tuple[int, int]:
    """Pixels of a cell's side, and how many rows apart the names stand."""
    if classes <= NUMBERS_UP_TO:
        return max(40, round(text_width(str(confusion.max())) + 14)), 1
    cell = max(1, MATRIX_SIDE // classes)
    return cell, math.ceil((TEXT + 3) / cell)


def _cells(draw: ImageDraw.ImageDraw, confusion: npt.NDArray[np.int64], at: Point, cell: int) -> None:
    left, top = at
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    gap = 1 if cell >= 8 else 0
    for row, column in np.argwhere(confusion > 0).tolist():
        x, y = left + column * cell, top + row * cell
        shade = _shade(shares[row, column], right=row == column)
        draw.rectangle((x, y, x + cell - 1 - gap, y + cell - 1 - gap), fill=shade)
        if len(confusion) <= NUMBERS_UP_TO:
            ink = PAPER if sum(shade) < 420 else INK
            write(draw, (x + cell / 2, y + cell / 2), str(confusion[row, column]), "mm", ink)


def _shade(share: float, *, right: bool) -> Colour:
    """White for a share of 0, blue (right) or orange (wrong) for 1; on a square-root scale."""
    weight = math.sqrt(share)
    full = BLUE if right else ORANGE
    red, green, blue = (round(light + weight * (dark - light)) for light, dark in zip(PAPER, full, strict=True))
    return red, green, blue


def _shade_legend(draw: ImageDraw.ImageDraw, at: Point) -> None:
    x, top = at
    write(draw, (x, top), "share of row", "lt", SOFT)
    top, length = top + TEXT + 10, LEGEND_HEIGHT - 2 * TEXT - 24
    for offset in range(length):
        share = (1 - offset / (length - 1)) ** 2
        for place, right in enumerate((True, False)):
            left = x + 20 * place
            draw.line((left, top + offset, left + 16, top + offset), fill=_shade(share, right=right))
    for percent in (100, 50, 25, 10, 1):
        y = top + (1 - math.sqrt(percent / 100)) * (length - 1)
        write(draw, (x + 44, y), f"{percent} %", "lm")
    write(draw, (x, top + length + TEXT + 8), "right", "ls", BLUE)
    write(draw, (x + text_width("right") + 10, top + length + TEXT + 8), "wrong", "ls", ORANGE)


def _upright_text(image: Image.Image, top_centre: Point, text: str, colour: Colour = INK) -> None:
    """Text turned a quarter to the left, to be read from below, hanging from `top_centre`."""
    width, height = math.ceil(text_width(text)), TEXT + 6
    mask = Image.new("L", (max(1, width), height))
    ImageDraw.Draw(mask).text((width, height / 2), text, fill=255, font=font(TEXT), anchor="rm")
    turned = mask.transpose(Image.Transpose.ROTATE_90)
    image.paste(colour, (round(top_centre[0] - height / 2), round(top_centre[1])), turned)
