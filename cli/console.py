"""What dlkit says and how: answers on stdout in the format asked for, everything else on stderr.

A row is a mapping; `columns` chooses and orders what table, tsv and csv show of it; json and jsonl give all of it.
tsv writes a tab, a line break and a backslash inside a cell as \\t, \\n and \\\\; csv quotes them.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TextIO

from dlkit.errors import StorageError

if TYPE_CHECKING:
    from tqdm import tqdm

Row = Mapping[str, Any]


class ReaderGone(Exception):
    """Whoever read stdout has closed it: no error, but nothing is left to do."""


class Format(StrEnum):
    auto = "auto"
    table = "table"
    json = "json"
    jsonl = "jsonl"
    csv = "csv"
    tsv = "tsv"


@dataclass
class Settings:
    """How the command line is to be spoken to; main.py fills it from --quiet, --no-progress and --debug."""

    quiet: bool = False
    progress: bool = True
    debug: bool = False


settings = Settings()

# Control characters, line separators, and marks that reorder text: a file's name must not drive a terminal.
UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
TSV_ESCAPES = {"\t": "\\t", "\n": "\\n", "\r": "\\r", "\\": "\\\\"}
CURVES = ("bright_blue", "dark_orange", "green", "magenta", "red", "cyan", "yellow", "white")  # their colours
PLAIN_PROGRESS_S = 30.0  # seconds between two lines where stderr is no terminal


def escape(text: str) -> str:
    """The text with control characters written out, safe to show on a terminal and one line long."""
    return UNSAFE.sub(_written_out, text)


def note(text: str) -> None:
    """Say something on stderr that a person may want to know; --quiet drops it."""
    if not settings.quiet:
        _say(escape(text))


def warn(text: str) -> None:
    """Say something on stderr that a person should know, --quiet or not."""
    _say(f"dlkit: warning: {escape(text)}")


def say(text: str) -> None:
    """How library code speaks: a note, or a warning where the text starts with "warning: "."""
    kind, _, rest = text.partition(": ")
    if kind == "warning":
        warn(rest)
    else:
        note(text)


def error(text: str) -> None:
    """Say on stderr, in one line, what went wrong."""
    line = escape(" ".join(text.split()))
    _say(line if line.startswith("dlkit ") else f"dlkit: {line}")


def resolve(format: Format | str, json_flag: bool = False) -> Format:
    """The format to write in: --json is --format json; auto is a table on a terminal and tsv in a pipe."""
    if json_flag:
        return Format.json
    if format == Format.auto:
        return Format.table if _is_terminal(sys.stdout) else Format.tsv
    return Format(format)


def write_rows(rows: Iterable[Row], columns: Sequence[str], format: Format | str, *, stream: bool = False) -> None:
    """Write rows to stdout as they come; only a table waits for all of them, unless `stream` is set.

    json is one array. A table that streams has columns as wide as its first rows needed.
    """
    format = resolve(format)
    if format == Format.table and not stream:
        _put(_table(rows, columns))
        return
    writers = {
        Format.table: _streamed_table,
        Format.json: _json_array,
        Format.jsonl: lambda rows, columns: (to_json(row) + "\n" for row in rows),
        Format.csv: _csv_lines,
        Format.tsv: _tsv_lines,
    }
    for text in writers[format](rows, columns):
        _put(text)


def write_document(document: Mapping[str, Any], format: Format | str) -> None:
    """Write one document to stdout; in table, tsv and csv its leaves are rows of key and value."""
    format = resolve(format)
    if format == Format.json:
        _put(to_json(document, indent=2) + "\n")
    elif format == Format.jsonl:
        _put(to_json(document) + "\n")
    else:
        write_rows(({"key": key, "value": value} for key, value in _leaves(document)), ("key", "value"), format)


def write_text(text: str) -> None:
    """Write text to stdout as it is: a recipe, a path. Ends the line where the text does not."""
    _put(text if text.endswith("\n") else text + "\n")


def write_chart(rows: Iterable[Sequence[tuple[str, int | None]]]) -> None:
    """Write rows of text to stdout, each a few pieces with the number of the curve whose colour they have."""
    from rich.text import Text

    def style(curve: int | None) -> str:
        return "" if curve is None else CURVES[curve % len(CURVES)]

    lines = (Text.assemble(*((escape(text), style(curve)) for text, curve in row)) for row in rows)
    _put(rendered(Text("\n").join(lines)))


def on_terminal() -> bool:
    """Whether answers are read by a person."""
    return _is_terminal(sys.stdout)


def takes_unicode() -> bool:
    """Whether stdout shows any letter."""
    return _is_utf8(sys.stdout)


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON that any stdout can carry, NaN and infinities as null, paths as text."""
    text = json.dumps(_jsonable(value), indent=indent, ensure_ascii=not _is_utf8(sys.stdout), allow_nan=False)
    return UNSAFE.sub(lambda match: match[0] if match[0] == "\n" else f"\\u{ord(match[0]):04x}", text)


