"""SIGHUP, SIGINT and SIGTERM: an exception that ends what is under way, or a flag that a loop polls.

Within `handled()` a signal raises Interrupted wherever the main thread is, as Ctrl-C does in Python; temporary files
are removed on the way out. Within `stop_flag()` the first one only sets the flag, so that a loop can finish its step
and save; the second SIGINT or SIGTERM raises. A closed terminal often sends SIGHUP twice, so a hang-up never hurries.
A signal that was ignored before, as SIGHUP is under nohup, stays ignored. `guard_process` is for a program of its own.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = tuple(getattr(signal, name) for name in ("SIGHUP", "SIGINT", "SIGTERM") if hasattr(signal, name))
RESEND_S = 10.0  # a library may swallow the exception, so a program sends itself the signal again
EXIT_S = 5.0  # for threads and child processes to end once a stopped program is done


class Interrupted(KeyboardInterrupt):
    """A signal. Like KeyboardInterrupt it is no Exception, so that no handler of errors swallows it."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {name(number)}.")
        self.exit_code = 128 + number


class StopFlag:
    """The first signal that arrived, or 0: calling it asks."""

    def __init__(self) -> None:
        self.signal = 0
        self.polls = 0  # blocks under way that poll the flag
        self.holds = 0  # blocks under way that no signal may cut short
        self.raised = False
        self._urgent = 0  # SIGINT and SIGTERM so far
        self._process = os.getpid()

    def __call__(self) -> int:
        return self.signal

    def receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a forked worker before it has handlers of its own
            os._exit(128 + number)
        self.signal = self.signal or number
        self._urgent += number in (signal.SIGINT, signal.SIGTERM)
        if self.holds or (self.polls and self._urgent < 2):
            return
        self.raised = True
        raise Interrupted(number)

    @contextmanager
    def held(self) -> Iterator[None]:
        """While the block runs, signals are only counted."""
        self.holds += 1
        try:
            yield
        finally:
            self.holds -= 1


_current: StopFlag | None = None  # whose handlers are installed


def name(number: int) -> str:
    """SIGTERM of 15."""
    return signal.Signals(number).name


def requested() -> int:
    """The signal that asked for the end, or 0; for code that waits and has no flag at hand."""
    return _current.signal if _current is not None else 0


@contextmanager
def handled() -> Iterator[StopFlag]:
    """Handlers that raise Interrupted while the block runs; those before are restored.

    Within another such block its flag is used. Outside the main thread Python can have no handlers: the flag stays 0.
    """
    global _current
    if _current is not None or threading.current_thread() is not threading.main_thread():
        yield _current if _current is not None else StopFlag()
        return
    _current = flag = StopFlag()
    before = _install(flag)
    try:
        yield flag
    finally:
        _current = None
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def stop_flag() -> Iterator[StopFlag]:
    """The flag to poll while the block runs: only the second SIGINT or SIGTERM raises Interrupted."""
    with handled() as flag:
        flag.polls += 1
        try:
            yield flag
        finally:
            flag.polls -= 1


def _install(flag: StopFlag) -> dict[int, Any]:
    """Handlers for the signals that are not ignored; returns those before."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    known = {number: old for number, old in before.items() if old is not signal.SIG_IGN and old is not None}
    for number in known:
        signal.signal(number, flag.receive)
    return known


def guard_process() -> None:
    """Install the handlers of a program for good, from its first line on; `end_process` is its last.

    A signal also ends a program whose libraries swallow the exception: what a destructor raised is sent again at once,
    anything else after RESEND_S.
    """
    global _current
    if _current is None:
        _current = _ProgramFlag()
        _install(_current)
        sys.unraisablehook = _current.on_unraisable


class _ProgramFlag(StopFlag):
    def __init__(self) -> None:
        super().__init__()
        self.ended = False

    def receive(self, number: int, frame: FrameType | None) -> None:
        first = not self.raised
        try:
            super().receive(number, frame)
        finally:
            if self.raised and first:
                _thread.start_new_thread(self._insist, (number,))  # threading's own lock may be held just now

    def _insist(self, number: int) -> None:
        while not self.ended:
            time.sleep(RESEND_S)
            if not self.ended:
                os.kill(self._process, number)

    def on_unraisable(self, unraisable: Any) -> None:
        if isinstance(unraisable.exc_value, Interrupted):
            _thread.start_new_thread(self._send_again, (unraisable.exc_value.exit_code - 128,))
        else:
            sys.__unraisablehook__(unraisable)

    def _send_again(self, number: int) -> None:
        time.sleep(0.05)  # it would be lost once more if it arrived within the hook
        os.kill(self._process, number)


def end_process(code: int) -> None:
    """From here on a signal ends the process at once; a stopped one ends within EXIT_S whatever its threads do."""
    if isinstance(_current, _ProgramFlag):
        _current.ended = True
        for number in SIGNALS:
            if signal.getsignal(number) == _current.receive:
                signal.signal(number, lambda number, frame: os._exit(code or 128 + number))
    if code > 128:
        _thread.start_new_thread(_exit_later, (code,))


def _exit_later(code: int) -> None:
    time.sleep(EXIT_S)
    os._exit(code)
