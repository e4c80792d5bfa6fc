"""Curves in a terminal: a panel drawn with braille dots, or with letters if the terminal has no Unicode.

A cell holds 2 × 4 dots. Each curve has a letter, which marks its end and precedes its name in the legend.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence

from dlkit.plots.axes import Axis
from dlkit.plots.curves import Curve, Panel, Point

Span = tuple[str, int | None]  # text, and the number of the curve whose color it has
Row = list[Span]
Cell = tuple[int, int]  # column and row, from the upper left

DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # of a braille cell, by row and column
BRAILLE = 0x2800
EPOCH = "epoch"
LETTERS = string.ascii_lowercase + string.ascii_uppercase
MIN_WIDTH, MIN_HEIGHT = 16, 4  # cells of the plot area
TICK_ROWS = 3  # minimum distance of two labels of the value axis


def chart(panel: Panel, width: int, height: int, *, unicode: bool = True) -> list[Row]:
    """A panel as rows of text, `width` columns wide; `height` is that of the plot area alone."""
    if not panel.curves:
        return [[(panel.title, None)], [("not logged", None)]]
    x_axis, y_axis = panel.epoch_axis(), panel.value_axis(max(2, height // TICK_ROWS))
    height = max(height, MIN_HEIGHT)
    labels = _value_labels(panel, y_axis, height)
    margin = max(len(EPOCH), *map(len, labels.values()))
    columns = max(width - margin - 4, MIN_WIDTH)  # the axis, and a letter with a space
    canvas = _Canvas(columns, height, x_axis, y_axis, unicode)
    for number, curve in enumerate(panel.curves):
        canvas.draw(curve.points, number)
    line, tick, corner, base = "│┤└─" if unicode else "|++-"
    rows: list[Row] = [[(panel.title, None)]]
    for row, (cells, letter) in enumerate(zip(canvas.rows(), canvas.letters(panel.curves), strict=True)):
        label = labels.get(row, "")
        rows.append([(label.rjust(margin) + " " + (tick if label else line), None), *cells, (" ", None), letter])
    rows.append([(" " * (margin + 1) + corner + base * columns, None)])
    rows.append([(EPOCH.rjust(margin) + "  " + _epoch_labels(x_axis, columns), None)])
    return [*rows, *_legend(panel)]


class _Canvas:
    """A grid of cells, with the dots of each cell and the number of the curve drawn last."""

    def __init__(self, columns: int, height: int, x_axis: Axis, y_axis: Axis, unicode: bool) -> None:
        self.columns, self.height, self.x_axis, self.y_axis, self.unicode = columns, height, x_axis, y_axis, unicode
        self.dots: dict[Cell, int] = {}
        self.owners: dict[Cell, int] = {}

    def draw(self, points: Sequence[Point], number: int) -> None:
        dots = [self._dot(point) for point in points]
        for start, end in zip(dots, [*dots[1:], dots[-1]], strict=True):
            for x, y in _line_dots(start, end):
                cell = (x // 2, y // 4)
                self.dots[cell] = self.dots.get(cell, 0) | DOTS[y % 4][x % 2]
                self.owners[cell] = number

    def rows(self) -> Iterator[Row]:
        for row in range(self.height):
            yield [self._span((column, row)) for column in range(self.columns)]

    def letters(self, curves: Sequence[Curve]) -> list[Span]:
        """Each curve's letter in the row of its end, or the nearest free row; a space in the other rows."""
        letters: list[Span] = [(" ", None)] * self.height
        for number, curve in enumerate(curves[: self.height]):
            end = self._dot(curve.points[-1])[1] // 4
            free = (row for row in range(self.height) if letters[row][1] is None)
            letters[min(free, key=lambda row: abs(row - end))] = (_letter(number), number)
        return letters

    def _dot(self, point: Point) -> Cell:
        x, y = self.x_axis.position(point[0]), 1 - self.y_axis.position(point[1])
        return round(x * (2 * self.columns - 1)), round(y * (4 * self.height - 1))

    def _span(self, cell: Cell) -> Span:
        if cell not in self.dots:
            return " ", None
        owner = self.owners[cell]
        return (chr(BRAILLE + self.dots[cell]) if self.unicode else _letter(owner)), owner


def _line_dots(start: Cell, end: Cell) -> Iterator[Cell]:
    """The dots of a straight line, including both ends."""
    steps = max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1)
    for step in range(steps + 1):
        t = step / steps
        yield round(start[0] + t * (end[0] - start[0])), round(start[1] + t * (end[1] - start[1]))


def _value_labels(panel: Panel, axis: Axis, height: int) -> dict[int, str]:
    """The label of each row with a tick; of two ticks in one row only the first."""
    labels: dict[int, str] = {}
    for tick in axis.ticks:
        labels.setdefault(round((1 - axis.position(tick)) * (height - 1)), panel.format_value(tick))
    return labels


def _epoch_labels(axis: Axis, columns: int) -> str:
    """The labels of the axis below their ticks, as many as fit."""
    line = " " * columns
    for tick in axis.ticks:
        text = f"{tick:g}"
        start = min(max(round(axis.position(tick) * (columns - 1)) - len(text) // 2, 0), columns - len(text))
        if not line[max(start - 1, 0) : start + len(text) + 1].strip():
            line = line[:start] + text + line[start + len(text) :]
    return line.rstrip()


def _legend(panel: Panel) -> Iterator[Row]:
    for number, curve in enumerate(panel.curves):
        last = curve.points[-1]
        yield [
            (f"{_letter(number)} {curve.label}", number),
            (f"  {panel.format_value(last[1])} at epoch {last[0]:g}", None),
        ]


def _letter(number: int) -> str:
    return LETTERS[number % len(LETTERS)]
