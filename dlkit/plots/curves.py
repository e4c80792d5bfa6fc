"""The metrics of runs over epochs: as panels for an image, a terminal or a page, and as rows for a pipe."""

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
LOG_RATIO = 20  # a loss that falls to a twentieth is drawn on a logarithmic axis

Line = Mapping[str, Any]  # of metrics.jsonl
Point = tuple[float, float]

# the panels of a single run
SERIES: dict[str, tuple[tuple[str, str], ...]] = {
    "Loss": (("train/loss", "train"), ("val/loss", "validation")),
    "Accuracy": (
        ("train/top1", "train top-1"),
        ("val/top1", "validation top-1"),
        ("val/top5", "validation top-5"),
    ),
}
# the panels of several runs: of each line the first metric that one of them recorded
COMPARISON_SERIES = (("val/loss", "train/loss"), ("val/top1", "train/top1"))


@dataclass(frozen=True)
class Curve:
    """One line of a panel: (epoch, value) in order."""

    label: str
    index: int  # of its color and dashes
    points: Sequence[Point]


@dataclass(frozen=True)
class Panel:
    """Curves that share their axes; `percent` adds that sign to values, and the axis of a `loss` starts at 0."""

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
        integers = (tick for tick in linear_axis(0, last).ticks if tick == round(tick) and tick <= last + 1e-9)
        return Axis(0, last, tuple(integers))

    @property
    def is_log(self) -> bool:
        """Whether the values are drawn on a logarithmic axis."""
        values = self._values
        return self.loss and min(values) > 0 and max(values) / min(values) >= LOG_RATIO

    def value_axis(self, ticks: int = 6) -> Axis:
        values = self._values
        if self.is_log:
            return log_axis(min(values), max(values))
        return linear_axis(0 if self.loss else min(values), max(values), ticks)

    def format_value(self, value: float) -> str:
        """A value as an axis label."""
        return f"{value:.4g}" + (" %" if self.percent else "")


@dataclass(frozen=True)
class MetricHistory:
    """The lines that a run has logged so far."""

    label: str
    lines: Sequence[Line]
    steps_per_epoch: float

    @property
    def metrics(self) -> list[str]:
        """The names of the metrics."""
        numbers = {key for line in self.lines for key, value in line.items() if _is_number(value)}
        return sorted(numbers - {"step", "epoch"})

    def points(self, metric: str) -> list[Point]:
        """(epoch, value), accuracies in percent, of the lines with a finite number under that name."""
        factor = 100.0 if is_accuracy(metric) else 1.0
        points = [(line["step"] / self.steps_per_epoch, line.get(metric)) for line in self.lines]
        return [(x, factor * y) for x, y in points if y is not None and _is_number(y) and math.isfinite(y)]


def load_histories(runs: Sequence[RunFolder], say: Callable[[str], None] = lambda text: None) -> list[MetricHistory]:
    """The metrics of the runs, each labeled with its name, or with its path if two runs have the same name.

    Damaged lines are skipped with a warning, and so are unreadable runs among others.

    Raises:
        ModelFileError, StorageError: the only run cannot be read.
        DataError: none of the runs has logged anything yet.
    """
    names = [run.name for run in runs]
    histories = []
    for run in runs:
        try:
            histories.append(load_history(run, run.name if names.count(run.name) == 1 else str(run.path), say))
        except DlkitError as error:
            if len(runs) == 1:
                raise
            say(f"warning: {error}")
    if not any(history.metrics for history in histories):
        where = ", ".join(f"{run.path}/metrics.jsonl" for run in runs)
        raise DataError(f"no metrics yet in {where}. Training logs them every train.log_every steps.")
    return histories


def select_metrics(runs: Sequence[MetricHistory], metrics: Sequence[str]) -> list[str]:
    """The requested metrics, by default those of the usual panels.

    Raises:
        UsageError: no run has logged a requested metric.
    """
    known = list(dict.fromkeys(metric for run in runs for metric in run.metrics))
    for metric in metrics:
        if metric not in known:
            where = "in this run" if len(runs) == 1 else "in any of these runs"
            raise UsageError(f"metric {metric!r} not found {where}. {did_you_mean(metric, known)}")
    if metrics:
        return list(dict.fromkeys(metrics))
    if len(runs) == 1:
        defaults = [key for series in SERIES.values() for key, _ in series if key in known]
    else:
        defaults = [logged[0] for keys in COMPARISON_SERIES if (logged := [key for key in keys if key in known])]
    return defaults or known[:1]


def make_panels(runs: Sequence[MetricHistory], metrics: Sequence[str] = ()) -> list[Panel]:
    """Loss and accuracy of a single run; for several runs, or with requested metrics, a panel for each metric."""
    if len(runs) == 1 and not metrics:
        return learning_panels(runs[0])
    return [metric_panel(runs, metric) for metric in select_metrics(runs, metrics)]


def learning_panels(run: MetricHistory) -> list[Panel]:
    """Loss and accuracy, training and validation; a panel has no curves if none was logged."""
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


def rows(runs: Sequence[MetricHistory], metrics: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """A row for each number, as it was logged."""
    for metric in select_metrics(runs, metrics):
        for run in runs:
            for line in run.lines:
                if _is_number(line.get(metric)):
                    yield {
                        "schema": SCHEMA, "step": line["step"], "epoch": line["epoch"], "run": run.label,
                        "metric": metric, "value": line[metric],
                    }  # fmt: skip


def missing_metrics(runs: Sequence[MetricHistory], metrics: Sequence[str]) -> list[str]:
    """A sentence for each metric that a run has not logged, while another has."""
    return [
        f"{run.label} has not logged {metric}"
        for metric in select_metrics(runs, metrics)
        for run in runs
        if metric not in run.metrics and len(runs) > 1
    ]


def history_from_lines(lines: Sequence[Line], label: str = "") -> MetricHistory:
    """The history of the lines of a metrics.jsonl, if nothing else is known of the run."""
    ends = (line["step"] / line["epoch"] for line in lines if line.get("epoch"))
    return MetricHistory(label, lines, max(ends, default=1.0))


def is_accuracy(metric: str) -> bool:
    """Whether a metric is an accuracy, a fraction between 0 and 1."""
    return metric.rpartition("/")[2].startswith("top")


def load_history(run: RunFolder, label: str, say: Callable[[str], None] = lambda text: None) -> MetricHistory:
    """A run's lines and its steps per epoch, from its sizes: in the first epoch the lines do not show them."""
    info, lines = run.info(), run.metrics(say)
    try:
        steps = -(-info["data"]["train"]["samples"] // run.recipe().train.batch_size)
    except (ModelFileError, UsageError, KeyError):
        return history_from_lines(lines, label)
    return MetricHistory(label, lines, steps)


def metric_panel(runs: Sequence[MetricHistory], metric: str) -> Panel:
    """A curve of the metric for each run that has logged it."""
    curves = [Curve(run.label, index, points) for index, run in enumerate(runs) if (points := run.points(metric))]
    return Panel(metric, curves, percent=is_accuracy(metric), loss=metric.endswith("loss"))


def _is_uninformative(metric: str, points: Sequence[Point]) -> bool:
    """Whether a top-5 accuracy is always 100 %, as with five classes."""
    return metric.endswith("top5") and all(value == 100 for _, value in points)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
