"""HTTP downloads: retries, resumption, safe redirects, URLs without secrets for messages.

Redirects never go from https to http, and credentials are sent to their own host only. DLKIT_OFFLINE=1 forbids the
network; callers check `privacy.offline()` first.
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
RETRY_STATUS = {408, 425, 429, 500, 502, 503, 504}
RANGE_NOT_SATISFIABLE = 416
NO_ROUTE = {errno.ENETUNREACH, errno.EHOSTUNREACH}

Progress = Callable[[int, int], None]  # bytes so far, total bytes (0: unknown)


class UnreachableError(StorageError):
    """No source of a file could be reached, as opposed to a source that sent wrong bytes."""


@dataclass(frozen=True)
class RetryPolicy:
    """Timeout, retries and backoff of a download."""

    timeout_s: float = 30.0  # without a byte
    backoff_s: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0)  # before the second try, the third, …
    lock_message_s: float = 10.0  # between two messages while another process holds the lock


DEFAULT_RETRIES = RetryPolicy()


class ResumeState(Protocol):
    """The validator of the response that a partial file belongs to, for If-Range."""

    def validator(self) -> tuple[str, str] | None:
        """The redacted URL, and the server's ETag or date."""

    def save_validator(self, url: str, tag: str) -> None:
        """Stores both beside the partial file."""


def no_progress(done: int, total: int) -> None:
    """The default progress."""


def read(url: str, limit: int, retries: RetryPolicy = DEFAULT_RETRIES) -> bytes:
    """The content of an http or https URL, at most `limit` bytes; for files without a published digest.

    Raises:
        UnreachableError: the download failed, or exceeds the limit.
    """
    buffer = io.BytesIO()
    try:
        get(Source(url, "", 0), buffer, limit=limit, retries=replace(retries, backoff_s=()))
    except VerificationError as error:
        raise UnreachableError(str(error)) from error
    return buffer.getvalue()


def redact_url(url: str) -> str:
    """The URL for messages: without user, password, query and fragment."""
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
    resume: ResumeState | None = None,
    progress: Progress = no_progress,
    retries: RetryPolicy = DEFAULT_RETRIES,
) -> None:
    """Downloads an http(s) URL; each retry resumes where the last one stopped.

    With `resume`, the bytes already in `file` are kept if the server still has the same version.

    Raises:
        UnreachableError: the last try failed too.
        VerificationError: the server sends more than `limit` bytes.
    """
    for number in range(len(retries.backoff_s) + 1):
        try:
            _get_once(source, file, limit, resume, progress, retries)
            return
        except _NETWORK_ERRORS as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()  # it holds the socket
            if isinstance(error, urllib.error.HTTPError) and error.code == RANGE_NOT_SATISFIABLE:
                file.truncate(0)  # the file has changed: start again
            elif number == len(retries.backoff_s) or not _worth_retrying(error):
                raise UnreachableError(f"{redact_url(source.url)}: {_network_reason(error)}") from error
        time.sleep(retries.backoff_s[number] if number < len(retries.backoff_s) else 0)
    raise UnreachableError(f"{redact_url(source.url)}: the server does not send the missing range.")


class _ConnectionLostError(Exception):
    """The connection ended before the last byte."""


_NETWORK_ERRORS = (
    urllib.error.URLError,
    http.client.HTTPException,
    ssl.SSLError,
    ConnectionError,
    TimeoutError,
    ValueError,  # a malformed URL or header
    _ConnectionLostError,
)


def _get_once(
    source: Source, file: IO[bytes], limit: int, resume: ResumeState | None, progress: Progress, retries: RetryPolicy
) -> None:
    offset = file.seek(0, os.SEEK_END)
    validator = resume.validator() if resume is not None else None
    resuming = offset > 0 and validator is not None and validator[0] == redact_url(source.url)
    request = _request(source.url)
    if resuming and offset == source.size:
        return  # killed between the last byte and the rename
    if resuming:
        assert validator is not None
        request.add_unredirected_header("Range", f"bytes={offset}-")
        request.add_unredirected_header("If-Range", validator[1])
    with urllib.request.build_opener(_Redirects).open(request, timeout=retries.timeout_s) as response:
        start = _range_start(response) if response.status == 206 else 0
        if not resuming or start != offset:
            offset = 0
        file.seek(offset)
        file.truncate()
        if start != offset:
            raise _ConnectionLostError("the server sent another range than requested")
        if resume is not None and (tag := _strong_validator(response.headers)):
            resume.save_validator(redact_url(source.url), tag)
        length = _content_length(response.headers)
        total = source.size or (offset + length if length is not None else 0)
        done = offset
        while chunk := response.read1(CHUNK):
            point("download_chunk")
            done += len(chunk)
            if done > limit:
                raise VerificationError(f"{redact_url(source.url)}: sends more than {limit} bytes; stopped.")
            file.write(chunk)
            progress(done, total)
        if length is not None and done - offset < length:
            file.flush()
            raise _ConnectionLostError(f"the connection ended after {done} of {offset + length} bytes")


def _request(url: str) -> urllib.request.Request:
    """A request with its credentials in a header that redirects do not copy."""
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
            raise _UnsafeRedirectError(f"redirects from {old} to {new or 'nowhere'}, which is refused")
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        for header in ("Range", "If-Range"):  # but never the credentials
            if request is not None and (value := req.unredirected_hdrs.get(header.capitalize())):
                request.add_unredirected_header(header, value)
        return request


class _UnsafeRedirectError(urllib.error.URLError):
    """A redirect that is never followed."""


def _worth_retrying(error: Exception) -> bool:
    if isinstance(error, urllib.error.HTTPError):
        return error.code in RETRY_STATUS
    if isinstance(error, _UnsafeRedirectError | ValueError):
        return False
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    # No DNS entry or no route: better try the next source.
    return not (isinstance(reason, socket.gaierror) or (isinstance(reason, OSError) and reason.errno in NO_ROUTE))


def _network_reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        if "infinite loop" in str(error.msg):
            return f"redirects more than {MAX_REDIRECTS} times."
        return f"the server answers {error.code} {error.reason}."
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    text = reason.strerror if isinstance(reason, OSError) and reason.strerror else str(reason)
    return f"{text or type(reason).__name__}."


def _range_start(response: http.client.HTTPResponse) -> int:
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else -1


def _strong_validator(headers: Mapping[str, str]) -> str:
    tag = headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified", "")


def _content_length(headers: Mapping[str, str]) -> int | None:
    text = headers.get("Content-Length", "")
    return int(text) if text.isascii() and text.isdigit() else None
