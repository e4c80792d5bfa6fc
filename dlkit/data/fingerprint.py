"""Fingerprints: the SHA-256 of a split, equal if and only if its samples and labels are, and of each file."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from dlkit import atomic_io
from dlkit.data.images import decode
from dlkit.data.splits import ImageFiles, MemoryImages, Samples, SequenceSamples, TreeSamples
from dlkit.errors import ModelFileError

COLUMNS = ("sha256", "bytes", "split", "class", "path")
ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}  # as console's tsv
KINDS = ("altered", "removed", "added", "moved")  # of changes
MAX_NAMED = 3  # files of each kind in a message


@dataclass(frozen=True, slots=True)
class FileDigest:
    """A file of a split: its path below the folder of the data, its class, size and digest."""

    path: str
    label: str
    size: int  # bytes
    sha256: str


Files = Mapping[str, Sequence[FileDigest]]  # split → its files


def fingerprint(samples: Samples, classes: tuple[str, ...]) -> str:
    """SHA-256 over classes, labels and contents; for files over sorted (class/name, size, SHA-256 of the bytes)."""
    digest = hashlib.sha256(repr(classes).encode())
    if isinstance(samples, MemoryImages):
        digest.update(repr(samples.images.shape).encode())
        digest.update(samples.targets.tobytes())
        digest.update(samples.images.data)
        return digest.hexdigest()
    if isinstance(samples, SequenceSamples | TreeSamples):
        words, own = _split_vocabulary(samples)
        digest.update(repr(words).encode())
        for name in sorted(field.name for field in fields(own) if field.name != "vocabulary"):
            values = np.ascontiguousarray(getattr(own, name))
            digest.update(repr((name, values.shape, values.dtype.str)).encode())
            digest.update(values.data)
        return digest.hexdigest()
    return fingerprint_of_files(file_digests(samples, classes), classes)


def fingerprint_of_files(files: Iterable[FileDigest], classes: tuple[str, ...]) -> str:
    """The `fingerprint` of a split of these files."""
    digest = hashlib.sha256(repr(classes).encode())
    index = {name: number for number, name in enumerate(classes)}
    rows = ((os.path.basename(file.path), index[file.label], file.path, file) for file in files)
    for name, _, _, file in sorted(rows, key=lambda row: row[:3]):
        row = repr((file.label, name, file.size, file.sha256))
        digest.update(row.encode("utf-8", errors="surrogateescape"))
    return digest.hexdigest()


def file_digests(samples: ImageFiles, classes: tuple[str, ...], root: str = "") -> list[FileDigest]:
    """The digest of every file of a split; size and modification time do not prove that a file is unchanged."""
    prefix = root.rstrip(os.sep) + os.sep if root else ""
    digests = []
    for source, target in zip(samples.paths, samples.targets.tolist(), strict=True):
        content = decode.read(source)
        sha256 = hashlib.sha256(content).hexdigest()
        digests.append(FileDigest(str(source).removeprefix(prefix), classes[target], len(content), sha256))
    return digests


def write_files(path: Path, files: Files) -> None:
    """Write the list of a run's files, tab-separated, one line per file."""
    atomic_io.write_text(path, "".join(_lines(files)))


def read_files(path: Path) -> dict[str, list[FileDigest]]:
    """Read a list of `write_files`.

    Raises:
        ModelFileError: the list is damaged.
    """
    files: dict[str, list[FileDigest]] = {}
    with atomic_io.storage_errors(path):
        text = path.read_bytes().decode("utf-8", errors="surrogateescape")
    try:
        for line in text.split("\n")[1:-1]:
            sha256, size, split, label, name = (_unescape(cell) for cell in line.split("\t"))
            files.setdefault(split, []).append(FileDigest(name, label, int(size), sha256))
    except ValueError as error:
        raise ModelFileError(f"{path} is damaged: a line of it is {line[:80]!r}.") from error
    return files


@dataclass(frozen=True)
class FileChange:
    """A file that has changed; None if it does not exist."""

    path: str
    kind: str  # added, removed, altered, moved (to another class or split)
    before: FileDigest | None
    now: FileDigest | None


def changes(before: Files, now: Files) -> list[FileChange]:
    """The files that differ, altered ones first.

    Reports a change of split only if no file was added or removed: the validation split is random, so that one more
    file moves many.
    """
    old, new = _by_path(before), _by_path(now)
    same_paths = old.keys() == new.keys()
    differences = []
    for path in sorted(old.keys() | new.keys()):
        (old_split, was), (new_split, is_now) = old.get(path, ("", None)), new.get(path, ("", None))
        if was is None or is_now is None:
            differences.append(FileChange(path, "added" if was is None else "removed", was, is_now))
        elif was.sha256 != is_now.sha256:
            differences.append(FileChange(path, "altered", was, is_now))
        elif was.label != is_now.label or (same_paths and old_split != new_split):
            differences.append(FileChange(path, "moved", was, is_now))
    return sorted(differences, key=lambda change: KINDS.index(change.kind))


def describe_changes(changes: Sequence[FileChange]) -> str:
    """1 altered: cat/3.png; 2 added: cat/8.png, cat/9.png."""
    parts = []
    for kind in KINDS:
        paths = [change.path for change in changes if change.kind == kind]
        if paths:
            more = ", …" if len(paths) > MAX_NAMED else ""
            parts.append(f"{len(paths):,} {kind}: {', '.join(paths[:MAX_NAMED])}{more}")
    return "; ".join(parts)


def _by_path(files: Files) -> dict[str, tuple[str, FileDigest]]:
    return {file.path: (split, file) for split, listed in files.items() for file in listed}


def _lines(files: Files) -> Iterator[str]:
    yield "\t".join(COLUMNS) + "\n"
    for split, listed in files.items():
        for file in listed:
            cells = (file.sha256, str(file.size), split, _escape(file.label), _escape(file.path))
            yield "\t".join(cells) + "\n"


def _escape(text: str) -> str:
    return re.sub(r"[\\\t\n\r]", lambda match: ESCAPES[match[0]], text)


def _unescape(text: str) -> str:
    plain = {escaped: letter for letter, escaped in ESCAPES.items()}
    return re.sub(r"\\[\\tnr]", lambda match: plain[match[0]], text)


def _split_vocabulary(samples: SequenceSamples | TreeSamples) -> tuple[list[str], SequenceSamples | TreeSamples]:
    """The words that occur in this split, sorted, and the samples reindexed to them: other splits do not matter."""
    if not samples.vocabulary:
        return [], samples
    indices = samples.values if isinstance(samples, SequenceSamples) else samples.words
    used, inverse = np.unique(indices, return_inverse=True)
    order = sorted(range(len(used)), key=lambda i: samples.vocabulary[used[i]] if used[i] >= 0 else "")
    ranks = np.empty(len(used), np.int32)
    ranks[order] = np.arange(len(used))
    words = [samples.vocabulary[used[i]] if used[i] >= 0 else "" for i in order]
    if isinstance(samples, SequenceSamples):
        return words, replace(samples, values=ranks[inverse])
    return words, replace(samples, words=ranks[inverse])
