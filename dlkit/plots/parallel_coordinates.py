"""The trials of a sweep as parallel coordinates: an axis for each parameter and one for the value, a line per trial.

Inselberg, "The plane with parallel coordinates", The Visual Computer 1, 1985.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlkit.config.search_space import Choice, Parameter
from dlkit.plots.axes import Axis, linear_axis, log_axis
from dlkit.plots.curves import is_accuracy
from dlkit.plots.style import BLUE, GRAY, ORANGE, figure, legend, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GAP, HEIGHT = 1.7, 3.6  # inches between two axes, and their height
UNUSED = "unused"
MAX_NAME = 20  # characters
MISSING_HEIGHT = -0.09  # of a trial without a value
MIN_ALPHA = 0.25  # of the worst trial that finished
ENDED = {"color": ORANGE, "alpha": 0.45, "linewidth": 0.9, "linestyle": ":"}


@dataclass(frozen=True)
class ParameterAxis:
    """The axis of a parameter: the position of a value between 0 and 1, and the tick labels."""

    name: str
    axis: Axis
    ticks: Sequence[tuple[float, str]]  # height, text
    names: tuple[str, ...] = ()  # of a choice

    def height(self, value: Any) -> float:
        if value is None:
            return MISSING_HEIGHT
        if self.names:
            value = self.names.index(value)
        return min(max(self.axis.position(float(value)), 0.0), 1.0)


@dataclass(frozen=True)
class TrialLine:
    """A trial: a value or None for each parameter, its result, and whether its training finished."""

    values: Sequence[Any]  # the name of a choice
    value: float | None
    finished: bool


def parameter_axis(parameter: Parameter, always: bool = True) -> ParameterAxis:
    """The axis of a parameter; `always` if every trial has a value there."""
    unused = [] if always else [(MISSING_HEIGHT, UNUSED)]
    if isinstance(parameter, Choice):
        axis = Axis(-0.5, len(parameter.names) - 0.5, tuple(range(len(parameter.names))))
        names = [(axis.position(tick), name) for tick, name in zip(axis.ticks, parameter.names, strict=True)]
        return ParameterAxis(parameter.key, axis, names + unused, parameter.names)
    axis = (log_axis if parameter.log else linear_axis)(parameter.low, parameter.high)
    ticks = tuple(tick for tick in axis.ticks if parameter.low <= tick <= parameter.high)
    axis = Axis(parameter.low, parameter.high, ticks, axis.log)
    return ParameterAxis(parameter.key, axis, [(axis.position(tick), f"{tick:g}") for tick in ticks] + unused)


def write_parallel(
    parameters: Sequence[ParameterAxis],
    trials: Sequence[TrialLine],
    title: str,
    metric: str,
    path: Path,
    *,
    lower_is_better: bool,
) -> None:
    with figure(path, GAP * len(parameters) + 1, HEIGHT + 0.5) as drawing:
        draw_parallel(drawing, parameters, trials, title, metric, lower_is_better=lower_is_better)


def draw_parallel(
    drawing: Figure,
    parameters: Sequence[ParameterAxis],
    trials: Sequence[TrialLine],
    title: str,
    metric: str,
    *,
    lower_is_better: bool,
) -> None:
    """A line per trial, darker if better; the best is thick and in front; dotted if it ended early."""
    # the value of a trial that ended early may be an outlier: it is drawn at the end of the axis
    values = [trial.value for trial in trials if trial.finished and trial.value is not None]
    columns = [*parameters, _value_axis(metric, values)]
    best = (min if lower_is_better else max)(values, default=None)
    axes = drawing.subplots()
    axes.set_axis_off()
    axes.set(title=title, xlim=(-0.3, len(columns) - 0.7), ylim=(MISSING_HEIGHT - 0.03, 1.17))
    handles: dict[str, Any] = {}
    for trial in sorted(trials, key=lambda trial: (trial.finished, trial.value == best)):
        row = [*trial.values, *([] if trial.value is None else [trial.value])]
        heights = [column.height(value) for column, value in zip(columns, row, strict=False)]
        name, style = _style(trial, values, best, lower_is_better)
        (handles[name],) = axes.plot(range(len(heights)), heights, **style)
    for index, column in enumerate(columns):
        _draw_axis(axes, index, column)
    if handles:
        legend(drawing, list(handles.values()), list(handles), loc="upper center", bbox_to_anchor=(0.5, 0), ncols=3)


def _value_axis(metric: str, values: Sequence[float]) -> ParameterAxis:
    axis = linear_axis(min(values), max(values)) if values else linear_axis(0, 1)
    percent = is_accuracy(metric)
    ticks = [(axis.position(tick), f"{100 * tick:.4g} %" if percent else f"{tick:g}") for tick in axis.ticks]
    return ParameterAxis(metric, axis, ticks)


def _style(
    trial: TrialLine, values: Sequence[float], best: float | None, lower_is_better: bool
) -> tuple[str, dict[str, Any]]:
    """The label in the legend, and the line style."""
    if not trial.finished or trial.value is None:
        return "ended early", ENDED
    if trial.value == best:
        return "best", {"color": BLUE, "linewidth": 3}
    worse = sum(value > trial.value if lower_is_better else value < trial.value for value in values)
    return "other trials, darker if better", {"color": BLUE, "alpha": MIN_ALPHA + 0.5 * worse / len(values)}


def _draw_axis(axes: Axes, index: int, column: ParameterAxis) -> None:
    section, _, key = column.name.rpartition(".")
    axes.text(index, 1.04, shorten(key, MAX_NAME), ha="center", va="bottom")
    axes.text(index, 1.1, shorten(section, MAX_NAME), ha="center", va="bottom", color=GRAY, fontsize=8)
    axes.plot([index, index], [0, 1], color=GRAY, linewidth=0.8, zorder=3)
    for height, text in column.ticks:
        axes.plot([index - 0.02, index], [height, height], color=GRAY, linewidth=0.8, zorder=3)
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.8}
        axes.text(index - 0.04, height, shorten(text, MAX_NAME), ha="right", va="center", fontsize=8, bbox=box)
