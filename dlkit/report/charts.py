"""The geometry of the report's SVG charts: learning curves, calibration, intervals and a scatter plot.

Curves and their axes are those of `dlkit plot`. Colors are classes of the style sheet (c0, c1, …), which follow light
and dark mode. The points of curves are also passed to the page as data, for the values under the pointer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dlkit.plots.axes import Axis, linear_axis
from dlkit.plots.curves import Curve, Panel, Point
from dlkit.report.data import CalibrationBin

COLORS = 8  # of lines in the style sheet
MAX_POINTS = 500  # of a line; more are sampled
MAX_MARKED_POINTS = 30  # of a line with markers
MAX_DOTS = 3000  # of a scatter plot

Tick = tuple[float, str]  # pixel position, label


@dataclass(frozen=True)
class Frame:
    """The plot area of a chart in SVG units."""

    width: float
    height: float
    left: float = 46
    top: float = 8

    @property
    def right(self) -> float:
        return self.left + self.width

    @property
    def bottom(self) -> float:
        return self.top + self.height

    def x(self, position: float) -> float:
        """The coordinate of a position from 0 to 1."""
        return round(self.left + position * self.width, 1)

    def y(self, position: float) -> float:
        return round(self.bottom - position * self.height, 1)

    def x_ticks(self, axis: Axis, unit: str = "") -> list[Tick]:
        return [(self.x(axis.position(tick)), f"{tick:g}{unit}") for tick in axis.ticks]

    def y_ticks(self, axis: Axis, unit: str = "") -> list[Tick]:
        return [(self.y(axis.position(tick)), f"{tick:g}{unit}") for tick in axis.ticks]


CURVE_FRAME, SQUARE = Frame(284, 168), Frame(300, 300)
STRIP = Frame(SQUARE.width, 40, SQUARE.left, SQUARE.bottom + 50)  # the counts below a reliability diagram


@dataclass(frozen=True)
class ChartLine:
    """A curve: its label, first and last value, SVG paths, and the sampled points in pixels and in values."""

    label: str
    color: int
    first: str
    last: str
    pixels: Sequence[Point]
    points: Sequence[Point]

    @property
    def path(self) -> str:
        return "M" + "L".join(f"{x} {y}" for x, y in self.pixels)

    @property
    def markers(self) -> str:
        return "".join(f"M{x} {y}h0" for x, y in self.pixels) if len(self.pixels) <= MAX_MARKED_POINTS else ""


@dataclass(frozen=True)
class CurveChart:
    """A panel of learning curves as a chart."""

    id: str
    panel: Panel
    frame: Frame = CURVE_FRAME

    @cached_property
    def x_axis(self) -> Axis:
        return self.panel.epoch_axis()

    @cached_property
    def y_axis(self) -> Axis:
        return self.panel.value_axis()

    @property
    def x_ticks(self) -> list[Tick]:
        return self.frame.x_ticks(self.x_axis)

    @property
    def y_ticks(self) -> list[Tick]:
        return self.frame.y_ticks(self.y_axis, " %" * self.panel.percent)

    @cached_property
    def lines(self) -> list[ChartLine]:
        return [self._line(curve) for curve in self.panel.curves]

    @property
    def last_epoch(self) -> str:
        return f"{max(curve.points[-1][0] for curve in self.panel.curves):.3g}"

    @property
    def description(self) -> str:
        ranges = (f"{line.label} from {line.first} to {line.last}" for line in self.lines)
        return f"{self.panel.title} over epochs: {'; '.join(ranges)}"

    def data(self) -> dict[str, Any]:
        """The points for the page's script."""
        return {
            "percent": self.panel.percent,
            "lines": [
                {
                    "px": [x for x, _ in line.pixels],
                    "py": [y for _, y in line.pixels],
                    "x": [float(f"{x:.6g}") for x, _ in line.points],
                    "y": [float(f"{y:.6g}") for _, y in line.points],
                }
                for line in self.lines
            ],
        }

    def _line(self, curve: Curve) -> ChartLine:
        points = _sample(curve.points)
        frame = self.frame
        pixels = [(frame.x(self.x_axis.position(x)), frame.y(self.y_axis.position(y))) for x, y in points]
        first, last = (self.panel.format_value(points[end][1]) for end in (0, -1))
        return ChartLine(curve.label, curve.index % COLORS, first, last, pixels, points)


