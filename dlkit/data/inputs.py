"""Inputs of predict and explain, read ahead in order: files, folders, globs, URLs, bytes, a pipe.

One thread reads the names and a few decode, a bounded number of inputs ahead of the model. A pipe contains names of
images; for text it contains the examples, one per line, or CoNLL-U blocks of dependency trees, as does a .conllu file.
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

DECODERS = 2  # threads; decoding releases the GIL
URL_LIMIT = 100 << 20  # bytes
DESCRIPTOR = re.compile(r"/dev/stdin$|(/dev|/proc/self)/fd/\d+$")
STDIN_NAME = "-"  # the path of an image in bytes; -:3 is the third line of text


@dataclass(frozen=True)
class Stream:
    """Chunks of a pipe; the separator ends each of its items."""

    chunks: Iterable[bytes]
    separator: bytes = b"\n"


# Bytes are an image or a text, not a name; a PIL image, an array or a tensor is an image or a batch (images.in_memory).
InputLike = Any
NAMED = (str, Path, bytes, Stream)


@dataclass(frozen=True)
class Input:
    """One input to read, or the error that prevents it."""

    name: str
    source: Path | bytes | str | DlkitError  # a str is a URL


@dataclass(frozen=True)
class LoadedInput:
    """The result of reading an input: pixels (C, H, W), words, a tree or an error; notes are tolerated problems."""

    name: str
    content: npt.NDArray[np.uint8] | list[str] | ParsedTree | DlkitError
    notes: tuple[str, ...] = ()


def inputs(paths: Iterable[InputLike], spec: Spec) -> Iterator[Input]:
    """All inputs of the paths, in order; folders and globs are expanded lazily."""
    count = 0  # of images, for the names of those in memory
    for path in paths:
        if not isinstance(path, NAMED):
            for name, content in _in_memory(path, spec, count):
                count += 1
                yield Input(name, content)
            continue
        count += 1
        if isinstance(path, Stream):
            yield from _stream_inputs(path, spec)
            continue
        if isinstance(path, bytes):
            yield Input(STDIN_NAME, path)
            continue
        name = os.fspath(path)
        if name.startswith(("http://", "https://")):
            yield Input(_strip_credentials(name), name)
        elif os.path.isdir(name):
            kind = "images" if isinstance(spec, ImageSpec) else "texts"
            yield from _or_failure(_folder_inputs(name, spec), name, f"the folder contains no {kind}.")
        elif glob.has_magic(name) and not os.path.lexists(name):
            matches = sorted(glob.iglob(name, recursive=True))
            yield from _or_failure(_glob_inputs(matches, spec), name, "nothing matches.")
        else:
            yield from _file_inputs(name, spec)


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


def _or_failure(inputs: Iterator[Input], name: str, reason: str) -> Iterator[Input]:
    empty = True
    for item in inputs:
        empty = False
        yield item
    if empty:
        yield Input(name, DataError(f"{name}: {reason}"))


def split_stream(stream: Stream, most: int | None = None) -> Iterator[bytes]:
    """The items of a stream as soon as they are complete; a longer one is cut after `most` + 1 bytes."""
    rest = b""
    for chunk in stream.chunks:
        *complete, rest = (rest + chunk).split(stream.separator)
        yield from complete
        rest = rest if most is None else rest[: most + 1]
    if rest:
        yield rest


def _utf8(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Remove a UTF-8 byte order mark; recode UTF-16 with a byte order mark (PowerShell) to UTF-8."""
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


def _strip_carriage_return(path: bytes) -> bytes:
    """Remove a carriage return (Windows), unless a file with this name exists."""
    return path.removesuffix(b"\r") if not os.path.lexists(path) else path


def _stream_inputs(stream: Stream, spec: Spec) -> Iterator[Input]:
    if stream.separator == b"\n":
        stream = Stream(_utf8(stream.chunks))
    if isinstance(spec, ImageSpec):
        yield from inputs(
            (os.fsdecode(path) for path in map(_strip_carriage_return, split_stream(stream)) if path), spec
        )
        return
    from dlkit.data.text.lines import MAX_BYTES

    lines = split_stream(stream, MAX_BYTES)
    for number, line in _trees(lines) if isinstance(spec, TreeSpec) else enumerate(lines, start=1):
        yield Input(f"{STDIN_NAME}:{number}", line)


def _file_inputs(name: str, spec: Spec) -> Iterator[Input]:
    """A file as one input, or the dependency trees of a .conllu file."""
    if DESCRIPTOR.match(name):
        yield Input(name, _read_pipe(name))
        return
    if isinstance(spec, TreeSpec) and name.lower().endswith(".conllu"):
        yield from _or_failure(_dependency_trees(name), name, "the file contains no trees.")
    else:
        yield Input(name, Path(name))


