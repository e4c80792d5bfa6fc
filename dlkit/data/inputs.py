"""Inputs named by a person, read in order and ahead of their use: files, folders, globs, URLs, bytes, a pipe.

A thread reads the names and a few decode, ahead of the model by a bounded number of inputs. What comes through a pipe
are the names of images, but of text the examples themselves, a line each, and a block of lines where a dependency tree
is written so; a .conllu file holds as many.
"""

from __future__ import annotations

import codecs
import glob
import os
import queue
import re
import stat
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlkit.errors import DataError, DlkitError, StorageError, UsageError
from dlkit.privacy import offline
from dlkit.specs import ImageSpec, SequenceSpec, Spec, TreeSpec

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from dlkit.data.text.treebank import ParsedTree

DECODERS = 2  # threads; decoding leaves the interpreter's lock
URL_LIMIT = 100 << 20  # bytes of an image from the network
DESCRIPTOR = re.compile(r"/dev/stdin$|(/dev|/proc/self)/fd/\d+$")
STDIN_NAME = "-"  # the path of an image given as bytes; -:3 is the third line of text


@dataclass(frozen=True)
class Stream:
    """What arrives through a pipe, chunk by chunk; its parts end in the separator."""

    chunks: Iterable[bytes]
    separator: bytes = b"\n"


# Bytes are an image or a text, not a name; a PIL image, an array or a tensor is an image or a batch (images.in_memory).
Given = Any
NAMED = (str, Path, bytes, Stream)


@dataclass(frozen=True)
class Input:
    """One image to be read, or why it cannot be."""

    name: str
    source: Path | bytes | str | DlkitError  # a str is a URL


@dataclass(frozen=True)
class Read:
    """What came of an input: pixels (C, H, W), words or a tree, or what is wrong with it; and what was forgiven."""

    name: str
    content: npt.NDArray[np.uint8] | list[str] | ParsedTree | DlkitError
    notes: tuple[str, ...] = ()


def inputs(paths: Iterable[Given], spec: Spec) -> Iterator[Input]:
    """Every input that the paths stand for, in order; folders and globs are searched through as they come up."""
    count = 0  # of images, for the names of those in memory
    for path in paths:
        if not isinstance(path, NAMED):
            for name, content in _in_memory(path, spec, count):
                count += 1
                yield Input(name, content)
            continue
        count += 1
        if isinstance(path, Stream):
            yield from _in_stream(path, spec)
            continue
        if isinstance(path, bytes):
            yield Input(STDIN_NAME, path)
            continue
        name = os.fspath(path)
        if name.startswith(("http://", "https://")):
            yield Input(_without_credentials(name), name)
        elif os.path.isdir(name):
            what = "image" if isinstance(spec, ImageSpec) else "text"
            yield from _or_failure(_in_folder(name, spec), name, f"the folder holds no {what}.")
        elif glob.has_magic(name) and not os.path.lexists(name):
            matches = sorted(glob.iglob(name, recursive=True))
            yield from _or_failure(_matched(matches, spec), name, "nothing matches.")
        else:
            yield from _in_file(name, spec)


def listed(given: Any) -> Any:
    """What is given to predict or explain as several: a single input in a list."""
    if isinstance(given, NAMED):
        return [given]
    from dlkit.data.images.in_memory import is_in_memory

    return [given] if is_in_memory(given) else given


def _in_memory(value: Any, spec: Spec, count: int) -> Iterator[tuple[str, bytes]]:
    """The images of a PIL image, an array or a tensor, with their names: that of its file, or its number."""
    from dlkit.data.images import in_memory

    if not in_memory.is_in_memory(value) or not isinstance(spec, ImageSpec):
        raise UsageError(f"a {type(value).__name__} is no input of a model that reads {spec.kind}.")
    file = getattr(value, "filename", "")
    for number, content in enumerate(in_memory.files(value), start=count + 1):
        yield file or f"image {number}", content


def _or_failure(found: Iterator[Input], name: str, reason: str) -> Iterator[Input]:
    empty = True
    for item in found:
        empty = False
        yield item
    if empty:
        yield Input(name, DataError(f"{name}: {reason}"))


