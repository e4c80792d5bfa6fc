"""Helper processes that call one function, and whether processes hang.

They are started by exec, never by fork: a fork copies a program's memory but only one of its threads, so whatever lock
another thread or a process group holds stays locked in the copy. A helper imports what its function needs, no torch.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from dlkit import signals
from dlkit.errors import WorkerLostError

POLL_S = 0.5  # between two looks at the processes and at the stop flag
UNKNOWN_S = 120.0  # instead of the timeout, on systems that do not tell whether a process works
EXIT_S = 5.0  # for a killed process to end

START = "import sys; sys.path[:] = {path!r}; from dlkit.data.processes import serve; serve({descriptor}, {function!r})"

_timeout_s = 7.0


def use_timeout(seconds: float) -> None:
    """Set how long processes may neither compute nor wait for a disk before they count as hung."""
    global _timeout_s
    _timeout_s = seconds


class Watch:
    """Counts the polls at which none of the processes had worked: polls, as a suspended program has not waited."""

    def __init__(self, pids: Sequence[int | None]) -> None:
        self.pids = pids
        self.work = _work_done(pids)
        self.limit_s = _timeout_s if self.work is not None else max(_timeout_s, UNKNOWN_S)
        self.quiet_s = 0.0

    def poll(self, seconds: float, what: str) -> None:
        """To be called `seconds` after the last time.

        Raises:
            WorkerLostError: the processes hang.
        """
        before, self.work = self.work, _work_done(self.pids)
        self.quiet_s = self.quiet_s + seconds if self.work == before else 0.0
        if self.quiet_s >= self.limit_s:
            pids = ", ".join(map(str, self.pids))
            raise WorkerLostError(f"processes (pid {pids}) hang: nothing was done for {self.limit_s:g} s while {what}.")


def _work_done(pids: Sequence[int | None]) -> object:
    """What changes while a process computes or waits for a disk; None where the system does not tell."""
    ticks = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        if fields[0] in "DR":  # waits for a disk, or for a core of a busy machine
            return object()  # unlike any other
        ticks += int(fields[11]) + int(fields[12])  # utime, stime
    return ticks


def how_it_ended(code: int) -> str:
    """killed by SIGKILL, of an exit code."""
    return f"killed by {signals.name(-code)}" if code < 0 else f"ended with exit code {code}"


class Helpers:
    """Processes that call `function`, a function of a module, with what they are sent. Raises OSError: none start."""

    def __init__(self, function: Callable[[Any], Any], count: int) -> None:
        self.processes: list[subprocess.Popen[bytes]] = []
        self._idle: SimpleQueue[tuple[subprocess.Popen[bytes], Connection]] = SimpleQueue()
        self._threads = ThreadPoolExecutor(count, "helper")
        try:
            for _ in range(count):
                self._start(f"{function.__module__}:{function.__qualname__}")
        except BaseException:
            self.close()
            raise

    def _start(self, function: str) -> None:
        ours, theirs = Pipe()
        with theirs:
            code = START.format(path=sys.path, descriptor=theirs.fileno(), function=function)
            process = subprocess.Popen(
                [sys.executable or "", "-W", "ignore", "-c", code], pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, process_group=0,
            )  # fmt: skip
        self.processes.append(process)
        self._idle.put((process, ours))

    def submit(self, prepare: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """The function's result for prepare(*arguments), which is called in a thread of this process."""
        return self._threads.submit(self._call, prepare, arguments)

    def _call(self, prepare: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        message = prepare(*arguments)
        process, connection = self._idle.get()
        try:
            connection.send(message)
            return connection.recv()
        except (OSError, EOFError) as error:
            try:
                how = how_it_ended(process.wait(EXIT_S))
            except subprocess.TimeoutExpired:
                how = str(error) or "disconnected"
            raise WorkerLostError(f"pid {process.pid}, {how}") from None
        finally:
            self._idle.put((process, connection))

    def result(self, future: Future[Any], what: str) -> Any:
        """Wait for a result.

        Raises:
            WorkerLostError: the helper died, or the helpers hang.
        """
        watch = Watch([process.pid for process in self.processes])
        while not futures.wait([future], POLL_S).done:
            watch.poll(POLL_S, what)
        try:
            return future.result()
        except WorkerLostError as error:
            raise WorkerLostError(f"a process died ({error}) while {what}.") from None

    def close(self) -> None:
        """Kill them: they only read, and one that hangs heeds nothing else."""
        for process in self.processes:
            process.kill()
        self._threads.shutdown(cancel_futures=True)
        while not self._idle.empty():
            self._idle.get()[1].close()
        for process in self.processes:
            process.wait()


def serve(descriptor: int, function: str) -> None:
    """The whole life of a helper, which ends with the program that started it: its end of the connection closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    module, _, name = function.partition(":")
    call = getattr(importlib.import_module(module), name)
    with Connection(descriptor) as connection:
        while True:
            try:
                connection.send(call(connection.recv()))
            except (EOFError, OSError):
                os._exit(0)
