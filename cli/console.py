"""What dlkit says and how: answers on stdout in the format asked for, everything else on stderr."""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from dlkit.errors import StorageError

from . import formats
from .formats import Row

if TYPE_CHECKING:
    from tqdm import tqdm


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

GREEN, PLAIN = "\x1b[32m", "\x1b[0m"  # an epoch that is the best so far
CURVES = ("bright_blue", "dark_orange", "green", "magenta", "red", "cyan", "yellow", "white")  # their colours
LONGEST_LINE = 2000  # characters of an error or a warning
PLAIN_PROGRESS_S = 30.0  # seconds between two lines where stderr is no terminal


def note(text: str) -> None:
    """Say something on stderr that a person may want to know; --quiet drops it."""
    if not settings.quiet:
        _say(formats.escape(text))


def warn(text: str) -> None:
    """Say something on stderr that a person should know, --quiet or not."""
    _say(f"dlkit: warning: {_shortened(formats.escape(text))}")


def say(text: str) -> None:
    """How library code logs: "warning: …", "important: …" (such as which model answers), which -q keeps, or a note.

    The line of an epoch that is the best so far is green on a terminal.
    """
    kind, _, rest = text.partition(": ")
    if kind == "warning":
        warn(rest)
    elif kind == "important":
        _say(formats.escape(rest))
    elif not settings.quiet:
        line = formats.escape(text)
        _say(f"{GREEN}{line}{PLAIN}" if text.endswith("  best") and has_color(sys.stderr) else line)


def has_color(stream: TextIO | None) -> bool:
    """Whether colors are wanted there: on a terminal, unless NO_COLOR or a terminal without them says otherwise."""
    return formats.is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def error(text: str) -> None:
    """Say on stderr, in one line, what went wrong."""
    line = _shortened(formats.escape(" ".join(text.split())))
    _say(line if line.startswith("dlkit ") else f"dlkit: {line}")


def _shortened(text: str) -> str:
    """The text without its middle if stderr shows very much of it: an error may quote a name of any length."""
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    text = text.encode(encoding, "backslashreplace").decode(encoding)
    return text if len(text) <= LONGEST_LINE else f"{text[: LONGEST_LINE - 500]} ... {text[-495:]}"


def resolve(format: Format | str, json_flag: bool = False) -> Format:
    """The format to write in: --json is --format json; auto is a table on a terminal and tsv in a pipe."""
    if json_flag:
        return Format.json
    if format == Format.auto:
        return Format.table if formats.is_terminal(formats.stdout()) else Format.tsv
    return Format(format)


def write_rows(
    rows: Iterable[Row],
    columns: Sequence[str],
    format: Format | str,
    *,
    stream: bool = False,
    optional: Sequence[str] = (),
) -> None:
    """Write rows to stdout as they come; only a table waits for all of them, unless `stream` is set.

    On a narrow terminal a table leaves out the `optional` columns, the last first, so that a row takes one line.
    json is one array. A table that streams has columns as wide as its first rows needed.
    """
    format = resolve(format)
    if format == Format.table and not stream:
        _put(formats.table(rows, columns, optional))
        return
    writers = {
        Format.table: formats.streamed_table,
        Format.json: formats.json_array,
        Format.jsonl: lambda rows, columns: (formats.to_json(row) + "\n" for row in rows),
        Format.csv: formats.csv_lines,
        Format.tsv: formats.tsv_lines,
    }
    for text in writers[format](rows, columns):
        _put(text)


def write_document(document: Mapping[str, Any], format: Format | str) -> None:
    """Write one document to stdout; in table, tsv and csv its leaves are rows of key and value."""
    format = resolve(format)
    if format == Format.json:
        _put(formats.to_json(document, indent=2) + "\n")
    elif format == Format.jsonl:
        _put(formats.to_json(document) + "\n")
    else:
        write_rows(({"key": key, "value": value} for key, value in formats.leaves(document)), ("key", "value"), format)


def write_text(text: str) -> None:
    """Write text to stdout as it is: a recipe, a path. Ends the line where the text does not."""
    _put(text if text.endswith("\n") else text + "\n")


def write_chart(rows: Iterable[Sequence[tuple[str, int | None]]]) -> None:
    """Write rows of text to stdout, each a few pieces with the number of the curve whose colour they have."""
    from rich.text import Text

    def style(curve: int | None) -> str:
        return "" if curve is None else CURVES[curve % len(CURVES)]

    lines = (Text.assemble(*((formats.escape(text), style(curve)) for text, curve in row)) for row in rows)
    _put(formats.rendered(Text("\n").join(lines)))


def on_terminal() -> bool:
    """Whether answers are read by a person."""
    return formats.is_terminal(formats.stdout())


def takes_unicode() -> bool:
    """Whether stdout shows any letter."""
    return formats.takes_unicode()


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
                total=total, desc=formats.escape(description), unit="B" if scaled else f" {unit}", unit_scale=scaled,
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
    return settings.progress and not settings.quiet and formats.is_terminal(sys.stderr)


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
    if (stream := formats.stdout()) is not None:
        with _stdout_errors():
            stream.flush()


def release_streams() -> None:
    """Flush all streams; one that fails is pointed at nothing, as a failed last flush changes the exit code to 120."""
    for stream in (formats.stdout(), sys.stdout, sys.stderr):
        if stream is None:
            continue
        try:
            stream.flush()
        except (OSError, ValueError):
            _discard(stream)


def _discard(stream: TextIO) -> None:
    with suppress(OSError, ValueError):
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, stream.fileno())
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
    if (stream := formats.stdout()) is None:
        raise StorageError("cannot write the answer to stdout: it is closed.")
    with _stdout_errors():
        stream.write(text)
        stream.flush()


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