def pieces(stream: Stream, most: int | None = None) -> Iterator[bytes]:
    """The parts of a stream, each as soon as its end has come. Of a longer one, no more than `most` bytes and one."""
    rest = b""
    for chunk in stream.chunks:
        *whole, rest = (rest + chunk).split(stream.separator)
        yield from whole
        rest = rest if most is None else rest[: most + 1]
    if rest:
        yield rest


def _utf8(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The chunks of a list of lines without its byte order mark; UTF-16 with one, as PowerShell writes, in UTF-8."""
    chunks, head = iter(chunks), b""
    for chunk in chunks:
        head += chunk
        if len(head) > 2 or head.endswith(b"\n"):
            break
    if not head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        yield head.removeprefix(codecs.BOM_UTF8)
        yield from chunks
        return
    decoder = codecs.getincrementaldecoder("utf-16")("replace")
    yield from (decoder.decode(chunk).encode() for chunk in chain([head], chunks))


def _without_return(path: bytes) -> bytes:
    """A line of a list as Windows writes it, unless a file is called so."""
    return path.removesuffix(b"\r") if not os.path.lexists(path) else path


def _in_stream(stream: Stream, spec: Spec) -> Iterator[Input]:
    if stream.separator == b"\n":
        stream = Stream(_utf8(stream.chunks))
    if isinstance(spec, ImageSpec):
        yield from inputs((os.fsdecode(path) for path in map(_without_return, pieces(stream)) if path), spec)
        return
    from dlkit.data.text.lines import MAX_BYTES

    lines = pieces(stream, MAX_BYTES)
    for number, written in _trees(lines) if isinstance(spec, TreeSpec) else enumerate(lines, start=1):
        yield Input(f"{STDIN_NAME}:{number}", written)


def _in_file(name: str, spec: Spec) -> Iterator[Input]:
    """The one input that a file is, or the dependency trees that it holds."""
    if DESCRIPTOR.match(name):
        yield Input(name, _read_pipe(name))
        return
    if isinstance(spec, TreeSpec) and name.lower().endswith(".conllu"):
        yield from _or_failure(_dependency_trees(name), name, "the file contains no trees.")
    else:
        yield Input(name, Path(name))


def _read_pipe(name: str) -> bytes | DlkitError | Path:
    """What a shell hands over by descriptor, as in `predict <(curl …)`; only those have a writer that is known to come.

    A file behind the name is read like any other.
    """
    try:
        if not stat.S_ISFIFO(os.stat(name).st_mode):
            return Path(name)
        with open(name, "rb") as file:
            data = file.read(URL_LIMIT + 1)
    except OSError as error:
        return StorageError(f"{name}: cannot be read: {error.strerror}.")
    return data if len(data) <= URL_LIMIT else DataError(f"{name}: more than {URL_LIMIT >> 20} MiB.")


def _dependency_trees(name: str) -> Iterator[Input]:
    from dlkit.data.text.lines import read_raw_lines

    try:
        for number, written in _trees(read_raw_lines(Path(name))):
            if written.strip():
                yield Input(f"{name}:{number}", written)
    except DlkitError as error:
        yield Input(name, error)


def _trees(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    from dlkit.data.text.treebank import split_examples

    return split_examples(lines)


def _matched(matches: list[str], spec: Spec) -> Iterator[Input]:
    for name in matches:
        if os.path.isdir(name):
            yield from _in_folder(name, spec)
        else:
            yield from _in_file(name, spec)


def _in_folder(folder: str, spec: Spec) -> Iterator[Input]:
    """The inputs below a folder as the data sets walk it; what cannot be read is an answer too."""
    from dlkit.data.folders import files_below
    from dlkit.data.images.formats import EXTENSIONS

    wanted = (
        EXTENSIONS if isinstance(spec, ImageSpec) else {".txt", ".conllu"} if isinstance(spec, TreeSpec) else {".txt"}
    )
    failures: list[DlkitError] = []
    for name in files_below(folder, failures.append):
        if os.path.splitext(name)[1].lower() in wanted:
            yield from _in_file(name, spec)
    for error in failures:
        yield Input(str(error).partition(": ")[0], error)


def _without_credentials(url: str) -> str:
    scheme, _, rest = url.partition("://")
    host, slash, tail = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{tail}"


def _read(item: Input, spec: Spec) -> Read:
    from dlkit.data.images import decode

    notes: list[str] = []
    try:
        if isinstance(item.source, DlkitError):
            return Read(item.name, item.source)
        source = _fetched(item.source) if isinstance(item.source, str) else item.source
        if not isinstance(spec, ImageSpec):
            return Read(item.name, _read_text(item.name, source, spec))
        return Read(item.name, decode.load(source, spec, notes=notes), tuple(notes))
    except DlkitError as error:
        return Read(item.name, error)
    except MemoryError:
        return Read(item.name, DataError(f"{item.name}: it does not fit in memory."))


def _read_text(name: str, source: Path | bytes, spec: SequenceSpec | TreeSpec) -> list[str] | ParsedTree:
    """One example, cut into words or parsed."""
    from dlkit.data.text import lines, tokenization, treebank

    try:
        written = lines.decode_text(source if isinstance(source, bytes) else lines.read_example(source))
        if isinstance(spec, TreeSpec):
            return treebank.parse_example(written, spec.labels)
        words = tokenization.tokenize(written, spec.tokens)
    except DataError as error:
        raise DataError(f"{name}: {error}.") from error
    if not words:
        raise DataError(f"{name}: empty.")
    return words


def _fetched(url: str) -> bytes:
    from dlkit.data.download import http

    if offline():
        raise StorageError(f"{http.redact_url(url)}: DLKIT_OFFLINE forbids the network. Unset it, or give a file.")
    return http.read(url, URL_LIMIT)


class Ahead:
    """Inputs read ahead of their use, in order, at most `most` of them."""

    def __init__(self, items: Iterable[Input], spec: Spec, most: int) -> None:
        self._queue: queue.Queue[Future[Read] | BaseException | None] = queue.Queue(most)
        self._closed = threading.Event()
        self._deadline: float | None = None  # of the batch that has begun
        self._pool = ThreadPoolExecutor(DECODERS, "decode")
        # A daemon: it may sit in a read of stdin that never returns.
        threading.Thread(target=self._submit, args=(items, spec), name="read", daemon=True).start()

    def batches(self, size: int, wait_s: float | None) -> Iterator[list[Read]]:
        """Full batches; with `wait_s`, also what is there so long after the first image of a batch."""
        batch: list[Read] = []
        for found in self._arrivals():
            if found is not None:
                if not batch and wait_s is not None:
                    self._deadline = time.monotonic() + wait_s
                batch.append(found)
            if found is None or len(batch) == size:
                self._deadline = None
                yield batch
                batch = []
        yield batch

    def close(self) -> None:
        """Stop reading; what was read and not used is dropped."""
        self._closed.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _arrivals(self) -> Iterator[Read | None]:
        """What was read, in order; None where what is there should be answered before going on."""
        while True:
            try:
                entry = self._queue.get(timeout=self._left())
            except queue.Empty:
                yield None
                continue
            if not isinstance(entry, Future):
                if entry is None:
                    return
                yield None  # what came before is answered first
                raise entry
            try:
                found = entry.result(timeout=self._left())
            except TimeoutError:
                yield None
                found = entry.result()
            yield found

    def _submit(self, items: Iterable[Input], spec: Spec) -> None:
        end: BaseException | None = None
        try:
            for item in items:
                if self._closed.is_set():
                    return
                self._put(self._pool.submit(_read, item, spec))
        except BaseException as error:  # the caller's iterable may raise anything; it is raised where it is read
            end = error
        self._put(end)

    def _put(self, entry: Future[Read] | BaseException | None) -> None:
        while not self._closed.is_set():
            try:
                self._queue.put(entry, timeout=0.1)
                return
            except queue.Full:
                continue

    def _left(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
