"""The report's drawings: learning curves, calibration, intervals and a scatter, as SVG without a script's help.

Colours are classes of the page's style sheet (c0, c1, …), so that they follow light and dark. A curve's points are
handed on as data too, from which the page tells the values under the pointer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dlkit.plots.axes import Axis, linear_axis, log_axis
from dlkit.report.data import Bin, Point
from dlkit.report.markup import Markup, element, joined

WIDTH, HEIGHT = 340, 210  # of a curve's drawing, in its own units
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 8, 34
MOST_POINTS = 500  # of a line; more are thinned out
FEW_POINTS = 30  # up to so many are marked
LOG_FROM, LOG_TO = 20.0, 1e5  # what falls by such a factor is drawn on a logarithmic axis; below is as good as nothing
COLOURS = 8  # that the page has for lines
SQUARE, STRIP = 300, 40  # the side of a square drawing, the height of the counts below it
MOST_DOTS = 3000  # of a scatter


@dataclass(frozen=True)
class Line:
    """A curve; its colour counts through the page's, dashes set apart what is of the same run."""

    label: str
    points: Sequence[Point]  # (epoch, value)
    colour: int = 0


@dataclass(frozen=True)
class Curves:
    """A drawing of curves over epochs, and the data by which the page answers the pointer."""

    id: str
    figure: Markup
    data: dict[str, Any]


def curves(id: str, title: str, lines: Sequence[Line], *, percent: bool = False) -> Curves:
    """Lines over epochs. With `percent` the values are fractions, told in percent; else the axis may be logarithmic."""
    factor = 100 if percent else 1
    shown = [Line(line.label, [(x, factor * y) for x, y in _thinned(line.points)], line.colour) for line in lines]
    x_axis, y_axis = _epochs(shown), _values(shown, percent)
    places = [[_place(x_axis, y_axis, point) for point in line.points] for line in shown]
    keys = [_key(line, percent) for line in shown]
    last = max(line.points[-1][0] for line in shown)
    drawing = element(
        "svg", *_grid(x_axis, y_axis, percent), *map(_stroke, shown, places),
        element("line", class_="rule", x1=LEFT, x2=LEFT, y1=TOP, y2=HEIGHT - BOTTOM, visibility="hidden"),
        *(element("circle", class_=f"dot f{line.colour}", r=4, cx=0, cy=0, visibility="hidden") for line in shown),
        viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", tabindex=0,
        aria_label=f"{title} over epochs: {'; '.join(_spoken(line, percent) for line in shown)}",
    )  # fmt: skip
    at = element("span", "epoch ", element("output", f"{last:.3g}", class_="at"), class_="epoch")
    head = element("figcaption", at, element("b", title), element("div", *keys, class_="keys"))
    data = {
        "percent": percent,
        "lines": [
            {"px": [p[0] for p in place], "py": [p[1] for p in place], "x": [_rounded(p[0]) for p in line.points],
             "y": [_rounded(p[1]) for p in line.points]}
            for line, place in zip(shown, places, strict=True)
        ],
    }  # fmt: skip
    return Curves(id, element("figure", head, drawing, class_="curves", id=id), data)


def calibration(bins: Sequence[Bin]) -> Markup:
    """How often answers of each confidence are right; what that is off by is paler. How many there are, underneath."""
    bars, most = [], max(bin.samples for bin in bins)
    bottom = TOP + SQUARE
    for bin in bins:
        left, right = _along(bin.low) + 1, _along(bin.high) - 1
        low, high = sorted((bottom - SQUARE * bin.accuracy, bottom - SQUARE * bin.confidence))
        kind = "sure" if bin.accuracy < bin.confidence else "unsure"
        share = max(1.0, STRIP * math.sqrt(bin.samples / most))
        told = f"confidence {bin.low:.2f} to {bin.high:.2f}: {bin.samples:,} answers, "
        told += f"mean confidence {100 * bin.confidence:.1f} %, right {100 * bin.accuracy:.1f} %"
        bars.append(
            element(
                "g", element("title", told), _bar("bar", left, right, high, bottom), _bar(kind, left, right, low, high),
                _bar("count", left, right, bottom + BOTTOM + 16 + STRIP - share, bottom + BOTTOM + 16 + STRIP),
            )
        )  # fmt: skip
    worst = max(bins, key=lambda bin: bin.samples * abs(bin.accuracy - bin.confidence))
    label = f"Calibration diagram; the gap that weighs most is at confidence {worst.low:.2f} to {worst.high:.2f}: "
    label += f"said {100 * worst.confidence:.1f} %, right {100 * worst.accuracy:.1f} %"
    frame = _frame(linear_axis(0, 1), "confidence", "right")
    return _square([*frame, *bars, _diagonal()], label, STRIP + 24)


