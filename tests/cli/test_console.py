"""What the command line says: formats, escapes, terminals and pipes, and streams that refuse."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dlkit.errors import StorageError
from dlkit_cli import console, formats
from dlkit_cli.console import Format

NASTY = "a\tb\nc\\d\x1b[2J\x9b\u202ee\x07"
ROWS = [
    {"path": "x.png", "rank": 1, "p": 0.1234567, "more": [1, 2]},
    {"path": NASTY, "rank": None, "p": 1.0, "more": {}},
]
COLUMNS = ("path", "rank", "p")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Refusing(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "settings", console.Settings())
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")


def terminal_for(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal as stdout; no fixture, since pytest takes stdout over between a fixture and its test."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    return stream


def written(capsys: pytest.CaptureFixture[str], format: str, **options: Any) -> str:
    console.write_rows(ROWS, COLUMNS, format, **options)
    return capsys.readouterr().out


def test_auto_is_a_table_on_a_terminal_and_tsv_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal_for(monkeypatch)
    assert console.resolve(Format.auto) == Format.table
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert console.resolve(Format.auto) == Format.tsv
    assert console.resolve(Format.csv) == Format.csv
    assert console.resolve(Format.csv, json_flag=True) == Format.json


def test_tsv_has_one_line_a_row_and_one_cell_a_column(capsys: pytest.CaptureFixture[str]) -> None:
    lines = written(capsys, "tsv").split("\n")
    assert lines[-1] == "" and len(lines) == 4
    assert lines[0].split("\t") == list(COLUMNS)
    assert lines[1].split("\t") == ["x.png", "1", "0.1234567"]
    assert lines[2].split("\t") == [r"a\tb\nc\\d\x1b[2J\x9b\u202ee\x07", "", "1.0"]


def test_csv_reads_back_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    header, *rows = csv.reader(io.StringIO(written(capsys, "csv"), newline=""))
    assert header == list(COLUMNS) and rows == [["x.png", "1", "0.1234567"], [NASTY, "", "1.0"]]


def test_csv_text_that_a_spreadsheet_would_run_is_escaped_and_numbers_stay_numbers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "＝1", "-x"]
    kept = ["-5", "+1.5e-3", -0.5, "-:3", "-", "a=b", "", "7"]
    console.write_rows([{"c": cell} for cell in [*text, *kept]], ("c",), "csv")
    _, *rows = csv.reader(io.StringIO(capsys.readouterr().out, newline=""))
    assert rows == [[f"'{cell}"] for cell in text] + [[str(cell)] for cell in kept]
    console.write_rows([{"c": text[0]}], ("c",), "tsv")
    assert capsys.readouterr().out.splitlines()[1] == text[0], "tsv is for pipes"


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
def test_a_row_takes_one_line_of_a_narrow_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_for(monkeypatch)
    monkeypatch.setenv("COLUMNS", str(columns))
    row = {"name": "resnet20-cifar10-20261201-101500", "model": "resnet20", "when": "2026-12-01T10:15:00Z", "n": 3}
    console.write_rows([row] * 3, ("name", "model", "n", "when"), "table", optional=("n", "when"))
    lines = [line[1:] for line in terminal.getvalue().splitlines() if line.strip()]
    assert len(lines) == 5 and max(map(len, lines)) < columns
    shown = row["name"] if columns > 40 else row["name"][:12]
    assert all(line.startswith(shown) and "resnet20" in line[len(shown) :] for line in lines[2:])
    assert ("2026-12-01" in lines[2]) == (columns >= 80), "the last optional column is left out first"


@pytest.mark.parametrize(
    ("encoding", "locale", "ascii"),
    [("ascii", "de_DE.UTF-8", True), ("utf-8", "C", True), ("utf-8", "POSIX", True), ("utf-8", "de_DE.UTF-8", False),
     ("utf-8", "", False)],
)  # fmt: skip
def test_an_ascii_terminal_gets_ascii_rules(
    encoding: str, locale: str, ascii: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("LANG", locale)
    monkeypatch.delenv("LC_ALL", raising=False)
    monkeypatch.setenv("LC_CTYPE", "C.UTF-8")  # as Python itself sets it
    monkeypatch.setenv("COLUMNS", "14")
    console.write_rows([{"name": "x" * 30, "n": 3}], ("name", "n"), "table", optional=("n",))
    stream.flush()
    text = stream.buffer.getvalue().decode()  # type: ignore[attr-defined]
    assert ("---" in text and "..." in text) == ascii and ("──" in text and "…" in text) != ascii


def test_quiet_keeps_what_is_important(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(console, "settings", console.Settings(quiet=True))
    for text in ("a note", "important: using the newest run, runs/a", "warning: odd"):
        console.say(text)
    assert capsys.readouterr().err == "using the newest run, runs/a\ndlkit: warning: odd\n"


@pytest.mark.parametrize("format", ["json", "jsonl"])
def test_json_holds_all_of_a_row_exactly(format: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = written(capsys, format)
    found = json.loads(text) if format == "json" else [json.loads(line) for line in text.splitlines()]
    assert found == ROWS
    assert not any(mark in text for mark in "\x1b\x9b\u202e\x07")


def test_json_of_no_rows_is_an_empty_array(capsys: pytest.CaptureFixture[str]) -> None:
    console.write_rows([], COLUMNS, "json")
    assert json.loads(capsys.readouterr().out) == []


def test_json_has_no_nan_and_takes_paths() -> None:
    document = {"a": float("nan"), "b": [float("-inf"), 1.5], "c": Path("x"), "d": True, "e": None}
    assert json.loads(formats.to_json(document)) == {"a": None, "b": [None, 1.5], "c": "x", "d": True, "e": None}


def test_json_is_ascii_where_the_stream_is(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="backslashreplace")
    monkeypatch.setattr(sys, "stdout", stream)
    console.write_document({"path": "é\U0001f600\udcff"}, "jsonl")
    stream.flush()
    assert json.loads(stream.buffer.getvalue().decode("ascii"))["path"] == "é\U0001f600\udcff"  # type: ignore[attr-defined]


@pytest.mark.parametrize("stream", [False, True])
def test_a_table_shows_no_control_character(stream: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_for(monkeypatch)
    console.write_rows(ROWS, COLUMNS, "auto", stream=stream)
    text = terminal.getvalue()
    assert "x.png" in text and r"a\x09b\x0ac\d\x1b[2J" in text and "0.1235" in text
    assert not any(mark in text for mark in "\x1b\x9b\u202e\x07\t")


def test_csv_on_a_terminal_is_escaped_too(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_for(monkeypatch)
    console.write_rows(ROWS, COLUMNS, "csv")
    assert "x.png" in terminal.getvalue() and "\x1b" not in terminal.getvalue()


def test_a_table_in_a_pipe_is_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    console.write_rows([{"a": "x" * 5000}], ("a",), "table")
    assert "x" * 5000 in capsys.readouterr().out


@pytest.mark.parametrize("format", ["tsv", "csv", "jsonl", "json", "table"])
def test_a_row_is_out_before_the_next_is_made(format: str, capsys: pytest.CaptureFixture[str]) -> None:
    seen = []

    def rows() -> Iterator[dict[str, Any]]:
        for number in range(3):
            yield {"n": number}
            seen.append(f"{number}" in capsys.readouterr().out)

    console.write_rows(rows(), ("n",), format, stream=True)
    assert seen == [True, True, True]


def test_a_document_in_tsv_has_its_leaves(capsys: pytest.CaptureFixture[str]) -> None:
    console.write_document({"a": {"b": 1, "c": {"d": None}}, "e": [1], "f": {}}, "tsv")
    assert capsys.readouterr().out == "key\tvalue\na.b\t1\na.c.d\t\ne\t[1]\nf\t{}\n"


def test_notes_go_to_stderr_and_quiet_drops_them_but_not_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    console.say("hello")
    console.say("warning: careful")
    console.settings.quiet = True
    console.note("unheard")
    console.say("warning: careful \x1b[31m")
    console.error("no\nsuch  thing")
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "hello\ndlkit: warning: careful\ndlkit: warning: careful \\x1b[31m\ndlkit: no such thing\n"


def test_an_error_that_quotes_a_long_name_keeps_its_beginning_and_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    for show in (console.error, console.warn):
        show(f"a.csv:2: no file '{'9' * 100_000}'. Correct it.")
        line = capsys.readouterr().err
        assert line.startswith("dlkit: ") and "a.csv:2: no file" in line and line.endswith("'. Correct it.\n")
        assert len(line) < console.LONGEST_LINE + 30 and line.count("\n") == 1
        for character in ("\x01", "\udc81"):  # each is shown as four or six characters
            show(1500 * character)
            assert len(capsys.readouterr().err) < console.LONGEST_LINE + 30


def test_a_stdout_that_refuses_is_a_storage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Refusing())
    with pytest.raises(StorageError, match="stdout: No space left"):
        console.write_text("x")
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(StorageError, match="closed"):
        console.write_text("x")


def test_a_stderr_that_refuses_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream in (Refusing(), None):
        monkeypatch.setattr(sys, "stderr", stream)
        console.note("x")
        console.warn("x")


def test_progress_is_a_line_now_and_then_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "PLAIN_PROGRESS_S", 0.0)
    with console.progress(10, "testing", "images") as bar:
        bar.advance(4)
    assert capsys.readouterr().err.startswith("testing: 4/10 (40%) images, ")
    monkeypatch.setattr(console, "PLAIN_PROGRESS_S", 30.0)
    with console.progress(None, "testing") as bar:
        bar.advance(4)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("silent", [{"quiet": True}, {"progress": False}])
def test_no_progress_means_none(silent: dict[str, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(console, "settings", console.Settings(**silent))
    monkeypatch.setattr(console, "PLAIN_PROGRESS_S", 0.0)
    with console.progress(10, "testing") as bar:
        bar.advance(4)
    assert stream.getvalue() == "" and not console.shows_progress()


def test_a_bar_is_drawn_on_a_terminal_and_notes_stand_above_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with console.progress(10, "testing") as bar:
        bar.advance(4)
        console.note("a note")
    assert "testing" in stream.getvalue() and "\ra note\n" in stream.getvalue().replace(" " * 8, "").replace(
        "\r\r", "\r"
    )