class Progress:
    """A bar where stderr is a terminal, else a plain line every 30 s; nothing with --quiet or --no-progress.

    with progress(total=60_000, description="testing", unit="images") as bar:
        bar.advance(128)
    """

    def __init__(self, total: int | None, description: str, unit: str) -> None:
        self.total, self.description, self.unit = total, description, unit
        self.done = 0
        self._bar: tqdm[Any] | None = None
        self._started = self._told = time.monotonic()
        if shows_progress():
            from tqdm import tqdm

            scaled = unit in ("B", "bytes")
            self._bar = tqdm(
                total=total, desc=escape(description), unit="B" if scaled else f" {unit}", unit_scale=scaled,
                leave=False, dynamic_ncols=True, file=sys.stderr,
            )  # fmt: skip

    def advance(self, count: int = 1) -> None:
        """Count that many more of the unit as done."""
        self.done += count
        if self._bar is not None:
            with suppress(OSError):  # the terminal may go away; the work goes on
                self._bar.update(count)
        elif settings.progress and time.monotonic() - self._told >= PLAIN_PROGRESS_S:
            self._told = time.monotonic()
            note(self._line())

    def close(self) -> None:
        """Take the bar off the screen."""
        if self._bar is not None:
            with suppress(OSError):
                self._bar.close()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _line(self) -> str:
        share = f"/{self.total} ({self.done / self.total:.0%})" if self.total else ""
        rate = self.done / max(time.monotonic() - self._started, 1e-9)
        return f"{self.description}: {self.done}{share} {self.unit}, {rate:.4g} {self.unit}/s"


def progress(total: int | None, description: str, unit: str = "images") -> Progress:
    """Progress through `total` units (None: unknown), for a with statement."""
    return Progress(total, description, unit)


def shows_progress() -> bool:
    """Whether bars are wanted and there is a terminal to draw them on."""
    return settings.progress and not settings.quiet and _is_terminal(sys.stderr)


def prepare_streams() -> None:
    """Make both streams take any text, whatever the locale, and keep closed descriptors from being reused.

    Without the second, a file opened later would become descriptor 1, and a stray print would write into a checkpoint.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, this one
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def flush() -> None:
    """Hand what was written to stdout over to its reader.

    Raises:
        StorageError: it could not be written. ReaderGone: its reader closed the pipe.
    """
    if sys.stdout is not None:
        with _stdout_errors():
            sys.stdout.flush()


def discard_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's last flush cannot fail."""
    with suppress(OSError, ValueError):
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 1)
        os.close(devnull)


@contextmanager
def _stdout_errors() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        raise ReaderGone from error
    except OSError as error:
        raise StorageError(f"cannot write the answer to stdout: {error.strerror or error}.") from error


def _put(text: str) -> None:
    if sys.stdout is None:
        raise StorageError("cannot write the answer to stdout: it is closed.")
    with _stdout_errors():
        sys.stdout.write(text)
        sys.stdout.flush()


def _say(line: str) -> None:
    if sys.stderr is not None:
        with suppress(OSError), _above_bars():  # losing stderr must not lose the work
            sys.stderr.write(line + "\n")
            sys.stderr.flush()


def _above_bars() -> AbstractContextManager[None]:
    """Takes the bars off the screen while a line is written, where there can be any."""
    if "tqdm" not in sys.modules:
        return nullcontext()
    from tqdm import tqdm

    return tqdm.external_write_mode(file=sys.stderr)


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()


def _is_utf8(stream: TextIO | None) -> bool:
    return stream is not None and (stream.encoding or "").lower().replace("-", "") == "utf8"


def _written_out(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


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


def _leaves(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in document.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _table(rows: Iterable[Row], columns: Sequence[str]) -> str:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    found = list(rows)
    for column in columns:
        numbers = bool(found) and all(isinstance(row.get(column), int | float | None) for row in found)
        # a name is there to be copied: it is never folded
        table.add_column(column, justify="right" if numbers else "left", overflow="fold", no_wrap=column == "name")
    for row in found:
        table.add_row(*(Text(_shown(row.get(column))) for column in columns))
    return rendered(table)


def rendered(thing: Any) -> str:
    """What rich makes of a table or a text for stdout; in a pipe it is never cut or folded, and has no colours."""
    from rich.console import Console

    terminal = _is_terminal(sys.stdout)
    text = io.StringIO()
    width = None if terminal else 10_000
    colours: Literal["auto"] | None = "auto" if terminal and not os.environ.get("NO_COLOR") else None
    console = Console(file=text, force_terminal=terminal, color_system=colours, width=width, highlight=False)
    console.print(thing)
    return "".join(line.rstrip(" ") + "\n" for line in text.getvalue().strip("\n").split("\n"))


def _streamed_table(rows: Iterable[Row], columns: Sequence[str]) -> Iterator[str]:
    widths = [len(column) for column in columns]
    for number, row in enumerate(rows):
        cells = [_shown(row.get(column)) for column in columns]
        widths = [max(width, len(cell)) for width, cell in zip(widths, cells, strict=True)]
        if number == 0:
            yield _padded(columns, widths)
        yield _padded(cells, widths)


def _padded(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip() + "\n"


def _json_array(rows: Iterable[Row], columns: Sequence[str]) -> Iterator[str]:
    opening = "[\n"
    for row in rows:
        yield opening + to_json(row)
        opening = ",\n"
    yield "[]\n" if opening == "[\n" else "\n]\n"


def _csv_lines(rows: Iterable[Row], columns: Sequence[str]) -> Iterator[str]:
    import csv

    line = io.StringIO()
    writer = csv.writer(line, lineterminator="\n")
    terminal = _is_terminal(sys.stdout)
    for cells in _with_header(rows, columns):
        writer.writerow([escape(cell) for cell in cells] if terminal else cells)
        yield line.getvalue()
        line.seek(0)
        line.truncate()


def _tsv_lines(rows: Iterable[Row], columns: Sequence[str]) -> Iterator[str]:
    for cells in _with_header(rows, columns):
        kept = (re.sub(r"[\t\n\r\\]", lambda match: TSV_ESCAPES[match[0]], cell) for cell in cells)
        yield "\t".join(escape(cell) for cell in kept) + "\n"


def _with_header(rows: Iterable[Row], columns: Sequence[str]) -> Iterator[list[str]]:
    yield list(columns)
    for row in rows:
        yield [_cell(row.get(column)) for column in columns]