def _sample(points: Sequence[Point]) -> list[Point]:
    """At most MAX_POINTS of the points, evenly spaced, including the last."""
    step = math.ceil(len(points) / MAX_POINTS)
    return [*points[:-1:step], points[-1]]


@dataclass(frozen=True)
class CalibrationBar:
    """A bin of a reliability diagram in SVG units: accuracy, its gap to the confidence, and the sample count."""

    description: str
    x: float
    width: float
    accuracy_y: float
    gap_y: float
    gap_height: float
    overconfident: bool
    count_height: float


def calibration_bars(bins: Sequence[CalibrationBin]) -> list[CalibrationBar]:
    bars, most = [], max(bin.samples for bin in bins)
    for bin in bins:
        x, upper, lower = SQUARE.x(bin.low) + 1, max(bin.accuracy, bin.confidence), min(bin.accuracy, bin.confidence)
        description = (
            f"confidence {bin.low:.2f} to {bin.high:.2f}: {bin.samples:,} predictions, "
            f"mean confidence {100 * bin.confidence:.1f} %, accuracy {100 * bin.accuracy:.1f} %"
        )
        bars.append(
            CalibrationBar(
                description=description,
                x=x,
                width=round(SQUARE.x(bin.high) - 1 - x, 1),
                accuracy_y=SQUARE.y(lower),
                gap_y=SQUARE.y(upper),
                gap_height=round(SQUARE.height * (upper - lower), 1),
                overconfident=bin.accuracy < bin.confidence,
                count_height=round(max(1.0, STRIP.height * math.sqrt(bin.samples / most)), 1),
            )
        )
    return bars


def calibration_description(bins: Sequence[CalibrationBin]) -> str:
    worst = max(bins, key=lambda bin: bin.samples * abs(bin.accuracy - bin.confidence))
    return (
        f"Reliability diagram; the largest weighted gap is at confidence {worst.low:.2f} to {worst.high:.2f}: "
        f"confidence {100 * worst.confidence:.1f} %, accuracy {100 * worst.accuracy:.1f} %"
    )


@dataclass(frozen=True)
class IntervalRow:
    """A value with its 95 % interval, in percent and in SVG units."""

    name: str
    description: str
    color: int
    x: float
    low_x: float
    high_x: float
    y: float


@dataclass(frozen=True)
class IntervalChart:
    rows: Sequence[IntervalRow]
    ticks: Sequence[Tick]
    frame: Frame


def interval_chart(values: Sequence[tuple[str, float, float, float]]) -> IntervalChart:
    """(name, value, low, high) each: a dot with its 95 % interval, on a shared axis in percent."""
    axis = linear_axis(100 * min(row[2] for row in values), 100 * max(row[3] for row in values))
    row_height = 30
    frame = Frame(460, row_height * len(values), left=150)
    rows = []
    for index, (name, *numbers) in enumerate(values):
        value, low, high = (100 * number for number in numbers)
        x, low_x, high_x = (frame.x(axis.position(number)) for number in (value, low, high))
        description = f"{name}: {value:.2f} %, 95 % interval {low:.2f} to {high:.2f} %"
        y = frame.top + row_height * (index + 0.5)
        rows.append(IntervalRow(name, description, index % COLORS, x, low_x, high_x, y))
    return IntervalChart(rows, frame.x_ticks(axis, " %"), frame)


@dataclass(frozen=True)
class ScatterChart:
    """Predictions over targets, on two equal axes."""

    count: int
    path: str
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]


def scatter_chart(points: Sequence[Point]) -> ScatterChart:
    sample = points[:: math.ceil(len(points) / MAX_DOTS)]
    axis = linear_axis(min(min(point) for point in sample), max(max(point) for point in sample))
    pixels = ((SQUARE.x(axis.position(x)), SQUARE.y(axis.position(y))) for x, y in sample)
    path = "".join(f"M{x} {y}h0" for x, y in pixels)
    return ScatterChart(len(sample), path, SQUARE.x_ticks(axis), SQUARE.y_ticks(axis))


def unit_ticks() -> tuple[list[Tick], list[Tick]]:
    """The ticks of a square with both axes from 0 to 1."""
    axis = linear_axis(0, 1)
    return SQUARE.x_ticks(axis), SQUARE.y_ticks(axis)
