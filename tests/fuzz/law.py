"""What every reader owes to bytes of unknown origin: an answer or one error of dlkit, within 10 s and 3 GiB."""

from __future__ import annotations

import contextlib
import io
import os
import resource
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from hypothesis.strategies import SearchStrategy

from dlkit.errors import DlkitError
from dlkit_cli import console, main

MOST_SECONDS = 10  # of CPU
HANGS = 120  # seconds by the clock
MOST_BYTES = 3 << 30
CODES = range(2, 13)  # those of dlkit.errors; 1 is a bug

Read = Callable[[bytes], object]


@dataclass(frozen=True)
class Target:
    """A kind of file: mutants of valid ones, the function of dlkit that reads them, and valid ones that it accepts."""

    mutants: SearchStrategy[bytes]
    read: Read
    valid: Sequence[bytes]


class TooSlow(BaseException):  # not an Exception: no reader may take it for damage
    """A reader took more than its time."""


def obey(read: Read, data: bytes) -> bool:
    """Read; returns whether the bytes were accepted. Anything but an answer or an error of dlkit fails."""
    try:
        with warnings.catch_warnings(), _limited_time():
            warnings.simplefilter("ignore")
            result = read(data)
    except DlkitError as error:
        check_error(error)
        return False
    return not isinstance(result, int) or result == 0  # a command's exit code


def check_error(error: DlkitError) -> None:
    """Its exit code is its own, and what a person sees of it is one line."""
    shown = io.StringIO()
    with contextlib.redirect_stderr(shown):
        console.error(str(error))
    line = shown.getvalue().removesuffix("\n").encode(errors="backslashreplace").decode()  # as stderr writes it
    assert error.exit_code in CODES, f"exit {error.exit_code}: {line}"
    assert str(error) and len(line.splitlines()) == 1 and "\x1b" not in line, f"not one line: {line!r}"
    assert len(line) <= 10 + console.LONGEST_LINE, f"a line of {len(line)} characters: {line[:300]!r}"


def run_command(arguments: Sequence[object]) -> int:
    """Run a command line of dlkit in this process; raises AssertionError where it breaks the law."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main.run([str(argument) for argument in arguments])
    text = err.getvalue()
    assert code == 0 or code in CODES, f"exit {code} of {arguments}: {text[-600:]}"
    assert "Traceback" not in text, text[-2000:]
    assert code == 0 or len([line for line in text.splitlines() if line.startswith("dlkit: ")]) >= 1, text[-600:]
    return code


def replace_file(path: Path, data: bytes) -> Path:
    """Put the bytes there as a new file: quicker than to cut the old one to nothing."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    return path


@contextlib.contextmanager
def memory(size: int = MOST_BYTES) -> Iterator[None]:
    """No more than `size` bytes above what this process has; a MemoryError is what comes of more."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE") + size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@contextlib.contextmanager
def _limited_time() -> Iterator[None]:
    """So many seconds of this process's own, as a machine may have other work; and an end to waiting for nothing."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooSlow(f"more than {MOST_SECONDS} s of CPU" if number == signal.SIGPROF else f"hangs for {HANGS} s")

    limits = ((signal.ITIMER_PROF, signal.SIGPROF, MOST_SECONDS), (signal.ITIMER_REAL, signal.SIGALRM, HANGS))
    before = [signal.signal(number, stop) for _, number, _ in limits]
    for timer, _, most in limits:
        signal.setitimer(timer, most)
    try:
        yield
    finally:
        for (timer, number, _), handler in zip(limits, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)
