"""What of runs is plotted: their metrics over epochs, as panels for a picture or a terminal, and as rows for a pipe."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dlkit.errors import DataError, DlkitError, ModelFileError, UsageError
from dlkit.plots.axes import Axis, linear_axis, log_axis
from dlkit.registry import did_you_mean
from dlkit.runs.run_folder import RunFolder

SCHEMA = "dlkit.plot/1"
COLUMNS = ("step", "epoch", "run", "metric", "value")
LOG_FROM = 20  # a loss that falls to a twentieth is drawn on a logarithmic axis

Line = Mapping[str, Any]  # of metrics.jsonl
Point = tuple[float, float]

# what is shown of one run
SERIES: dict[str, tuple[tuple[str, str], ...]] = {
    "Loss": (("train/loss", "train"), ("val/loss", "validation")),
    "Accuracy": (
        ("train/top1", "train top-1"),
        ("val/top1", "validation top-1"),
        ("val/top5", "validation top-5"),
    ),
}
# what is shown of several: the first of each line that one of them recorded
OF_SEVERAL = (("val/loss", "train/loss"), ("val/top1", "train/top1"))


@dataclass(frozen=True)
class Curve:
    """One line of a panel: (epoch, value) in order."""

    label: str
    index: int  # of its color and dashes
    points: Sequence[Point]


@dataclass(frozen=True)
class Panel:
    """Curves that share their axes; percent are values that are shown with that sign, and loss begins at 0."""

    title: str
    curves: Sequence[Curve]
    percent: bool = False
    loss: bool = False

    @property
    def _values(self) -> list[float]:
        return [y for curve in self.curves for _, y in curve.points]

    @property
    def last_epoch(self) -> float:
        return max(1.0, *(x for curve in self.curves for x, _ in curve.points))

    def epoch_axis(self) -> Axis:
        last = self.last_epoch
        whole = (tick for tick in linear_axis(0, last).ticks if tick == round(tick) and tick <= last + 1e-9)
        return Axis(0, last, tuple(whole))

    @property
    def is_log(self) -> bool:
        """Whether the values are drawn on a logarithmic axis."""
        values = self._values
        return self.loss and min(values) > 0 and max(values) / min(values) >= LOG_FROM

    def value_axis(self, ticks: int = 6) -> Axis:
        values = self._values
        if self.is_log:
            return log_axis(min(values), max(values))
        return linear_axis(0 if self.loss else min(values), max(values), ticks)

    def shown(self, value: float) -> str:
        """A value as it stands beside an axis."""
        return f"{value:.4g}" + (" %" if self.percent else "")


@dataclass(frozen=True)
class Recorded:
    """What a run has written down so far."""

    label: str
    lines: Sequence[Line]
    steps_per_epoch: float

    @property
    def metrics(self) -> list[str]:
        """The names of what can be plotted."""
        kept = {key for line in self.lines for key, value in line.items() if _is_number(value)}
        return sorted(kept - {"step", "epoch"})

    def points(self, metric: str) -> list[Point]:
        """(epoch, value), accuracies in percent, for the lines that hold a finite number of that name."""
        factor = 100.0 if is_accuracy(metric) else 1.0
        found = [(line["step"] / self.steps_per_epoch, line.get(metric)) for line in self.lines]
        return [(x, factor * y) for x, y in found if y is not None and _is_number(y) and math.isfinite(y)]


def recorded(runs: Sequence[RunFolder], say: Callable[[str], None] = lambda text: None) -> list[Recorded]:
    """What these runs have written down, each under its name, or its path where two are called alike.

    Damaged lines, and runs that cannot be read beside others, are named and left out.

    Raises:
        ModelFileError, StorageError: the only run cannot be read.
        DataError: none of them has written down anything yet.
    """
    names = [run.name for run in runs]
    found = []
    for run in runs:
        try:
            found.append(_recorded(run, run.name if names.count(run.name) == 1 else str(run.path), say))
        except DlkitError as error:
            if len(runs) == 1:
                raise
            say(f"warning: {error}")
    if not any(one.metrics for one in found):
        where = ", ".join(f"{run.path}/metrics.jsonl" for run in runs)
        raise DataError(f"nothing is recorded yet in {where}. A training writes there every train.log_every steps.")
    return found


def chosen(runs: Sequence[Recorded], metrics: Sequence[str]) -> list[str]:
    """The metrics to show: those asked for, or else those that tell most of one run or of several.

    Raises:
        UsageError: no run recorded one that was asked for.
    """
    known = list(dict.fromkeys(metric for run in runs for metric in run.metrics))
    for metric in metrics:
        if metric not in known:
            where = "in this run" if len(runs) == 1 else "in any of these runs"
            raise UsageError(f"no metric {metric!r} is recorded {where}. {did_you_mean(metric, known)}")
    if metrics:
        return list(dict.fromkeys(metrics))
    if len(runs) == 1:
        usual = [key for series in SERIES.values() for key, _ in series if key in known]
    else:
        usual = [there[0] for keys in OF_SEVERAL if (there := [key for key in keys if key in known])]
    return usual or known[:1]


def panels(runs: Sequence[Recorded], metrics: Sequence[str] = ()) -> list[Panel]:
    """Of one run its loss and its accuracy; of several, or of metrics asked for, a panel for each metric."""
    if len(runs) == 1 and not metrics:
        return learning_panels(runs[0])
    return [_panel(runs, metric) for metric in chosen(runs, metrics)]


def learning_panels(run: Recorded) -> list[Panel]:
    """Loss and accuracy, in training and in validation; a panel without curves where none was recorded."""
    return [
        Panel(
            title,
            [
                Curve(label, index, points)
                for index, (key, label) in enumerate(series)
                if (points := run.points(key)) and not _is_uninformative(key, points)
            ],
            percent=title == "Accuracy",
            loss=title == "Loss",
        )
        for title, series in SERIES.items()
    ]


def rows(runs: Sequence[Recorded], metrics: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """A row for each number, as it was recorded."""
    for metric in chosen(runs, metrics):
        for run in runs:
            for line in run.lines:
                if _is_number(line.get(metric)):
                    yield {
                        "schema": SCHEMA, "step": line["step"], "epoch": line["epoch"], "run": run.label,
                        "metric": metric, "value": line[metric],
                    }  # fmt: skip


def without(runs: Sequence[Recorded], metrics: Sequence[str]) -> list[str]:
    """What runs have not recorded of what others have, a sentence each."""
    return [
        f"{run.label} has not recorded {metric}"
        for metric in chosen(runs, metrics)
        for run in runs
        if metric not in run.metrics and len(runs) > 1
    ]


def from_lines(lines: Sequence[Line], label: str = "") -> Recorded:
    """What a metrics.jsonl holds, where nothing else of its run is known."""
    ends = (line["step"] / line["epoch"] for line in lines if line.get("epoch"))
    return Recorded(label, lines, max(ends, default=1.0))


def is_accuracy(metric: str) -> bool:
    """Whether a metric is a share of right answers, between 0 and 1."""
    return metric.rpartition("/")[2].startswith("top")


def _recorded(run: RunFolder, label: str, say: Callable[[str], None]) -> Recorded:
    """A run's lines, with the steps of an epoch that its sizes say: before the first has ended no line does."""
    info, lines = run.info(), run.metrics(say)
    try:
        steps = -(-info["data"]["train"]["samples"] // run.recipe().train.batch_size)
    except (ModelFileError, UsageError, KeyError):
        return from_lines(lines, label)
    return Recorded(label, lines, steps)


def _panel(runs: Sequence[Recorded], metric: str) -> Panel:
    curves = [Curve(run.label, index, points) for index, run in enumerate(runs) if (points := run.points(metric))]
    return Panel(metric, curves, percent=is_accuracy(metric), loss=metric.endswith("loss"))


def _is_uninformative(metric: str, points: Sequence[Point]) -> bool:
    """Whether a top-5 is always 100 %, as that of five classes is."""
    return metric.endswith("top5") and all(value == 100 for _, value in points)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
