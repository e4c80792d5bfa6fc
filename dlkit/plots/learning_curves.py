"""The pictures of runs: learning curves, of one or of several overlaid, and the loss of a range test. Pillow alone.

Light background, one font, sizes in pixels at 1×. Text is drawn at its own size, curves at four times theirs and then
shrunk, so that both are sharp.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from dlkit.plots.axes import Axis, log_axis
from dlkit.plots.curves import Curve, Panel, from_lines, learning_panels
from dlkit.plots.drawing import (
    BLUE,
    GRID,
    INK,
    MARGIN,
    ORANGE,
    PAPER,
    SMOOTH,
    SOFT,
    TEXT,
    TITLE,
    Colour,
    Point,
    clipped,
    save,
    text_width,
    write,
)

Box = tuple[float, float, float, float]  # left, top, right, bottom

PANEL_WIDTH, PANEL_HEIGHT = 480, 320
LEFT, TOP = 70, TITLE + 40  # room for a panel's values, and for its title and legend
BELOW = 48
ROW = TEXT + 8  # of the legend that several panels share
ABREAST = 2  # panels beside each other
LONGEST_NAME = 60  # characters of a run's name
DOTS_UP_TO = 40  # points of a curve; beyond, no dot marks each


def learning_curve(metrics: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw loss and accuracy over epochs, side by side, from the lines of metrics.jsonl."""
    curves(learning_panels(from_lines(metrics)), path)


def curves(panels: Sequence[Panel], path: Path, *, one_legend: bool = False) -> None:
    """Draw panels, two abreast; `one_legend` stands below them all, where their curves have the same names."""
    below = list({curve.label: curve for panel in panels for curve in panel.curves}.values()) if one_legend else []
    columns, rows = min(ABREAST, len(panels)), -(-len(panels) // ABREAST)
    names = max((text_width(clipped(curve.label, LONGEST_NAME)) for curve in below), default=0)
    width = max(columns * (LEFT + PANEL_WIDTH + MARGIN), LEFT + math.ceil(names) + 40) + MARGIN
    height = MARGIN + rows * (TOP + PANEL_HEIGHT + BELOW) + ROW * len(below) + MARGIN
    image = Image.new("RGB", (width, height), PAPER)
    for place, panel in enumerate(panels):
        left = MARGIN + place % ABREAST * (LEFT + PANEL_WIDTH + MARGIN) + LEFT
        top = MARGIN + place // ABREAST * (TOP + PANEL_HEIGHT + BELOW) + TOP
        _panel(image, panel, (left, top, left + PANEL_WIDTH, top + PANEL_HEIGHT), legend=not one_legend)
    draw = ImageDraw.Draw(image)
    for place, curve in enumerate(below):
        _legend(draw, [curve], (MARGIN + LEFT, height - MARGIN - ROW * (len(below) - place - 0.5)))
    save(image, path)


def range_test(
    losses: Sequence[Point], smoothed: Sequence[Point], suggestion: float | None, title: str, path: Path
) -> None:
    """Draw the loss over the learning rate, on a logarithmic axis: points (lr, loss), and the rate suggested."""
    top, left = MARGIN + TITLE + 40, MARGIN + 70
    box = (left, top, left + PANEL_WIDTH, top + PANEL_HEIGHT)
    image = Image.new("RGB", (left + PANEL_WIDTH + MARGIN, top + PANEL_HEIGHT + 48 + MARGIN), PAPER)
    highest = max(loss for _, loss in smoothed)
    shown = [(lr, min(loss, highest)) for lr, loss in losses]  # the last may be far out
    curves = [Curve("a batch's loss", SOFT, shown), Curve("smoothed", BLUE, smoothed)]
    panel = Panel(title[:1].upper() + title[1:], curves)
    rates = [lr for lr, _ in smoothed]
    axis = log_axis(min(rates), max(rates))
    _panel(image, panel, box, axis, "learning rate")
    if suggestion is not None and axis.low <= suggestion <= axis.high:
        draw, x = ImageDraw.Draw(image), left + axis.place(suggestion) * PANEL_WIDTH
        draw.line((x, top, x, top + PANEL_HEIGHT), fill=ORANGE, width=2)
        write(draw, (x + 6, top + 6), f"{suggestion:g}", "lt", ORANGE)
    save(image, path)


def _panel(
    image: Image.Image,
    panel: Panel,
    box: Box,
    x_axis: Axis | None = None,
    below: str = "epoch",
    legend: bool = True,
) -> None:
    draw = ImageDraw.Draw(image)
    left, top, right, bottom = box
    write(draw, (left, top - 40 - TITLE / 2), panel.title, "lt", INK, TITLE)
    if not panel.curves:
        write(draw, ((left + right) / 2, (top + bottom) / 2), "not recorded", "mm", SOFT)
        draw.rectangle(box, outline=GRID)
        return
    x_axis, y_axis = x_axis or panel.epoch_axis(), panel.value_axis()
    for tick in x_axis.ticks:
        x = left + x_axis.place(tick) * (right - left)
        draw.line((x, top, x, bottom), fill=GRID)
        write(draw, (x, bottom + 8), f"{tick:g}", "mt")
    for tick in y_axis.ticks:
        y = bottom - y_axis.place(tick) * (bottom - top)
        draw.line((left, y, right, y), fill=GRID)
        write(draw, (left - 8, y), panel.shown(tick), "rm")
    draw.line((left, bottom, right, bottom), fill=SOFT)
    write(draw, ((left + right) / 2, bottom + 32), below, "mt", SOFT)
    if legend:
        _legend(draw, panel.curves, (left, top - 14))
    for curve in panel.curves:
        places = [
            (left + x_axis.place(x) * (right - left), bottom - y_axis.place(y) * (bottom - top))
            for x, y in curve.points
        ]
        _stroke(image, places, curve.colour)


def _stroke(image: Image.Image, points: Sequence[Point], colour: Colour) -> None:
    """A smooth line two pixels wide, with a dot at each point where they are few."""
    mask = Image.new("L", (image.width * SMOOTH, image.height * SMOOTH))
    draw = ImageDraw.Draw(mask)
    large = [(x * SMOOTH, y * SMOOTH) for x, y in points]
    draw.line(large, fill=255, width=2 * SMOOTH, joint="curve")
    for x, y in large if len(large) <= DOTS_UP_TO else ():
        draw.circle((x, y), 3.5 * SMOOTH, fill=255)
    image.paste(colour, mask=mask.resize(image.size, Image.Resampling.BOX))


def _legend(draw: ImageDraw.ImageDraw, curves: Sequence[Curve], at: Point) -> None:
    x, y = at
    for curve in curves:
        draw.line((x, y, x + 20, y), fill=curve.colour, width=3)
        label = clipped(curve.label, LONGEST_NAME)
        write(draw, (x + 27, y), label, "lm")
        x += 27 + text_width(label) + 22