def intervals(rows: Sequence[tuple[str, float, float, float]]) -> Markup:
    """(name, value, low, high) each: a dot with its 95 % interval, on one axis in percent."""
    axis = linear_axis(100 * min(row[2] for row in rows), 100 * max(row[3] for row in rows))
    names = 150
    width, line = 640, 30
    bottom = TOP + line * len(rows)

    def x(value: float) -> float:
        return names + axis.position(value) * (width - names - 30)

    parts: list[Markup] = []
    for tick in axis.ticks:
        at = _r(x(tick))
        parts += [element("line", class_="grid", x1=at, x2=at, y1=TOP, y2=bottom)]
        parts += [element("text", f"{tick:g} %", x=at, y=bottom + 18, text_anchor="middle")]
    for place, (name, value, low, high) in enumerate(rows):
        y, colour = TOP + line * (place + 0.5), place % COLOURS
        told = f"{name}: {100 * value:.2f} %, 95 % interval {100 * low:.2f} to {100 * high:.2f} %"
        parts.append(
            element(
                "g", element("title", told),
                element("text", name if len(name) <= 22 else name[:21] + "…", x=0, y=y + 4),
                element("line", class_=f"line c{colour}", x1=_r(x(100 * low)), x2=_r(x(100 * high)), y1=y, y2=y),
                element("circle", class_=f"f{colour}", cx=_r(x(100 * value)), cy=y, r=4.5),
            )
        )  # fmt: skip
    label = "Top-1 accuracy: " + "; ".join(f"{name} {100 * value:.2f} %" for name, value, *_ in rows)
    return element("svg", *parts, viewBox=f"0 0 {width} {bottom + 24}", role="img", aria_label=label, class_="wide")


def scatter(points: Sequence[Point]) -> Markup:
    """What was asked for against what was given, thinned out where there are many; the diagonal is right."""
    kept = points[:: math.ceil(len(points) / MOST_DOTS)]
    axis = linear_axis(min(min(point) for point in kept), max(max(point) for point in kept))
    places = [(axis.position(asked), axis.position(given)) for asked, given in kept]
    dots = "".join(f"M{_r(_along(x))} {_r(TOP + SQUARE * (1 - y))}h0" for x, y in places)
    parts = [*_frame(axis, "asked for", "given"), element("path", d=dots, class_="dots"), _diagonal()]
    return _square(parts, f"{len(kept):,} answers against what was asked for", 0)


def _frame(axis: Axis, across: str, up: str) -> list[Markup]:
    """Ticks, their lines and two names, of a square whose sides have the same axis."""
    parts = []
    for tick in axis.ticks:
        x, y = _r(_along(axis.position(tick))), _r(TOP + SQUARE * (1 - axis.position(tick)))
        parts.append(element("line", class_="grid", x1=LEFT, x2=LEFT + SQUARE, y1=y, y2=y))
        parts.append(element("text", f"{tick:g}", x=x, y=TOP + SQUARE + 16, text_anchor="middle"))
        parts.append(element("text", f"{tick:g}", x=LEFT - 6, y=_r(y + 4), text_anchor="end"))
    middle = TOP + SQUARE / 2
    parts.append(element("text", across, x=LEFT + SQUARE / 2, y=TOP + SQUARE + 34, text_anchor="middle"))
    parts.append(element("text", up, x=12, y=middle, transform=f"rotate(-90 12 {middle})", text_anchor="middle"))
    return parts


