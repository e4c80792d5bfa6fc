"""Helper processes that call one function, and detection of hung processes.

Helpers are started by exec, never by fork: a fork copies the memory but only one thread, so that locks of the other
threads and of process groups stay locked in the copy. A helper imports what its function needs, not torch.
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

POLL_S = 0.5  # interval of checks of the processes and of the stop flag
UNKNOWN_S = 120.0  # instead of the timeout on systems without /proc
EXIT_S = 5.0  # to wait for a killed process

START = "import sys; sys.path[:] = {path!r}; from dlkit.data.processes import serve; serve({descriptor}, {function!r})"

_timeout_s = 7.0


def use_timeout(seconds: float) -> None:
    """Set the time after which processes that neither compute nor wait for a disk count as hung."""
    global _timeout_s
    _timeout_s = seconds


class HangDetector:
    """Counts polls without activity of the processes. Not clock time, since a suspended program did not wait."""

    def __init__(self, pids: Sequence[int | None]) -> None:
        self.pids = pids
        self.activity = _activity(pids)
        self.limit_s = _timeout_s if self.activity is not None else max(_timeout_s, UNKNOWN_S)
        self.idle_s = 0.0

    def poll(self, seconds: float, what: str) -> None:
        """Check the processes, `seconds` after the last call.

        Raises:
            WorkerLostError: the processes are hung.
        """
        before, self.activity = self.activity, _activity(self.pids)
        self.idle_s = self.idle_s + seconds if self.activity == before else 0.0
        if self.idle_s >= self.limit_s:
            pids = ", ".join(map(str, self.pids))
            raise WorkerLostError(f"processes (pid {pids}) hang: no activity for {self.limit_s:g} s while {what}.")


def _activity(pids: Sequence[int | None]) -> object:
    """A value that changes while a process computes or waits for a disk; None on systems without /proc."""
    ticks = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        if fields[0] in "DR":  # waits for a disk or for a CPU
            return object()  # differs from all others
        ticks += int(fields[11]) + int(fields[12])  # utime, stime
    return ticks


def describe_exit(code: int) -> str:
    """An exit code in words: killed by SIGKILL."""
    return f"killed by {signals.name(-code)}" if code < 0 else f"ended with exit code {code}"


class Helpers:
    """Processes that call `function`, of a module, with the messages they receive. Raises OSError if none starts."""

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
        """Call the function with prepare(*arguments), which runs in a thread of this process."""
        return self._threads.submit(self._call, prepare, arguments)

    def _call(self, prepare: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        message = prepare(*arguments)
        process, connection = self._idle.get()
        try:
            connection.send(message)
            return connection.recv()
        except (OSError, EOFError) as error:
            try:
                how = describe_exit(process.wait(EXIT_S))
            except subprocess.TimeoutExpired:
                how = str(error) or "disconnected"
            raise WorkerLostError(f"pid {process.pid}, {how}") from None
        finally:
            self._idle.put((process, connection))

    def result(self, future: Future[Any], what: str) -> Any:
        """Wait for a result.

        Raises:
            WorkerLostError: the helper died, or the helpers are hung.
        """
        detector = HangDetector([process.pid for process in self.processes])
        while not futures.wait([future], POLL_S).done:
            detector.poll(POLL_S, what)
        try:
            return future.result()
        except WorkerLostError as error:
            raise WorkerLostError(f"a process died ({error}) while {what}.") from None

    def close(self) -> None:
        """Kill the processes: they only read, and a hung process ignores anything else."""
        for process in self.processes:
            process.kill()
        self._threads.shutdown(cancel_futures=True)
        while not self._idle.empty():
            self._idle.get()[1].close()
        for process in self.processes:
            process.wait()


def serve(descriptor: int, function: str) -> None:
    """The main loop of a helper; it ends when the program closes the connection or exits."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    module, _, name = function.partition(":")
    call = getattr(importlib.import_module(module), name)
    with Connection(descriptor) as connection:
        while True:
            try:
                connection.send(call(connection.recv()))
            except (EOFError, OSError):
                os._exit(0)
