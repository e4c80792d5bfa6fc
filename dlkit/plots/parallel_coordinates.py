"""The picture of a sweep: an upright axis for each parameter and one for the value, a line through them for a trial.

Inselberg, "The plane with parallel coordinates", The Visual Computer 1, 1985. Pillow alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from dlkit.config.search_space import Choice, Parameter
from dlkit.plots.axes import Axis, linear_axis, log_axis
from dlkit.plots.curves import is_accuracy
from dlkit.plots.drawing import (
    BLUE,
    INK,
    MARGIN,
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

GAP, HEIGHT = 190, 380  # between two axes, and of each
PALE: Colour = (206, 219, 233)  # of the worst trial that finished; the best is blue
ENDED: Colour = (243, 216, 196)  # of one that was ended early
UNUSED = "unused"
LONGEST_NAME = 24  # characters
FOOT = -0.09  # where a trial stands that has no value there


@dataclass(frozen=True)
class Upright:
    """An axis: the values' places between 0 and 1, and what stands beside them."""

    name: str
    axis: Axis
    ticks: Sequence[tuple[float, str]]  # place, text
    names: tuple[str, ...] = ()  # of a choice

    def place(self, value: Any) -> float:
        if value is None:
            return FOOT
        if self.names:
            value = self.names.index(value)
        return min(max(self.axis.place(float(value)), 0.0), 1.0)


@dataclass(frozen=True)
class Trace:
    """A trial: a value for each axis or none, what it reached, and whether it was let finish."""

    values: Sequence[Any]  # of a choice its name
    value: float | None
    finished: bool


def upright(varied: Parameter, always: bool = True) -> Upright:
    """The axis of a parameter; `always` says that every trial has a value there."""
    unused = [] if always else [(FOOT, UNUSED)]
    if isinstance(varied, Choice):
        axis = Axis(-0.5, len(varied.names) - 0.5, tuple(range(len(varied.names))))
        names = [(axis.place(tick), name) for tick, name in zip(axis.ticks, varied.names, strict=True)]
        return Upright(varied.key, axis, names + unused, varied.names)
    axis = log_axis(varied.low, varied.high) if varied.log else linear_axis(varied.low, varied.high)
    ticks = tuple(tick for tick in axis.ticks if varied.low <= tick <= varied.high)
    axis = Axis(varied.low, varied.high, ticks, axis.log)
    return Upright(varied.key, axis, [(axis.place(tick), f"{tick:g}") for tick in ticks] + unused)


def parallel(
    uprights: Sequence[Upright],
    traces: Sequence[Trace],
    title: str,
    metric: str,
    path: Path,
    *,
    lower_is_better: bool,
) -> None:
    """Draw the traces, the last above the others; the better one that finished, the bluer, and the best broad."""
    # one that was ended early may be far out: it stands at the axis' end
    values = [trace.value for trace in traces if trace.finished and trace.value is not None]
    axes = [*uprights, _of_values(metric, values)]
    left, top = MARGIN + 70, MARGIN + TITLE + 56
    width = max(left + GAP * (len(axes) - 1) + 90, MARGIN + math.ceil(text_width(title, TITLE))) + MARGIN
    size = (width, top + HEIGHT + 100 + MARGIN)
    large = Image.new("RGB", (size[0] * SMOOTH, size[1] * SMOOTH), PAPER)
    pen = ImageDraw.Draw(large)
    best = _best(traces, lower_is_better)
    for trace in sorted(traces, key=lambda trace: (trace is best, trace.finished)):
        points = _points(axes, trace, (left, top))
        colour = _colour(trace, values, lower_is_better)
        large_points = [(x * SMOOTH, y * SMOOTH) for x, y in points]
        pen.line(large_points, fill=colour, width=(4 if trace is best else 2) * SMOOTH, joint="curve")
    image = large.resize(size, Image.Resampling.BOX)
    draw = ImageDraw.Draw(image)
    write(draw, (MARGIN, MARGIN), title, "lt", INK, TITLE)
    for place, axis in enumerate(axes):
        _axis(draw, axis, (left + GAP * place, top))
    _legend(draw, (MARGIN + 70, size[1] - MARGIN - TEXT))
    save(image, path)


def _of_values(metric: str, values: Sequence[float]) -> Upright:
    axis = linear_axis(min(values), max(values)) if values else linear_axis(0, 1)
    percent = is_accuracy(metric)
    ticks = [(axis.place(tick), f"{100 * tick:.4g} %" if percent else f"{tick:g}") for tick in axis.ticks]
    return Upright(metric, axis, ticks)


def _best(traces: Sequence[Trace], lower_is_better: bool) -> Trace | None:
    finished = [trace for trace in traces if trace.finished and trace.value is not None]
    choose = min if lower_is_better else max
    return choose(finished, key=lambda trace: trace.value or 0.0, default=None)


def _points(axes: Sequence[Upright], trace: Trace, at: Point) -> list[Point]:
    """Where a trace crosses the axes; one that reached nothing ends before the last."""
    values = [*trace.values, *([] if trace.value is None else [trace.value])]
    left, top = at
    return [
        (left + GAP * place, top + HEIGHT * (1 - axis.place(value)))
        for place, (axis, value) in enumerate(zip(axes, values, strict=False))
    ]


def _colour(trace: Trace, values: Sequence[float], lower_is_better: bool) -> Colour:
    """Of one that finished, from pale to blue by its rank among their values."""
    if not trace.finished or trace.value is None:
        return ENDED
    worse = sum(value > trace.value if lower_is_better else value < trace.value for value in values)
    share = worse / max(len(values) - 1, 1)
    red, green, blue = (round(pale + share * (full - pale)) for pale, full in zip(PALE, BLUE, strict=True))
    return red, green, blue


def _axis(draw: ImageDraw.ImageDraw, axis: Upright, at: Point) -> None:
    x, top = at
    section, _, key = axis.name.rpartition(".")
    write(draw, (x, top - 20), clipped(key, LONGEST_NAME), "mm", INK)
    write(draw, (x, top - 38), clipped(section, LONGEST_NAME), "mm", SOFT)
    draw.line((x, top, x, top + HEIGHT), fill=SOFT)
    for place, text in axis.ticks:
        y = top + HEIGHT * (1 - place)
        draw.line((x - 4, y, x, y), fill=SOFT)
        shown = clipped(text, LONGEST_NAME)
        draw.rectangle((x - 10 - text_width(shown), y - TEXT / 2 - 1, x - 7, y + TEXT / 2 + 1), fill=PAPER)
        write(draw, (x - 8, y), shown, "rm")


def _legend(draw: ImageDraw.ImageDraw, at: Point) -> None:
    x, y = at
    for text, colour, width in (("best", BLUE, 4), ("worse", PALE, 2), ("ended early", ENDED, 2)):
        draw.line((x, y, x + 24, y), fill=colour, width=width)
        write(draw, (x + 31, y), text, "lm")
        x += 31 + text_width(text) + 26