def _square(parts: Sequence[Markup], label: str, below: float) -> Markup:
    box = f"0 0 {LEFT + SQUARE + RIGHT} {TOP + SQUARE + BOTTOM + 4 + below}"
    return element("svg", *parts, viewBox=box, role="img", aria_label=label, class_="square")


def _diagonal() -> Markup:
    return element("line", class_="ideal", x1=LEFT, x2=LEFT + SQUARE, y1=TOP + SQUARE, y2=TOP)


def _bar(kind: str, left: float, right: float, top: float, bottom: float) -> Markup:
    return element("rect", class_=kind, x=_r(left), width=_r(right - left), y=_r(top), height=_r(bottom - top))


def _thinned(points: Sequence[Point]) -> list[Point]:
    """The points, or evenly chosen ones of them, the last always among them."""
    step = math.ceil(len(points) / MOST_POINTS)
    return [*points[:-1:step], points[-1]]


def _epochs(lines: Sequence[Line]) -> Axis:
    last = max(line.points[-1][0] for line in lines)
    ticks = tuple(tick for tick in linear_axis(0, last).ticks if tick <= last * 1.0001)
    return Axis(0, last, ticks)


def _values(lines: Sequence[Line], percent: bool) -> Axis:
    """From the first epoch's end on, where there is more: the steps before would flatten all that follows."""
    settled = [y for line in lines for x, y in line.points if x >= 1]
    values = settled or [y for line in lines for _, y in line.points]
    low, high = min(values), max(values)
    if percent:
        return linear_axis(low, high)
    if low > 0 and LOG_FROM <= high / low <= LOG_TO:
        return log_axis(low, high)
    return linear_axis(min(0.0, low), high)


def _place(x_axis: Axis, y_axis: Axis, point: Point) -> tuple[float, float]:
    x, y = point
    across, up = x_axis.position(x), y_axis.position(max(y, 1e-12) if y_axis.log else y)
    return _r(LEFT + across * (WIDTH - LEFT - RIGHT)), _r(HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM))


def _grid(x_axis: Axis, y_axis: Axis, percent: bool) -> list[Markup]:
    parts = []
    for tick in y_axis.ticks:
        y = _r(HEIGHT - BOTTOM - y_axis.position(tick) * (HEIGHT - TOP - BOTTOM))
        parts.append(element("line", class_="grid", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y))
        parts.append(element("text", f"{tick:g}{' %' * percent}", x=LEFT - 6, y=_r(y + 4), text_anchor="end"))
    for tick in x_axis.ticks:
        x = _r(LEFT + x_axis.position(tick) * (WIDTH - LEFT - RIGHT))
        parts.append(element("text", f"{tick:g}", x=x, y=HEIGHT - BOTTOM + 18, text_anchor="middle"))
    return parts


def _stroke(line: Line, places: Sequence[Point]) -> Markup:
    inside = [place for place in places if TOP - 0.1 <= place[1] <= HEIGHT - BOTTOM + 0.1]
    path = "M" + "L".join(f"{x} {y}" for x, y in inside or places)
    marks = "".join(f"M{x} {y}h0" for x, y in inside) if len(inside) <= FEW_POINTS else ""
    return joined([
        element("path", d=path, class_=f"line c{line.colour}"),
        element("path", d=marks, class_=f"marks c{line.colour}") if marks else None,
    ])  # fmt: skip


def _key(line: Line, percent: bool) -> Markup:
    value = element("output", _told(line.points[-1][1], percent))
    return element("span", element("i", class_=f"b{line.colour}"), f"{line.label} ", value, class_="key")


def _spoken(line: Line, percent: bool) -> str:
    return f"{line.label} from {_told(line.points[0][1], percent)} to {_told(line.points[-1][1], percent)}"


def _told(value: float, percent: bool) -> str:
    return f"{value:.2f} %" if percent else f"{value:.4g}"


def _along(fraction: float) -> float:
    return LEFT + SQUARE * fraction


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _r(value: float) -> float:
    return round(value, 1)
