"""What predict and explain share: the inputs that the command line names, and the count of those that failed."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from dlkit.errors import DataError, PartialError, StorageError, UsageError
from dlkit.privacy import offline

if TYPE_CHECKING:
    from dlkit.data.inputs import InputLike

STDIN_LIMIT = 512 << 20  # bytes of an image on stdin

Answer = TypeVar("Answer")

Paths = Annotated[
    list[str] | None,
    typer.Argument(help="Images, texts, folders, globs or URLs; - reads stdin: a line a path, or a line a text."),
]
Null = Annotated[bool, typer.Option("-0", "--null", help="The paths on stdin end in NUL, as find -print0 writes.")]
StdinImage = Annotated[bool, typer.Option("--stdin-image", help="Read one image's bytes from stdin.")]
Weights = Annotated[
    str | None,
    typer.Option("--weights", metavar="imagenet|RUN|FILE", help="For --model NAME; FILE:ema takes averaged weights."),
]
Classes = Annotated[
    str | None,
    typer.Option("--classes", metavar="FILE|DATASET", help="Of a bare --weights FILE: a name a line, or a data set."),
]
ImgSize = Annotated[
    int | None, typer.Option("--img-size", metavar="N", help="Of a bare --weights FILE: pixels a side of its images.")
]
Mean = Annotated[
    str | None, typer.Option("--mean", metavar="R,G,B", help="Of a bare --weights FILE: of pixels from 0 to 1.")
]
Std = Annotated[str | None, typer.Option("--std", metavar="R,G,B", help="The standard deviation that goes with it.")]
ModelOptions = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="KEY=VALUE", help="An option of --model NAME; may be repeated."),
]
Run = Annotated[str | None, typer.Option("--run", help="A run's name or folder; the newest where none is given.")]


def model_options(settings: Iterable[str] | None) -> dict[str, Any]:
    """The options of a model that --option sets."""
    from dlkit.config import yaml_file

    options = {}
    for setting in settings or ():
        key, equals, value = setting.partition("=")
        if not (key and equals):
            raise UsageError(f"--option {setting!r} has no value. Write KEY=VALUE, such as activation=tanh.")
        options[key] = yaml_file.parse_value(value, f"--option {key}")
    return options


def numbers(text: str | None, flag: str) -> list[float] | None:
    """The numbers in 0.485,0.456,0.406."""
    if text is None:
        return None
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = [math.nan]
    if not all(map(math.isfinite, found)):
        raise UsageError(f"{flag} {text!r}: it takes numbers with commas between, such as 0.485,0.456,0.406.")
    return found


@dataclass
class Count:
    """How many answers went by, how many of them say that an input could not be read, and why the first could not."""

    all: int = 0
    failed: int = 0
    first: str = ""

    def of(self, answers: Iterable[Any]) -> Iterator[dict[str, Any]]:
        """The answers' documents, counted."""
        for answer in answers:
            document: dict[str, Any] = answer.document()
            self.all += 1
            if "error" in document:
                self.failed += 1
                self.first = self.first or document["error"]["message"]
            yield document

    def report(self) -> None:
        """Raise what the exit code should say.

        Raises:
            DataError: no input could be read. PartialError: some could not.
        """
        if not self.failed:
            return
        what = "1 input could not be read" if self.failed == 1 else f"{self.failed} inputs could not be read, first"
        raise (DataError if self.failed == self.all else PartialError)(f"{what}: {self.first}")


def begun(answers: Iterator[Answer]) -> Iterator[Answer]:
    """The same answers, the first of them known: where the model cannot be loaded, stdout stays empty."""
    first = next(answers, None)
    return answers if first is None else chain([first], answers)


def given(paths: list[str], null: bool, stdin_image: bool) -> list[str | bytes] | Iterator[InputLike]:
    """What to answer: a list where all is known at once, an iterator where stdin brings it."""
    if stdin_image:
        if paths or null:
            raise UsageError("--stdin-image takes the image from stdin, and no paths.")
        return [_stdin_image()]
    if not paths and not null:
        raise UsageError("no input is named. Give files, folders, globs or URLs, or - to read paths from stdin.")
    if null and not paths:
        paths = ["-"]
    if null and "-" not in paths:
        raise UsageError("-0 says how paths stand on stdin: give - as well.")
    if paths.count("-") > 1:
        raise UsageError("- is given twice: stdin can be read once.")
    _refuse_urls_offline(paths)
    if "-" not in paths:
        return list(paths)
    from dlkit.data.inputs import Stream

    stream = Stream(_stdin_chunks(), b"\0" if null else b"\n")
    return iter([stream if path == "-" else path for path in paths])


def _refuse_urls_offline(paths: list[str]) -> None:
    if offline() and any(path.startswith(("http://", "https://")) for path in paths):
        raise StorageError("an input is a URL, and DLKIT_OFFLINE forbids the network. Unset it, or give a file.")


def _stdin_chunks() -> Iterator[bytes]:
    """What arrives on stdin, as it arrives.

    Read from the descriptor itself: a thread that dies inside sys.stdin would hold its lock when the program ends.
    """
    while chunk := os.read(0, 1 << 16):
        yield chunk


def _stdin_image() -> bytes:
    data = sys.stdin.buffer.read(STDIN_LIMIT + 1)
    if len(data) > STDIN_LIMIT:
        raise DataError(f"the image on stdin has more than {STDIN_LIMIT >> 20} MiB.")
    return data
