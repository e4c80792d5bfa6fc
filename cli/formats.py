"""How rows and documents read as a table, as JSON, CSV and TSV, on the stdout that there is.

A row is a mapping; `columns` chooses and orders what table, tsv and csv show of it; json gives all of it. tsv writes a
tab, a line break and a backslash inside a cell as \\t, \\n and \\\\; csv quotes them.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TextIO

Row = Mapping[str, Any]
_answers: TextIO | None = None

# Control characters, line separators, and marks that reorder text: a file's name must not drive a terminal.
UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
TSV_ESCAPES = {"\t": "\\t", "\n": "\\n", "\r": "\\r", "\\": "\\\\"}


def table(rows: Iterable[Row], columns: Sequence[str]) -> str:
    """A table as wide as stdout; numbers stand to the right."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=SIMPLE_HEAD, pad_edge=False)
    found = list(rows)
    for column in columns:
        numbers = bool(found) and all(isinstance(row.get(column), int | float | None) for row in found)
        # a name is there to be copied: it is never folded
        drawn.add_column(column, justify="right" if numbers else "left", overflow="fold", no_wrap=column == "name")
    for row in found:
        drawn.add_row(*(Text(_shown(row.get(column))) for column in columns))
    return rendered(drawn)


def streamed_table(rows: Iterable[Row], columns: Sequence[str]) -> Iterator[str]:
    """A table line by line as rows come, its columns as wide as the rows so far needed."""
    widths = [len(column) for column in columns]
    for number, row in enumerate(rows):
        cells = [_shown(row.get(column)) for column in columns]
        widths = [max(width, len(cell)) for width, cell in zip(widths, cells, strict=True)]
        if number == 0:
            yield _padded(columns, widths)
        yield _padded(cells, widths)


def json_array(rows: Iterable[Row], columns: Sequence[str]) -> Iterator[str]:
    """One array, a row a line; `columns` is not asked."""
    opening = "[\n"
    for row in rows:
        yield opening + to_json(row)
        opening = ",\n"
    yield "[]\n" if opening == "[\n" else "\n]\n"


def csv_lines(rows: Iterable[Row], columns: Sequence[str]) -> Iterator[str]:
    """A header and a line a row, quoted as RFC 4180 says."""
    import csv

    line = io.StringIO()
    writer = csv.writer(line, lineterminator="\n")
    terminal = is_terminal(stdout())
    for cells in _with_header(rows, columns):
        writer.writerow([escape(cell) for cell in cells] if terminal else cells)
        yield line.getvalue()
        line.seek(0)
        line.truncate()


def tsv_lines(rows: Iterable[Row], columns: Sequence[str]) -> Iterator[str]:
    """A header and a line a row, one line each whatever a cell holds."""
    for cells in _with_header(rows, columns):
        kept = (re.sub(r"[\t\n\r\\]", lambda match: TSV_ESCAPES[match[0]], cell) for cell in cells)
        yield "\t".join(escape(cell) for cell in kept) + "\n"


def leaves(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each value of a document that has no parts, by the path to it: ("a.b", 1)."""
    for key, value in document.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON that any stdout can carry, NaN and infinities as null, paths as text."""
    text = json.dumps(_jsonable(value), indent=indent, ensure_ascii=not is_utf8(stdout()), allow_nan=False)
    return UNSAFE.sub(lambda match: match[0] if match[0] == "\n" else f"\\u{ord(match[0]):04x}", text)


def escape(text: str) -> str:
    """The text with control characters written out, safe to show on a terminal and one line long."""
    return UNSAFE.sub(_written_out, text)


def rendered(thing: Any) -> str:
    """What rich makes of a table or a text for stdout; in a pipe it is never cut or folded, and has no colours."""
    from rich.console import Console

    terminal = is_terminal(stdout())
    text = io.StringIO()
    width = None if terminal else 10_000
    colours: Literal["auto"] | None = "auto" if terminal and not os.environ.get("NO_COLOR") else None
    console = Console(file=text, force_terminal=terminal, color_system=colours, width=width, highlight=False)
    console.print(thing)
    return "".join(line.rstrip(" ") + "\n" for line in text.getvalue().strip("\n").split("\n"))


def stdout() -> TextIO | None:
    """Where answers go: the process's own stdout, which take_stdout keeps from libraries' output; None if closed."""
    return _answers or sys.stdout


def take_stdout() -> None:
    """Keep stdout for answers: what libraries print there, from Python or C, goes to stderr from now on."""
    global _answers
    if _answers is None and sys.stdout is not None:
        _answers = open(  # noqa: SIM115 -- it lives as long as the process
            os.dup(1), "w", encoding=sys.stdout.encoding, errors="backslashreplace", newline="\n", closefd=False
        )
        os.dup2(2, 1)


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person reads what is written there."""
    return stream is not None and stream.isatty()


def is_utf8(stream: TextIO | None) -> bool:
    """Whether it takes any letter."""
    return stream is not None and (stream.encoding or "").lower().replace("-", "") == "utf8"


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    if isinstance(value, float):
        return value if value - value == 0 else None  # JSON has no NaN and no infinity
    return value if isinstance(value, str | int | None) else str(value)


def _cell(value: Any) -> str:
    """A value as one cell: nothing for none, JSON for what has parts."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return to_json(value) if isinstance(value, Mapping | list | tuple) else str(value)


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else escape(_cell(value))


def _padded(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip() + "\n"


def _with_header(rows: Iterable[Row], columns: Sequence[str]) -> Iterator[list[str]]:
    yield list(columns)
    for row in rows:
        yield [_cell(row.get(column)) for column in columns]


def _written_out(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
