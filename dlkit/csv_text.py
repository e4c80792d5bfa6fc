"""CSV as RFC 4180 has it, with text that no spreadsheet runs as a formula."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

# A number stays one, and so do - and -:3, which name stdin and its third line: no spreadsheet runs them.
HARMLESS = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|-inf|-(:\d+)?")


def safe(cell: Any) -> Any:
    """The cell, with an apostrophe before text that begins like a formula (OWASP, "CSV Injection")."""
    is_formula = isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠"))
    return f"'{cell}" if is_formula and not HARMLESS.fullmatch(cell) else cell


def line(cells: Iterable[Any]) -> str:
    """One row; quoted as RFC 4180 says, with a line feed at its end."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow([safe(cell) for cell in cells])  # quotes cells with either
    return text.getvalue()[:-2] + "\n"


def document(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as a whole file."""
    return "".join(map(line, rows))
