"""Connections of `dlkit serve`: their maximum number, their timeouts, and their end with the server.

uvicorn has no timeout for a request's headers and no limit on connections, so a few hundred clients that send half a
request would exhaust the process's file descriptors.
"""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_S = 10.0  # for a request's headers to arrive, and between the parts of a response that the client receives
MAX_CONNECTIONS = 512
BACKLOG = 64  # connections that the kernel accepts in advance
ERROR_INTERVAL_S = 60.0  # between two log lines about errors of the event loop
GRACE_S = 3  # for running requests, after the signal
EXIT_S = 4.5  # after the signal, whatever still runs
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

Say = Callable[[str], None]


class Connection(H11Protocol):
    """An HTTP/1.1 connection that is aborted if headers do not arrive, or responses do not leave, in time."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_timer()
        if len(self.connections) > connection_limit():
            self._evict_oldest()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        super().handle_events()
        if self._is_answering():
            self._stop_timer()

    def on_response_complete(self) -> None:
        self._start_timer()  # first: a pipelined request, which is handled at once, stops it
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._start_timer()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._is_answering():
            self._stop_timer()

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _evict_oldest(self) -> None:
        """Abort the connection that has waited longest for a request; if all are active, refuse this one."""
        oldest = min(self.connections, key=Connection._deadline)  # type: ignore[arg-type]
        if oldest is self:
            self.transport.write(BUSY)
            self.transport.close()
        else:
            self.connections.discard(oldest)  # now: its descriptor is closed a few iterations of the loop later
            oldest.transport.abort()

    def _deadline(self) -> float:
        return float("inf") if self._timer is None else self._timer.when()

    def _start_timer(self) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(HEADER_S, self.transport.abort)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def connection_limit() -> int:
    """At most half of the process's file descriptors: the rest is for the model, its files and the runtime."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else max(1, min(MAX_CONNECTIONS, soft // 2))


def run_until(stop: Callable[[], int], app: ASGIApp, listener: socket.socket, say: Say) -> None:
    """Serve the application at the socket until `stop` returns a signal's number."""
    config = uvicorn.Config(
        app, http=Connection, log_config=None, log_level="critical", access_log=False, ws="none", lifespan="off",
        proxy_headers=False, server_header=False, timeout_graceful_shutdown=GRACE_S, backlog=BACKLOG, loop="asyncio",
    )  # fmt: skip
    _Server(config, stop, say).run(sockets=[listener])


class _Server(uvicorn.Server):
    """A server that a flag stops, so that a second signal exits at once, as in every command."""

    def __init__(self, config: uvicorn.Config, stop: Callable[[], int], say: Say) -> None:
        super().__init__(config)
        self.stop, self.say = stop, say

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().set_exception_handler(ErrorLog(self.say))
        await super().startup(sockets)

    async def on_tick(self, counter: int) -> bool:
        return bool(self.stop()) or await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        leave = threading.Timer(EXIT_S, self._leave)
        leave.daemon = True
        leave.start()
        await super().shutdown(sockets)
        if not self.server_state.tasks:  # otherwise a thread is still computing, which cannot be canceled
            leave.cancel()
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    def _leave(self) -> None:
        self.say("warning: a running request was aborted.")
        os._exit(128 + self.stop())  # nothing is being written


class ErrorLog:
    """The event loop's exception handler: at most one line per minute, because accept() may fail thousands of times."""

    def __init__(self, say: Say, clock: Callable[[], float] = time.monotonic) -> None:
        self.say, self.clock = say, clock
        self._next = -float("inf")

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if self.clock() < self._next:
            return
        self._next = self.clock() + ERROR_INTERVAL_S
        cause = context.get("exception") or context["message"]
        self.say(f"warning: the server could not accept a connection: {cause}. It continues.")
