"""HTTP as the downloads use it: retries, broken answers taken up again, redirects that stay safe, URLs fit to print.

Redirects never leave https for http, and credentials go to the host they were given for and to no other.
DLKIT_OFFLINE=1 forbids the network; whoever calls asks `privacy.offline()` first.
"""

from __future__ import annotations

import base64
import errno
import http.client
import io
import os
import re
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import IO, Protocol
from urllib.parse import SplitResult, unquote, unquote_to_bytes, urlsplit, urlunsplit

from dlkit.atomic_io import point
from dlkit.data.splits import Source
from dlkit.errors import StorageError, VerificationError

CHUNK = 1 << 18  # bytes
MAX_REDIRECTS = 5
TRY_LATER = {408, 425, 429, 500, 502, 503, 504}  # answers worth another try
RANGE_NOT_SATISFIABLE = 416
GONE = {errno.ENETUNREACH, errno.EHOSTUNREACH}

Progress = Callable[[int, int], None]  # bytes so far, bytes in all (0: unknown)


class UnreachableError(StorageError):
    """None of a file's sources could be reached; nothing was wrong with what they sent."""


@dataclass(frozen=True)
class Network:
    """How patient a download is."""

    timeout_s: float = 30.0  # without a byte
    pauses_s: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0)  # before the second try, the third, …
    waiting_says_s: float = 10.0  # between two lines while another process holds the lock


PATIENT = Network()


class Origin(Protocol):
    """Remembers which answer the bytes of a part began, so that a later try may ask for the rest of that answer."""

    def validator(self) -> tuple[str, str] | None:
        """The URL as shown, and the ETag or date that the server gave with it."""

    def remember(self, url: str, mark: str) -> None:
        """Keep both beside the bytes."""


def no_progress(done: int, total: int) -> None:
    """The default progress."""


def read(url: str, limit: int, network: Network = PATIENT) -> bytes:
    """The bytes behind an http or https URL, at most `limit`: for a file that nobody has promised a digest for.

    Raises:
        UnreachableError: it could not be had, or has more bytes.
    """
    buffer = io.BytesIO()
    try:
        get(Source(url, "", 0), buffer, limit=limit, network=replace(network, pauses_s=()))
    except VerificationError as error:
        raise UnreachableError(str(error)) from error
    return buffer.getvalue()


