"""The picture of effects: bars from zero with their intervals, as an ablation has them. Pillow alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from dlkit.plots.axes import Axis, linear_axis
from dlkit.plots.drawing import (
    BLUE,
    GRID,
    INK,
    MARGIN,
    ORANGE,
    PAPER,
    SOFT,
    TEXT,
    TITLE,
    Point,
    clipped,
    save,
    text_width,
    write,
)

BAR_LENGTH, BAR_ROW = 520, 34
LONGEST_NAME = 20  # characters


@dataclass(frozen=True)
class Bar:
    """One effect and its interval; value None where none was measured, low and high None where none is known."""

    label: str
    value: float | None
    low: float | None = None
    high: float | None = None


def effects(bars: Sequence[Bar], title: str, below: str, path: Path) -> None:
    """Draw effects as bars from zero, blue above it and orange below, with their intervals as whiskers."""
    names = [clipped(bar.label, LONGEST_NAME) for bar in bars]
    left = MARGIN + max(text_width(name) for name in names) + 12
    top, right = MARGIN + TITLE + 24, left + BAR_LENGTH
    bottom = top + BAR_ROW * len(bars)
    width = max(right + 90, MARGIN + text_width(title, TITLE)) + MARGIN
    image = Image.new("RGB", (math.ceil(width), bottom + 2 * TEXT + 24 + MARGIN), PAPER)
    draw = ImageDraw.Draw(image)
    write(draw, (MARGIN, MARGIN), title, "lt", INK, TITLE)
    numbers = [number for bar in bars for number in (bar.value, bar.low, bar.high) if number is not None]
    axis = linear_axis(min(0.0, *numbers), max(0.0, *numbers)) if numbers else linear_axis(0, 1)
    for tick in axis.ticks:
        x = left + axis.place(tick) * BAR_LENGTH
        draw.line((x, top, x, bottom), fill=SOFT if tick == 0 else GRID)
        write(draw, (x, bottom + 8), f"{tick:g}", "mt")
    write(draw, ((left + right) / 2, bottom + TEXT + 18), below, "mt", SOFT)
    for place, (name, bar) in enumerate(zip(names, bars, strict=True)):
        middle = top + BAR_ROW * (place + 0.5)
        write(draw, (left - 8, middle), name, "rm")
        _bar(draw, bar, axis, (left, middle))
    save(image, path)


def _bar(draw: ImageDraw.ImageDraw, bar: Bar, axis: Axis, at: Point) -> None:
    left, y = at
    if bar.value is None:
        write(draw, (left + BAR_LENGTH + 12, y), "none", "lm", SOFT)
        return
    zero, end = (left + axis.place(value) * BAR_LENGTH for value in (0.0, bar.value))
    draw.rectangle((min(zero, end), y - 9, max(zero, end), y + 9), fill=BLUE if bar.value > 0 else ORANGE)
    if bar.low is not None and bar.high is not None:
        low, high = (left + axis.place(value) * BAR_LENGTH for value in (bar.low, bar.high))
        draw.line((low, y, high, y), fill=INK, width=2)
        for x in (low, high):
            draw.line((x, y - 5, x, y + 5), fill=INK, width=2)
    write(draw, (left + BAR_LENGTH + 12, y), f"{bar.value:+.2f}", "lm")