def _read_pipe(name: str) -> bytes | DlkitError | Path:
    """Read a pipe that the shell passes as a descriptor, as in `predict <(curl …)`; other pipes may never get a writer.

    A regular file is read later, like any other.
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
        for number, block in _trees(read_raw_lines(Path(name))):
            if block.strip():
                yield Input(f"{name}:{number}", block)
    except DlkitError as error:
        yield Input(name, error)


def _trees(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    from dlkit.data.text.treebank import split_examples

    return split_examples(lines)


def _glob_inputs(matches: list[str], spec: Spec) -> Iterator[Input]:
    for name in matches:
        if os.path.isdir(name):
            yield from _folder_inputs(name, spec)
        else:
            yield from _file_inputs(name, spec)


def _folder_inputs(folder: str, spec: Spec) -> Iterator[Input]:
    """The inputs below a folder, traversed as in data sets; errors are inputs too."""
    from dlkit.data.folders import files_below
    from dlkit.data.images.formats import EXTENSIONS

    suffixes = (
        EXTENSIONS if isinstance(spec, ImageSpec) else {".txt", ".conllu"} if isinstance(spec, TreeSpec) else {".txt"}
    )
    failures: list[DlkitError] = []
    for name in files_below(folder, failures.append):
        if os.path.splitext(name)[1].lower() in suffixes:
            yield from _file_inputs(name, spec)
    for error in failures:
        yield Input(str(error).partition(": ")[0], error)


def _strip_credentials(url: str) -> str:
    scheme, _, rest = url.partition("://")
    host, slash, tail = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{tail}"


def _read(item: Input, spec: Spec) -> LoadedInput:
    from dlkit.data.images import decode

    notes: list[str] = []
    try:
        if isinstance(item.source, DlkitError):
            return LoadedInput(item.name, item.source)
        source = _fetch(item.source) if isinstance(item.source, str) else item.source
        if not isinstance(spec, ImageSpec):
            return LoadedInput(item.name, _read_text(item.name, source, spec))
        return LoadedInput(item.name, decode.load(source, spec, notes=notes), tuple(notes))
    except DlkitError as error:
        return LoadedInput(item.name, error)
    except MemoryError:
        return LoadedInput(item.name, DataError(f"{item.name}: does not fit in memory."))


def _read_text(name: str, source: Path | bytes, spec: SequenceSpec | TreeSpec) -> list[str] | ParsedTree:
    """Tokenize or parse one example."""
    from dlkit.data.text import lines, tokenization, treebank

    try:
        text = lines.decode_text(source if isinstance(source, bytes) else lines.read_example(source))
        if isinstance(spec, TreeSpec):
            return treebank.parse_example(text, spec.labels)
        words = tokenization.tokenize(text, spec.tokens)
    except DataError as error:
        raise DataError(f"{name}: {error}.") from error
    if not words:
        raise DataError(f"{name}: empty.")
    return words


def _fetch(url: str) -> bytes:
    from dlkit.data.download import http

    if offline():
        raise StorageError(f"{http.redact_url(url)}: DLKIT_OFFLINE forbids the network. Unset it, or pass a file.")
    return http.read(url, URL_LIMIT)


class ReadAhead:
    """Reads at most `most` inputs ahead of their use, in order."""

    def __init__(self, items: Iterable[Input], spec: Spec, most: int) -> None:
        self._queue: queue.Queue[Future[LoadedInput] | BaseException | None] = queue.Queue(most)
        self._closed = threading.Event()
        self._deadline: float | None = None  # of the current batch
        self._pool = ThreadPoolExecutor(DECODERS, "decode")
        # A daemon, because it may wait for stdin forever.
        threading.Thread(target=self._submit, args=(items, spec), name="read", daemon=True).start()

    def batches(self, size: int, wait_s: float | None) -> Iterator[list[LoadedInput]]:
        """Full batches; with `wait_s`, also incomplete ones that long after their first input."""
        batch: list[LoadedInput] = []
        for item in self._arrivals():
            if item is not None:
                if not batch and wait_s is not None:
                    self._deadline = time.monotonic() + wait_s
                batch.append(item)
            if item is None or len(batch) == size:
                self._deadline = None
                yield batch
                batch = []
        yield batch

    def close(self) -> None:
        """Stop reading and drop unused inputs."""
        self._closed.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _arrivals(self) -> Iterator[LoadedInput | None]:
        """Loaded inputs in order; None if the batch should be answered before waiting any longer."""
        while True:
            try:
                entry = self._queue.get(timeout=self._remaining_s())
            except queue.Empty:
                yield None
                continue
            if not isinstance(entry, Future):
                if entry is None:
                    return
                yield None  # answer earlier inputs first
                raise entry
            try:
                item = entry.result(timeout=self._remaining_s())
            except TimeoutError:
                yield None
                item = entry.result()
            yield item

    def _submit(self, items: Iterable[Input], spec: Spec) -> None:
        end: BaseException | None = None
        try:
            for item in items:
                if self._closed.is_set():
                    return
                self._put(self._pool.submit(_read, item, spec))
        except BaseException as error:  # the caller's iterable may raise anything; `_arrivals` raises it again
            end = error
        self._put(end)

    def _put(self, entry: Future[LoadedInput] | BaseException | None) -> None:
        while not self._closed.is_set():
            try:
                self._queue.put(entry, timeout=0.1)
                return
            except queue.Full:
                continue

    def _remaining_s(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
