"""How rows and documents read as a table, as JSON, CSV and TSV, on the stdout that there is.

A row is a mapping; `columns` chooses and orders what table, tsv and csv show of it; json gives all of it. tsv writes a
tab, a line break and a backslash inside a cell as \\t, \\n and \\\\; csv quotes them, and puts an apostrophe before
text that a spreadsheet would run as a formula. tsv does not: it is for pipes, which want the text as it is.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, TextIO

from dlkit import csv_text

Row = Mapping[str, Any]
_answers: TextIO | None = None

# Control characters, line separators, and marks that reorder text: a file's name must not drive a terminal.
UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
GAP, EDGES = 3, 2  # spaces between two columns, and around all
SHORTEST_CELL = 12  # characters of a cell that is shortened
TSV_ESCAPES = {"\t": "\\t", "\n": "\\n", "\r": "\\r", "\\": "\\\\"}


class Quantity(int):
    """A number that a table shows with a unit of a thousand: 11.7M."""

    def __str__(self) -> str:
        for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
            if self >= size:
                return f"{self / size:.3g}{unit}" if self < 999.5 * size else f"{self // size}{unit}"
        return int.__repr__(self)


class Percentage(float):
    """A fraction that a table shows as a percentage: 69.8 %."""

    def __format__(self, spec: str) -> str:
        return f"{100 * float(self):.1f} %"


def table(rows: Iterable[Row], columns: Sequence[str], optional: Sequence[str] = ()) -> str:
    """A table as wide as stdout; numbers are aligned to the right.

    Cells are folded if it is too narrow. With `optional`, every row takes one line: these columns are left out, the
    last first, until the others fit, and then the longest cells are shortened in the middle.
    """
    from rich.table import Table
    from rich.text import Text

    records = list(rows)
    cells = {column: [_shown(row.get(column)) for row in records] for column in columns}
    if optional:
        cells = _on_one_line(cells, list(optional), _width())
    drawn = Table(box=_box(), pad_edge=False)
    for column in cells:
        is_number = bool(records) and all(isinstance(row.get(column), int | float | None) for row in records)
        # a name is there to be copied: it is never folded
        drawn.add_column(column, justify="right" if is_number else "left", overflow="fold", no_wrap=column == "name")
    for row in zip(*cells.values(), strict=True):
        drawn.add_row(*map(Text, row))
    return rendered(drawn)


def _on_one_line(cells: dict[str, list[str]], optional: list[str], width: int) -> dict[str, list[str]]:
    """The columns that fit, with cells shortened if the required ones alone do not."""

    def widths() -> dict[str, int]:
        return {column: max(map(len, [column, *texts])) for column, texts in cells.items()}

    def excess() -> int:
        return sum(widths().values()) + GAP * (len(cells) - 1) + EDGES - width

    while optional and excess() > 0:
        cells = {column: texts for column, texts in cells.items() if column != optional[-1]}
        optional.pop()
    while excess() > 0 and max(widths().values()) > SHORTEST_CELL:
        longest = max(widths(), key=widths().__getitem__)
        room = max(SHORTEST_CELL, widths()[longest] - excess())
        cells = {**cells, longest: [_shortened(text, room) for text in cells[longest]]}
    return cells


def _shortened(text: str, room: int) -> str:
    dots = "…" if takes_unicode() else "..."
    kept = room - len(dots)
    return text if len(text) <= room else text[: kept - kept // 2] + dots + text[len(text) - kept // 2 :]


def _box() -> Any:
    """Rules of a table: lines below the header, of hyphens if the terminal shows ASCII only."""
    from rich.box import SIMPLE_HEAD, Box

    return SIMPLE_HEAD if takes_unicode() else Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)


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
    terminal = is_terminal(stdout())
    for cells in _with_header(rows, columns):
        yield csv_text.line(map(escape, cells) if terminal else cells)


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
    width = _width()
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


def takes_unicode() -> bool:
    """Whether stdout shows any letter: its encoding does, and the locale is not plain C."""
    variables = os.environ.get
    # Python itself sets LC_CTYPE to C.UTF-8 where it found the C locale (PEP 538)
    locale = variables("LC_ALL") or variables("LC_CTYPE", "").replace("C.UTF-8", "") or variables("LANG")
    return is_utf8(stdout()) and locale not in ("C", "POSIX")


def _width() -> int:
    """The columns of the terminal that stdout is; in a pipe nothing is cut or folded."""
    stream = stdout()
    if stream is None or not stream.isatty():
        return 10_000
    if (columns := os.environ.get("COLUMNS", "")).isdecimal() and int(columns) > 0:
        return int(columns)
    with suppress(OSError, ValueError):
        return os.get_terminal_size(stream.fileno()).columns or 80
    return 80


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
