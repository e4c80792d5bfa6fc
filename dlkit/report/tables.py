"""Tables of the report, and the format of its numbers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

TITLES = {
    "loss": "Loss, nats", "ece": "Calibration error", "brier": "Brier score",
    "mse": "Mean squared error", "rmse": "Root mean squared error", "mae": "Mean absolute error",
}  # fmt: skip
FRACTIONS = ("top", "balanced_", "macro_", "weighted_", "ece")  # prefixes of metrics in percent

Format = Callable[[Any], str]


@dataclass(frozen=True)
class TableCell:
    text: str
    value: Any  # by which the page sorts
    is_number: bool


@dataclass(frozen=True)
class Table:
    """Rows of values, the first of each row its name; `str` formats a column of text, other functions numbers."""

    heads: Sequence[str]
    formats: Sequence[Format]
    rows: Sequence[Sequence[Any]]
    sortable: bool = False

    @property
    def columns(self) -> list[tuple[str, bool]]:
        """The head of each column, and whether it has numbers."""
        return [(head, format is not str) for head, format in zip(self.heads, self.formats, strict=True)]

    def cells(self) -> Iterator[list[TableCell]]:
        for row in self.rows:
            yield [
                TableCell("" if value is None else format(value), value, format is not str)
                for value, format in zip(row, self.formats, strict=True)
            ]


def metric_title(metric: str) -> str:
    """The display name of a metric."""
    sentence = metric.replace("_", " ").replace("top", "top-").capitalize().replace("f1", "F1")
    if metric.startswith("top") and not metric.endswith("error"):
        return f"{sentence} accuracy"
    return TITLES.get(metric, sentence)


def metric_format(metric: str) -> Format:
    return percent if metric.startswith(FRACTIONS) else short


def percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def short(value: float) -> str:
    return f"{value:.4g}"


def count(value: int) -> str:
    return f"{value:,}"


def setting(value: Any) -> str:
    """A value of a recipe."""
    return value if isinstance(value, str) else json.dumps(value)


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
