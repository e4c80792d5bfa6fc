"""What a server of `dlkit serve` takes: from whom, how much of it, and how many at once.

A page from elsewhere that is open in the same browser must not use the server. So it answers only where it is called by
this machine's own names, or by a bare address where it was told to listen for other machines: a page that has had its
own name pointed here (DNS rebinding) still calls that name. And a browser says which page asks: none but ours may.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dlkit.errors import BusyError, DataError, DlkitError, OutOfMemoryError, UsageError
from dlkit.serve.server import Say, is_loopback

MAX_BYTES = 32 << 20  # of a body
MOST = 256  # requests that wait for the model
MAX_WAITING_BYTES = 1 << 30  # of all their bodies
BODY_S = 30.0  # for a body to arrive

STATUS = {UsageError.exit_code: 400, DataError.exit_code: 422, BusyError.exit_code: 503}  # else 500
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

Reserve = Callable[[int], None]  # memory for so many bytes; raises Refused where there is no room
Work = Callable[[bytes], tuple[Any, int]]  # from a body to a document and its status


class Refused(Exception):
    """A request that is not answered as asked; `code` is the exit code of its kind of error."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code

    def response(self) -> JSONResponse:
        headers = {"Retry-After": "1"} if self.status == 503 else None
        return JSONResponse({"error": {"code": self.code, "message": str(self)}}, self.status, headers)


def status_of(code: int) -> int:
    """The status of a response that carries an error of this exit code."""
    return STATUS.get(code, 500)


class Guard:
    """In front of the application: refuses strangers, answers HEAD as GET, and says what the page may load."""

    def __init__(self, app: ASGIApp, host: str) -> None:
        self.app, self.host = app, host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_head = scope["method"] == "HEAD"

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            elif is_head:
                message = {**message, "body": b""}
            await send(message)

        objection = self._objection(Headers(scope=scope))
        app = self.app if objection is None else Refused(403, UsageError.exit_code, objection).response()
        await app({**scope, "method": "GET"} if is_head else scope, receive, send_with_headers)

    def _objection(self, headers: Headers) -> str | None:
        called, origin = headers.get("host", ""), headers.get("origin")
        if not self._is_ours(_without_port(called)):
            return f"this server is not called {called[:100]!r}. Call it by its address or localhost."
        if origin is not None and origin != f"http://{called}":
            return f"pages of {origin[:100]!r} may not use this server."
        return None

    def _is_ours(self, name: str) -> bool:
        if is_loopback(name) or name == self.host:
            return True
        return not is_loopback(self.host) and (_is_address(name) or name == socket.gethostname().lower())


class Desk:
    """Where requests wait: a bounded number of bounded size, of which the model takes one at a time."""

    def __init__(self, say: Say) -> None:
        self.say, self.waiting, self.bytes, self.turn = say, 0, 0, asyncio.Lock()

    async def answer(self, request: Request, work: Work) -> Response:
        """What work makes of the request's body.

        Raises: Refused.
        """
        async with self._room() as reserve:
            body = await body_of(request, reserve)
            async with self.turn:
                return JSONResponse(*await run_in_threadpool(self._done, work, body))

    @asynccontextmanager
    async def _room(self) -> AsyncIterator[Reserve]:
        """Room for one request; what is yielded reserves memory for that many bytes of its body."""
        if self.waiting >= MOST:
            raise Refused(503, BusyError.exit_code, f"{MOST} requests are waiting already. Try again in a moment.")
        reserved = 0

        def reserve(count: int) -> None:
            nonlocal reserved
            if self.bytes + count > MAX_WAITING_BYTES:
                what = f"the requests that are waiting hold {MAX_WAITING_BYTES >> 20} MiB. Try again in a moment."
                raise Refused(503, BusyError.exit_code, what)
            self.bytes, reserved = self.bytes + count, reserved + count

        self.waiting += 1
        try:
            yield reserve
        finally:
            self.waiting, self.bytes = self.waiting - 1, self.bytes - reserved

    def _done(self, work: Work, body: bytes) -> tuple[Any, int]:
        try:
            return work(body)
        except Refused:
            raise
        except DlkitError as error:
            raise Refused(status_of(error.exit_code), error.exit_code, str(error)) from error
        except MemoryError as error:
            raise Refused(500, OutOfMemoryError.exit_code, "out of memory.") from error
        except Exception as error:  # the server is to outlive a bug
            what = f"a bug in dlkit: {type(error).__name__}: {error}."
            self.say(f"warning: {what} The server goes on.")
            raise Refused(500, DlkitError.exit_code, what) from error


async def body_of(request: Request, reserve: Reserve) -> bytes:
    """The body, read no further than it may be long and than there is room.

    Raises: Refused.
    """
    too_long = Refused(413, DataError.exit_code, f"the body has more than {MAX_BYTES >> 20} MiB.")
    said = request.headers.get("content-length", "")
    if said.isdecimal() and int(said) > MAX_BYTES:
        raise too_long
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for part in request.stream():
                body += part
                if len(body) > MAX_BYTES:
                    raise too_long
                reserve(len(part))
    except TimeoutError:
        raise Refused(408, DataError.exit_code, f"the body did not arrive within {BODY_S:.0f} s.") from None
    except ClientDisconnect:
        raise Refused(400, DataError.exit_code, "the body ended too early.") from None
    return bytes(body)


def _without_port(called: str) -> str:
    """localhost:8000 → localhost, [::1]:8000 → ::1."""
    if called.startswith("["):
        return called[1:].partition("]")[0]
    return called.partition(":")[0].lower()


def _is_address(name: str) -> bool:
    with suppress(ValueError):
        return bool(ipaddress.ip_address(name))
    return False