def shown(url: str) -> str:
    """A URL as it may be printed: without user, password, query and fragment."""
    try:
        parts = urlsplit(url)
        if parts.scheme == "file":
            return os.fsdecode(unquote_to_bytes(parts.path))
        if not parts.netloc:
            return url
        return urlunsplit(SplitResult(parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    except ValueError:
        return "the URL"


def get(
    source: Source,
    file: IO[bytes],
    *,
    limit: int,
    origin: Origin | None = None,
    progress: Progress = no_progress,
    network: Network = PATIENT,
) -> None:
    """All of an http(s) answer, in as many tries as the network grants; each goes on where the last one broke off.

    With an `origin` the bytes that `file` holds already are its beginning, where the server still has that answer.

    Raises:
        UnreachableError: the last try failed too.
        VerificationError: it sends more than `limit` bytes.
    """
    for number in range(len(network.pauses_s) + 1):
        try:
            _get_once(source, file, limit, origin, progress, network)
            return
        except _NETWORK_ERRORS as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()  # it is the answer, with its socket
            if isinstance(error, urllib.error.HTTPError) and error.code == RANGE_NOT_SATISFIABLE:
                file.truncate(0)  # it is another file by now: from its start
            elif number == len(network.pauses_s) or not _worth_retrying(error):
                raise UnreachableError(f"{shown(source.url)}: {_network_reason(error)}") from error
        time.sleep(network.pauses_s[number] if number < len(network.pauses_s) else 0)
    raise UnreachableError(f"{shown(source.url)}: the server does not send the part that is missing.")


class _BrokenOff(Exception):
    """The connection ended before the last byte."""


_NETWORK_ERRORS = (
    urllib.error.URLError,
    http.client.HTTPException,
    ssl.SSLError,
    ConnectionError,
    TimeoutError,
    ValueError,  # a URL that cannot be one, a header that is no number
    _BrokenOff,
)


def _get_once(
    source: Source, file: IO[bytes], limit: int, origin: Origin | None, progress: Progress, network: Network
) -> None:
    begun = file.seek(0, os.SEEK_END)
    validator = origin.validator() if origin is not None else None
    resuming = begun > 0 and validator is not None and validator[0] == shown(source.url)
    request = _request(source.url)
    if resuming and begun == source.size:
        return  # it ended between the last byte and the renaming
    if resuming:
        assert validator is not None
        request.add_unredirected_header("Range", f"bytes={begun}-")
        request.add_unredirected_header("If-Range", validator[1])
    with _opener().open(request, timeout=network.timeout_s) as answer:
        start = _range_start(answer) if answer.status == 206 else 0
        if not resuming or start != begun:
            begun = 0
        file.seek(begun)
        file.truncate()
        if start != begun:
            raise _BrokenOff("the server sent another part than was asked for")
        if origin is not None and (mark := _strong_validator(answer.headers)):
            origin.remember(shown(source.url), mark)
        announced = _length(answer.headers)
        total = source.size or (begun + announced if announced is not None else 0)
        done = begun
        while chunk := answer.read1(CHUNK):
            point("download_chunk")
            done += len(chunk)
            if done > limit:
                raise VerificationError(f"{shown(source.url)}: sends more than {limit} bytes; stopped.")
            file.write(chunk)
            progress(done, total)
        if announced is not None and done - begun < announced:
            file.flush()
            raise _BrokenOff(f"the connection ended after {done} of {begun + announced} bytes")


def _request(url: str) -> urllib.request.Request:
    """A request whose credentials stand in a header that no redirect carries along."""
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(urlunsplit(parts._replace(netloc=host, fragment="")))
    request.add_header("Accept-Encoding", "identity")
    request.add_header("User-Agent", "dlkit")
    if user:
        token = base64.b64encode(unquote(user).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {token}")
    return request


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = MAX_REDIRECTS

    def redirect_request(  # type: ignore[no-untyped-def]  # urllib's own signature
        self, req, fp, code, msg, headers, newurl
    ) -> urllib.request.Request | None:
        old, new = urlsplit(req.full_url).scheme.lower(), urlsplit(newurl).scheme.lower()
        if new not in ("http", "https") or (old == "https" and new != "https"):
            fp.close()
            raise _Refused(f"redirects from {old} to {new or 'nowhere'}, which is refused")
        made = super().redirect_request(req, fp, code, msg, headers, newurl)
        for header in ("Range", "If-Range"):  # not the credentials
            if made is not None and (value := req.unredirected_hdrs.get(header.capitalize())):
                made.add_unredirected_header(header, value)
        return made


class _Refused(urllib.error.URLError):
    """A redirect that is not followed; no try changes that."""


def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_Redirects)


def _worth_retrying(error: Exception) -> bool:
    if isinstance(error, urllib.error.HTTPError):
        return error.code in TRY_LATER
    if isinstance(error, _Refused | ValueError):
        return False
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    # A name that does not resolve, or no way there: the next source is the better try.
    return not (isinstance(reason, socket.gaierror) or (isinstance(reason, OSError) and reason.errno in GONE))


def _network_reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        if "infinite loop" in str(error.msg):
            return f"redirects more than {MAX_REDIRECTS} times."
        return f"the server answers {error.code} {error.reason}."
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    text = reason.strerror if isinstance(reason, OSError) and reason.strerror else str(reason)
    return f"{text or type(reason).__name__}."


def _range_start(answer: http.client.HTTPResponse) -> int:
    match = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    return int(match[1]) if match else -1


def _strong_validator(headers: Mapping[str, str]) -> str:
    mark = headers.get("ETag", "")
    return mark if mark and not mark.startswith("W/") else headers.get("Last-Modified", "")


def _length(headers: Mapping[str, str]) -> int | None:
    text = headers.get("Content-Length", "")
    return int(text) if text.isascii() and text.isdigit() else None
