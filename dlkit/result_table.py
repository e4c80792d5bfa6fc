"""What results offer beside their fields: a dictionary, a pandas table, and a table in a notebook."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from dlkit.errors import UsageError

Rows = Sequence[Mapping[str, Any]]
MOST_ROWS = 60  # in a notebook


class ResultTable:
    """A result that has a JSON form and rows."""

    def document(self) -> dict[str, Any]:
        """The JSON form."""
        raise NotImplementedError

    def rows(self) -> Rows:
        """The table's rows, all with the same keys."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """The JSON form as a dictionary."""
        return self.document()

    def to_pandas(self) -> Any:
        """The rows as a pandas.DataFrame.

        Raises:
            UsageError: pandas is not installed.
        """
        return data_frame(self.rows())

    def _repr_html_(self) -> str:
        return html_table(self.rows())


def data_frame(rows: Rows) -> Any:
    """The rows as a pandas.DataFrame.

    Raises:
        UsageError: pandas is not installed.
    """
    try:
        pandas = importlib.import_module("pandas")  # it has no types of its own
    except ImportError as error:
        raise UsageError("to_pandas needs pandas: python -m pip install pandas.") from error
    return pandas.DataFrame([dict(row) for row in rows])


def html_table(rows: Rows) -> str:
    """The rows for a notebook, numbers to the right."""
    if not rows:
        return "<p>no rows</p>"
    head = "".join(f"<th>{escape(name)}</th>" for name in rows[0])
    body = "".join(f"<tr>{''.join(map(_cell, row.values()))}</tr>" for row in rows[:MOST_ROWS])
    more = f"<p>and {len(rows) - MOST_ROWS:,} more rows</p>" if len(rows) > MOST_ROWS else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def joined(results: Iterable[ResultTable]) -> Rows:
    """The rows of several results, each with all keys."""
    rows = [row for result in results for row in result.rows()]
    names = list(dict.fromkeys(name for row in rows for name in row))
    return [{name: row.get(name) for name in names} for row in rows]


def _cell(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"<td style='text-align:left'>{'' if value is None else escape(str(value))}</td>"
    text = f"{value:.4f}" if isinstance(value, float) else f"{value:,}"
    return f"<td style='text-align:right'>{text}</td>"
