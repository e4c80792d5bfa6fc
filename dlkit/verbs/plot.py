"""The pictures a run leaves in plots/, a confusion matrix and a learning curve, and an ablation's bars: Pillow alone.

Light background, one font, sizes in pixels at 1×. Text is drawn at its own size, curves at four times theirs and then
shrunk, so that both are sharp.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from dlkit.verbs.drawing import (
    BLUE,
    GREEN,
    GRID,
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
)  # fmt: skip

Box = tuple[float, float, float, float]  # left, top, right, bottom

NUMBERS_UP_TO = 20  # classes; beyond, cells are too small for counts
MATRIX_SIDE = 900  # about, where cells hold no numbers
LEGEND_HEIGHT = 240
LONGEST_NAME = 20  # characters of a class name
SMOOTH = 4  # curves are drawn this much larger, then shrunk
PANEL_WIDTH, PANEL_HEIGHT = 480, 320
BAR_LENGTH, BAR_ROW = 520, 34

SERIES: dict[str, tuple[tuple[str, str, Colour], ...]] = {
    "loss": (("train/loss", "train", BLUE), ("val/loss", "validation", ORANGE)),
    "accuracy": (
        ("train/top1", "train top-1", BLUE),
        ("val/top1", "validation top-1", ORANGE),
        ("val/top5", "validation top-5", GREEN),
    ),
}


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


def learning_curve(metrics: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw loss and accuracy over epochs, side by side, from the lines of metrics.jsonl."""
    height = 2 * MARGIN + TITLE + 40 + PANEL_HEIGHT + 48
    image = Image.new("RGB", (2 * (PANEL_WIDTH + 70 + MARGIN) + MARGIN, height), PAPER)
    steps_per_epoch = max((line["step"] / line["epoch"] for line in metrics if line.get("epoch")), default=1.0)
    for place, (title, series) in enumerate(SERIES.items()):
        curves = [
            Curve(label, colour, points)
            for key, label, colour in series
            if (points := _points(metrics, key, steps_per_epoch))
        ]
        left = MARGIN + place * (PANEL_WIDTH + 70 + MARGIN) + 70
        top = MARGIN + TITLE + 40
        _panel(image, title, curves, (left, top, left + PANEL_WIDTH, top + PANEL_HEIGHT))
    save(image, path)


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


@dataclass(frozen=True)
class Curve:
    """One line of a panel: (epoch, value) in order."""

    label: str
    colour: Colour
    points: list[Point]


@dataclass(frozen=True)
class Axis:
    """Where values fall between 0 and 1 along an axis, and where its ticks stand."""

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    def place(self, value: float) -> float:
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def linear_axis(low: float, high: float, count: int = 6) -> Axis:
    """About `count` ticks at 1, 2 or 5 times a power of ten, the ends rounded outwards to them."""
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - 0.5, high + 0.5
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(round(index * step, 10) for index in range(first, last + 1))
    return Axis(ticks[0], ticks[-1], ticks)


def log_axis(low: float, high: float) -> Axis:
    """Ticks at 1, 2 and 5 times powers of ten, or at the powers alone where those are many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = [factor * 10.0**power for power in powers for factor in ((1, 2, 5) if len(powers) <= 4 else (1,))]
    first = max(tick for tick in every if tick <= low * 1.0001)
    last = min(tick for tick in every if tick >= high * 0.9999)
    return Axis(first, last, tuple(tick for tick in every if first <= tick <= last), log=True)


def _panel(image: Image.Image, title: str, curves: Sequence[Curve], box: Box) -> None:
    draw = ImageDraw.Draw(image)
    left, top, right, bottom = box
    write(draw, (left, top - 40 - TITLE / 2), title.capitalize(), "lt", INK, TITLE)
    if not curves:
        write(draw, ((left + right) / 2, (top + bottom) / 2), "not recorded", "mm", SOFT)
        draw.rectangle(box, outline=GRID)
        return
    x_axis, y_axis = _epoch_axis(curves), _value_axis(title, curves)
    for tick in x_axis.ticks:
        x = left + x_axis.place(tick) * (right - left)
        draw.line((x, top, x, bottom), fill=GRID)
        write(draw, (x, bottom + 8), f"{tick:g}", "mt")
    for tick in y_axis.ticks:
        y = bottom - y_axis.place(tick) * (bottom - top)
        draw.line((left, y, right, y), fill=GRID)
        write(draw, (left - 8, y), f"{tick:.4g} %" if title == "accuracy" else f"{tick:g}", "rm")
    draw.line((left, bottom, right, bottom), fill=SOFT)
    write(draw, ((left + right) / 2, bottom + 32), "epoch", "mt", SOFT)
    _legend(draw, curves, (left, top - 14))
    for curve in curves:
        places = [
            (left + x_axis.place(x) * (right - left), bottom - y_axis.place(y) * (bottom - top))
            for x, y in curve.points
        ]
        _stroke(image, places, curve.colour)


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


def _epoch_axis(curves: Sequence[Curve]) -> Axis:
    last = max(1.0, *(x for curve in curves for x, _ in curve.points))
    whole = (tick for tick in linear_axis(0, last).ticks if tick == round(tick) and tick <= last + 1e-9)
    return Axis(0, last, tuple(whole))


def _value_axis(title: str, curves: Sequence[Curve]) -> Axis:
    values = [y for curve in curves for _, y in curve.points]
    if title == "loss" and min(values) > 0 and max(values) / min(values) >= 20:
        return log_axis(min(values), max(values))
    return linear_axis(0 if title == "loss" else min(values), max(values))


def _points(metrics: Sequence[Mapping[str, Any]], key: str, steps_per_epoch: float) -> list[Point]:
    """(epoch, value), accuracies in percent, for the lines that hold a finite number under this key."""
    factor = 1.0 if key.endswith("loss") else 100.0
    values = [(line["step"] / steps_per_epoch, line.get(key)) for line in metrics]
    return [(x, factor * y) for x, y in values if isinstance(y, int | float) and math.isfinite(y)]


def _stroke(image: Image.Image, points: Sequence[Point], colour: Colour) -> None:
    """A smooth line two pixels wide, with a dot at each point where they are few."""
    mask = Image.new("L", (image.width * SMOOTH, image.height * SMOOTH))
    draw = ImageDraw.Draw(mask)
    large = [(x * SMOOTH, y * SMOOTH) for x, y in points]
    draw.line(large, fill=255, width=2 * SMOOTH, joint="curve")
    for x, y in large if len(large) <= 40 else ():
        draw.circle((x, y), 3.5 * SMOOTH, fill=255)
    image.paste(colour, mask=mask.resize(image.size, Image.Resampling.BOX))


def _legend(draw: ImageDraw.ImageDraw, curves: Sequence[Curve], at: Point) -> None:
    x, y = at
    for curve in curves:
        draw.line((x, y, x + 20, y), fill=curve.colour, width=3)
        write(draw, (x + 27, y), curve.label, "lm")
        x += 27 + text_width(curve.label) + 22


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
