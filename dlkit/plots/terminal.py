"""Curves in a terminal: a panel drawn with braille dots, or with letters where there is no Unicode.

A cell holds 2 × 4 dots. Each curve has a letter: it stands where the curve ends, and before its name below.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence

from dlkit.plots.axes import Axis
from dlkit.plots.curves import Curve, Panel, Point

Span = tuple[str, int | None]  # text, and the number of the curve whose colour it has
Row = list[Span]
Cell = tuple[int, int]  # column and row, from the upper left

DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # of a braille cell, by row and column
BRAILLE = 0x2800
EPOCH = "epoch"
LETTERS = string.ascii_lowercase + string.ascii_uppercase
LEAST_WIDTH, LEAST_HEIGHT = 16, 4  # cells of the drawing
TICK_ROWS = 3  # rows from one value beside the axis to the next, at least


def chart(panel: Panel, width: int, height: int, *, unicode: bool = True) -> list[Row]:
    """A panel as rows of text, `width` columns wide; `height` rows are the drawing's, without title, axis and names."""
    if not panel.curves:
        return [[(panel.title, None)], [("not recorded", None)]]
    x_axis, y_axis = panel.epoch_axis(), panel.value_axis(max(2, height // TICK_ROWS))
    height = max(height, LEAST_HEIGHT)
    labels = _value_labels(panel, y_axis, height)
    margin = max(len(EPOCH), *map(len, labels.values()))
    columns = max(width - margin - 4, LEAST_WIDTH)  # the axis, and a letter with a space
    canvas = _Canvas(columns, height, x_axis, y_axis, unicode)
    for number, curve in enumerate(panel.curves):
        canvas.draw(curve.points, number)
    line, tick, corner, below = "│┤└─" if unicode else "|++-"
    rows: list[Row] = [[(panel.title, None)]]
    for row, (cells, letter) in enumerate(zip(canvas.rows(), canvas.letters(panel.curves), strict=True)):
        label = labels.get(row, "")
        rows.append([(label.rjust(margin) + " " + (tick if label else line), None), *cells, (" ", None), letter])
    rows.append([(" " * (margin + 1) + corner + below * columns, None)])
    rows.append([(EPOCH.rjust(margin) + "  " + _epoch_labels(x_axis, columns), None)])
    return [*rows, *_names(panel)]


class _Canvas:
    """Cells with the dots that are set in each, and the number of the curve that came last."""

    def __init__(self, columns: int, height: int, x_axis: Axis, y_axis: Axis, unicode: bool) -> None:
        self.columns, self.height, self.x_axis, self.y_axis, self.unicode = columns, height, x_axis, y_axis, unicode
        self.dots: dict[Cell, int] = {}
        self.owners: dict[Cell, int] = {}

    def draw(self, points: Sequence[Point], number: int) -> None:
        places = [self._dot(point) for point in points]
        for start, end in zip(places, [*places[1:], places[-1]], strict=True):
            for x, y in _between(start, end):
                cell = (x // 2, y // 4)
                self.dots[cell] = self.dots.get(cell, 0) | DOTS[y % 4][x % 2]
                self.owners[cell] = number

    def rows(self) -> Iterator[Row]:
        for row in range(self.height):
            yield [self._span((column, row)) for column in range(self.columns)]

    def letters(self, curves: Sequence[Curve]) -> list[Span]:
        """Each curve's letter in the row where it ends, or in the nearest that is free; a space in the other rows."""
        found: list[Span] = [(" ", None)] * self.height
        for number, curve in enumerate(curves[: self.height]):
            wanted = self._dot(curve.points[-1])[1] // 4
            free = (row for row in range(self.height) if found[row][1] is None)
            found[min(free, key=lambda row: abs(row - wanted))] = (_letter(number), number)
        return found

    def _dot(self, point: Point) -> Cell:
        x, y = self.x_axis.place(point[0]), 1 - self.y_axis.place(point[1])
        return round(x * (2 * self.columns - 1)), round(y * (4 * self.height - 1))

    def _span(self, cell: Cell) -> Span:
        if cell not in self.dots:
            return " ", None
        owner = self.owners[cell]
        return (chr(BRAILLE + self.dots[cell]) if self.unicode else _letter(owner)), owner


def _between(start: Cell, end: Cell) -> Iterator[Cell]:
    """The dots of a straight line, both ends among them."""
    steps = max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1)
    for step in range(steps + 1):
        share = step / steps
        yield round(start[0] + share * (end[0] - start[0])), round(start[1] + share * (end[1] - start[1]))


def _value_labels(panel: Panel, axis: Axis, height: int) -> dict[int, str]:
    """Row → what stands beside it; of two ticks in one row the first alone."""
    found: dict[int, str] = {}
    for tick in axis.ticks:
        found.setdefault(round((1 - axis.place(tick)) * (height - 1)), panel.shown(tick))
    return found


def _epoch_labels(axis: Axis, columns: int) -> str:
    """The ticks of the axis below their places, as many as have room."""
    line = " " * columns
    for tick in axis.ticks:
        text = f"{tick:g}"
        start = min(max(round(axis.place(tick) * (columns - 1)) - len(text) // 2, 0), columns - len(text))
        if not line[max(start - 1, 0) : start + len(text) + 1].strip():
            line = line[:start] + text + line[start + len(text) :]
    return line.rstrip()


def _names(panel: Panel) -> Iterator[Row]:
    for number, curve in enumerate(panel.curves):
        last = curve.points[-1]
        yield [(f"{_letter(number)} {curve.label}", number), (f"  {panel.shown(last[1])} at epoch {last[0]:g}", None)]


def _letter(number: int) -> str:
    return LETTERS[number % len(LETTERS)]
