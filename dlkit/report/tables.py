"""Tables of the report, and how its numbers are told."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from dlkit.report.markup import Markup, element

TITLES = {
    "loss": "Loss, nats", "ece": "Calibration error", "brier": "Brier score",
    "mse": "Mean squared error", "rmse": "Root mean squared error", "mae": "Mean absolute error",
}  # fmt: skip
SHARES = ("top", "balanced_", "macro_", "weighted_", "ece")  # metrics told in percent

Show = Callable[[Any], str]


def values(heads: Sequence[str], rows: Sequence[Sequence[Any]], shows: Sequence[Show], *, sort: bool = False) -> Markup:
    """A table of values, the first of each row its name; `shows` tells each column, `str` words and the others numbers.

    With `sort` its heads are buttons, by which the page's script sorts it.
    """
    body = []
    for row in rows:
        cells = [element("th", shows[0](row[0]), scope="row", data_value=row[0])]
        for value, show in zip(row[1:], shows[1:], strict=True):
            told = "" if value is None else show(value)
            cells.append(element("td", told, class_=_kind(show), data_value=value))
        body.append(element("tr", *cells))
    head = [
        element("th", element("button", text, type="button") if sort else text, scope="col", class_=_kind(show))
        for text, show in zip(heads, shows, strict=True)
    ]
    parts = element("thead", element("tr", *head)), element("tbody", *body)
    return scrolled(element("table", *parts, class_="sortable" if sort else None))


def plain(heads: Sequence[str], rows: Iterable[Sequence[Markup]], numbers: Sequence[str] = ()) -> Markup:
    """A table of ready cells; `numbers` are the heads of columns that hold some."""
    cells = [element("th", text, scope="col", class_="n" if text in numbers else None) for text in heads]
    head = element("thead", element("tr", *cells)) if heads else None
    return scrolled(element("table", head, element("tbody", *(element("tr", *cells) for cells in rows))))


def scrolled(table: Markup) -> Markup:
    """A table that may be wider or longer than the page."""
    return element("div", table, class_="scroll")


def title(metric: str) -> str:
    """A metric's name, for a person."""
    sentence = metric.replace("_", " ").replace("top", "top-").capitalize().replace("f1", "F1")
    if metric.startswith("top") and not metric.endswith("error"):
        return f"{sentence} accuracy"
    return TITLES.get(metric, sentence)


def shows(metric: str) -> Show:
    """How a metric's value is told."""
    return percent if metric.startswith(SHARES) else short


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


def _kind(show: Show) -> str | None:
    return None if show is str else "n"
