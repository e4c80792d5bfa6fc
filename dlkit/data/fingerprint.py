"""What a split holds, as one SHA-256: equal if and only if its samples and labels are. And of files, each one's own."""

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
NAMED = 3  # files of each kind that a sentence names


@dataclass(frozen=True, slots=True)
class FileDigest:
    """A file of a split: its path below the folder of the data, its class and what it holds."""

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
        words, own = _own_words(samples)
        digest.update(repr(words).encode())
        for name in sorted(field.name for field in fields(own) if field.name != "vocabulary"):
            values = np.ascontiguousarray(getattr(own, name))
            digest.update(repr((name, values.shape, values.dtype.str)).encode())
            digest.update(values.data)
        return digest.hexdigest()
    return fingerprint_of_files(file_digests(samples, classes), classes)


def fingerprint_of_files(files: Iterable[FileDigest], classes: tuple[str, ...]) -> str:
    """What `fingerprint` gives for a split of these files."""
    digest = hashlib.sha256(repr(classes).encode())
    place = {name: index for index, name in enumerate(classes)}
    rows = ((os.path.basename(file.path), place[file.label], file.path, file) for file in files)
    for name, _, _, file in sorted(rows, key=lambda row: row[:3]):
        row = repr((file.label, name, file.size, file.sha256))
        digest.update(row.encode("utf-8", errors="surrogateescape"))
    return digest.hexdigest()


def file_digests(samples: ImageFiles, classes: tuple[str, ...], root: str = "") -> list[FileDigest]:
    """Every file of a split, read whole: a size and a time of change do not tell that a file is what it was."""
    prefix = root.rstrip(os.sep) + os.sep if root else ""
    found = []
    for source, target in zip(samples.paths, samples.targets.tolist(), strict=True):
        content = decode.read(source)
        sha256 = hashlib.sha256(content).hexdigest()
        found.append(FileDigest(str(source).removeprefix(prefix), classes[target], len(content), sha256))
    return found


def write_files(path: Path, files: Files) -> None:
    """Put the list of a run's files beside its run.json: a line a file, tabs between."""
    atomic_io.write_text(path, "".join(_lines(files)))


def read_files(path: Path) -> dict[str, list[FileDigest]]:
    """What write_files wrote.

    Raises:
        ModelFileError: it is damaged.
    """
    found: dict[str, list[FileDigest]] = {}
    with atomic_io.storage_errors(path):
        text = path.read_bytes().decode("utf-8", errors="surrogateescape")
    try:
        for line in text.split("\n")[1:-1]:
            sha256, size, split, label, name = (_unescaped(cell) for cell in line.split("\t"))
            found.setdefault(split, []).append(FileDigest(name, label, int(size), sha256))
    except ValueError as error:
        raise ModelFileError(f"{path} is damaged: a line of it is {line[:80]!r}.") from error
    return found


@dataclass(frozen=True)
class FileChange:
    """One file that is not what it was; none stands for a file that is not there."""

    path: str
    kind: str  # added, removed, altered, moved: to another class or split
    before: FileDigest | None
    now: FileDigest | None


def changes(before: Files, now: Files) -> list[FileChange]:
    """The files that differ, altered ones first.

    That a file is in another split is told only where no file came or went: one more moves many, for the validation
    split is cut by lot.
    """
    old, new = _by_path(before), _by_path(now)
    same_paths = old.keys() == new.keys()
    found = []
    for path in sorted(old.keys() | new.keys()):
        (old_split, was), (new_split, is_now) = old.get(path, ("", None)), new.get(path, ("", None))
        if was is None or is_now is None:
            found.append(FileChange(path, "added" if was is None else "removed", was, is_now))
        elif was.sha256 != is_now.sha256:
            found.append(FileChange(path, "altered", was, is_now))
        elif was.label != is_now.label or (same_paths and old_split != new_split):
            found.append(FileChange(path, "moved", was, is_now))
    return sorted(found, key=lambda change: KINDS.index(change.kind))


def told(found: Sequence[FileChange]) -> str:
    """1 altered: cat/3.png; 2 added: cat/8.png, cat/9.png."""
    parts = []
    for kind in KINDS:
        paths = [change.path for change in found if change.kind == kind]
        if paths:
            more = ", …" if len(paths) > NAMED else ""
            parts.append(f"{len(paths):,} {kind}: {', '.join(paths[:NAMED])}{more}")
    return "; ".join(parts)


def _by_path(files: Files) -> dict[str, tuple[str, FileDigest]]:
    return {file.path: (split, file) for split, listed in files.items() for file in listed}


def _lines(files: Files) -> Iterator[str]:
    yield "\t".join(COLUMNS) + "\n"
    for split, listed in files.items():
        for file in listed:
            cells = (file.sha256, str(file.size), split, _escaped(file.label), _escaped(file.path))
            yield "\t".join(cells) + "\n"


def _escaped(text: str) -> str:
    return re.sub(r"[\\\t\n\r]", lambda match: ESCAPES[match[0]], text)


def _unescaped(text: str) -> str:
    plain = {escaped: letter for letter, escaped in ESCAPES.items()}
    return re.sub(r"\\[\\tnr]", lambda match: plain[match[0]], text)


def _own_words(samples: SequenceSamples | TreeSamples) -> tuple[list[str], SequenceSamples | TreeSamples]:
    """The words of this split alone, sorted, and the samples with their places among these: other splits count not."""
    if not samples.vocabulary:
        return [], samples
    places = samples.values if isinstance(samples, SequenceSamples) else samples.words
    used, inverse = np.unique(places, return_inverse=True)
    order = sorted(range(len(used)), key=lambda at: samples.vocabulary[used[at]] if used[at] >= 0 else "")
    ranks = np.empty(len(used), np.int32)
    ranks[order] = np.arange(len(used))
    words = [samples.vocabulary[used[at]] if used[at] >= 0 else "" for at in order]
    if isinstance(samples, SequenceSamples):
        return words, replace(samples, values=ranks[inverse])
    return words, replace(samples, words=ranks[inverse])
