"""Learning curves of one or several runs, as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlkit.plots.curves import Panel, history_from_lines, learning_panels
from dlkit.plots.style import GRAY, figure, legend, line_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 3.9, 2.5  # of a panel, inches
GAPS = {"wspace": 0.2, "hspace": 0.4}  # between panels, in panels
LABEL_HEIGHT = 0.45  # below an axis, inches
COLUMNS = 2  # of panels
MAX_LEGEND_ROWS = 10  # a longer legend has two columns


def learning_curve(metrics: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw loss and accuracy over epochs, side by side, from the lines of metrics.jsonl."""
    write_curves(learning_panels(history_from_lines(metrics)), path)


def write_curves(panels: Sequence[Panel], path: Path, *, one_legend: bool = False) -> None:
    """Draw panels, two per row; with `one_legend` a single legend below them, for panels with the same labels."""
    columns, rows = min(COLUMNS, len(panels)), -(-len(panels) // COLUMNS)
    width, height = columns * WIDTH * (1 + GAPS["wspace"]), rows * HEIGHT * (1 + GAPS["hspace"])
    with figure(path, width - GAPS["wspace"] * WIDTH, height - GAPS["hspace"] * HEIGHT) as drawing:
        draw_curves(drawing, panels, one_legend=one_legend)


def draw_curves(drawing: Figure, panels: Sequence[Panel], *, one_legend: bool = False) -> None:
    columns = min(COLUMNS, len(panels))
    grid = drawing.subplots(-(-len(panels) // columns), columns, squeeze=False, gridspec_kw=GAPS).flat
    handles: dict[str, Any] = {}
    for axes, panel in zip(grid, panels, strict=False):
        lines = _draw_panel(axes, panel)
        handles |= lines
        if lines and not one_legend:
            legend(axes, list(lines.values()), list(lines))
    for axes in list(grid)[len(panels) :]:
        axes.remove()
    if one_legend and handles:
        columns = 1 if len(handles) <= MAX_LEGEND_ROWS else 2
        below = (0.5, -LABEL_HEIGHT / drawing.get_figheight())
        legend(drawing, list(handles.values()), list(handles), loc="upper center", bbox_to_anchor=below, ncols=columns)


def _draw_panel(axes: Axes, panel: Panel) -> dict[str, Any]:
    """Draw the curves; return the line of each label."""
    from matplotlib.ticker import MaxNLocator

    axes.set_title(panel.title)
    if not panel.curves:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "not logged", ha="center", va="center", color=GRAY, transform=axes.transAxes)
        return {}
    lines = {}
    for curve in panel.curves:
        (lines[curve.label],) = axes.plot(
            *zip(*curve.points, strict=True), **line_style(curve.index, len(curve.points))
        )
    axes.set_xlabel("epoch")
    axes.set_xlim(0, panel.last_epoch * 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if panel.is_log:
        axes.set_yscale("log")
    elif panel.loss:
        axes.set_ylim(bottom=0)
    _format_values(axes, panel)
    return lines


def _format_values(axes: Axes, panel: Panel) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    if panel.is_log:
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: panel.format_value(value)))
