"""The limits of a server of `dlkit serve`: who may use it, with how many requests, and of what size.

Other pages in the same browser must not use the server. So a request must address it by one of this machine's own
names, or by an IP address if it listens for other machines: a page whose own name resolves to this machine (DNS
rebinding) still uses that name. And the browser's Origin header must be absent or our own.
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
from dlkit.serve.listener import is_loopback
from dlkit.serve.model import Say

MAX_BYTES = 32 << 20  # of a body
MAX_WAITING = 256  # requests that wait for the model
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

Reserve = Callable[[int], None]  # reserves memory for that many bytes; raises RequestError if there is none left
Work = Callable[[bytes], tuple[Any, int]]  # from a body to a document and its status


class RequestError(Exception):
    """A request that cannot be answered; `code` is dlkit's exit code for the kind of error."""

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
    """Middleware that refuses foreign hosts and origins, answers HEAD as GET, and adds security headers."""

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
        app = self.app if objection is None else RequestError(403, UsageError.exit_code, objection).response()
        await app({**scope, "method": "GET"} if is_head else scope, receive, send_with_headers)

    def _objection(self, headers: Headers) -> str | None:
        requested_host, origin = headers.get("host", ""), headers.get("origin")
        if not self._is_ours(_without_port(requested_host)):
            return f"{requested_host[:100]!r} is not a name of this server. Use its address or localhost."
        if origin is not None and origin != f"http://{requested_host}":
            return f"pages of {origin[:100]!r} may not use this server."
        return None

    def _is_ours(self, name: str) -> bool:
        if is_loopback(name) or name == self.host:
            return True
        return not is_loopback(self.host) and (_is_address(name) or name == socket.gethostname().lower())


class RequestQueue:
    """A bounded queue of requests of bounded size, which the model processes one at a time."""

    def __init__(self, say: Say) -> None:
        self.say, self.waiting, self.bytes, self.turn = say, 0, 0, asyncio.Lock()

    async def answer(self, request: Request, work: Work) -> Response:
        """The response computed from the request's body.

        Raises: RequestError.
        """
        async with self._admit() as reserve:
            body = await read_body(request, reserve)
            async with self.turn:
                return JSONResponse(*await run_in_threadpool(self._run, work, body))

    @asynccontextmanager
    async def _admit(self) -> AsyncIterator[Reserve]:
        """Admit a request; yields a function that reserves memory for its body."""
        if self.waiting >= MAX_WAITING:
            message = f"{MAX_WAITING} requests are already waiting. Try again in a moment."
            raise RequestError(503, BusyError.exit_code, message)
        reserved = 0

        def reserve(count: int) -> None:
            nonlocal reserved
            if self.bytes + count > MAX_WAITING_BYTES:
                message = f"the waiting requests have {MAX_WAITING_BYTES >> 20} MiB. Try again in a moment."
                raise RequestError(503, BusyError.exit_code, message)
            self.bytes, reserved = self.bytes + count, reserved + count

        self.waiting += 1
        try:
            yield reserve
        finally:
            self.waiting, self.bytes = self.waiting - 1, self.bytes - reserved

    def _run(self, work: Work, body: bytes) -> tuple[Any, int]:
        try:
            return work(body)
        except RequestError:
            raise
        except DlkitError as error:
            raise RequestError(status_of(error.exit_code), error.exit_code, str(error)) from error
        except MemoryError as error:
            raise RequestError(500, OutOfMemoryError.exit_code, "out of memory.") from error
        except Exception as error:  # the server must survive a bug
            message = f"a bug in dlkit: {type(error).__name__}: {error}."
            self.say(f"warning: {message} The server continues.")
            raise RequestError(500, DlkitError.exit_code, message) from error


async def read_body(request: Request, reserve: Reserve) -> bytes:
    """The body, read up to the size limit and the available memory.

    Raises: RequestError.
    """
    too_long = RequestError(413, DataError.exit_code, f"the body has more than {MAX_BYTES >> 20} MiB.")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > MAX_BYTES:
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
        raise RequestError(408, DataError.exit_code, f"the body did not arrive within {BODY_S:.0f} s.") from None
    except ClientDisconnect:
        raise RequestError(400, DataError.exit_code, "the body is incomplete.") from None
    return bytes(body)


def _without_port(host: str) -> str:
    """localhost:8000 → localhost, [::1]:8000 → ::1."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


def _is_address(name: str) -> bool:
    with suppress(ValueError):
        return bool(ipaddress.ip_address(name))
    return False
