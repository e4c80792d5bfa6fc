"""What a split holds, as one SHA-256: equal if and only if its samples and labels are."""

from __future__ import annotations

import hashlib
from dataclasses import fields, replace
from pathlib import Path

import numpy as np

from dlkit.data.samples import MemoryImages, Samples, SequenceSamples, TreeSamples
from dlkit.durable import storage_errors


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
        for name in sorted(field.name for field in fields(own) if field.name != "lexicon"):
            values = np.ascontiguousarray(getattr(own, name))
            digest.update(repr((name, values.shape, values.dtype.str)).encode())
            digest.update(values.data)
        return digest.hexdigest()
    rows = zip(samples.paths, samples.targets.tolist(), strict=True)
    for name, target, path in sorted((path.name, target, path) for path, target in rows):
        digest.update(repr((classes[target], name, *_size_and_hash(path))).encode("utf-8", errors="surrogateescape"))
    return digest.hexdigest()


def _own_words(samples: SequenceSamples | TreeSamples) -> tuple[list[str], SequenceSamples | TreeSamples]:
    """The words of this split alone, sorted, and the samples with their places among these: other splits count not."""
    if not samples.lexicon:
        return [], samples
    places = samples.values if isinstance(samples, SequenceSamples) else samples.words
    used, inverse = np.unique(places, return_inverse=True)
    order = sorted(range(len(used)), key=lambda at: samples.lexicon[used[at]] if used[at] >= 0 else "")
    ranks = np.empty(len(used), np.int32)
    ranks[order] = np.arange(len(used))
    words = [samples.lexicon[used[at]] if used[at] >= 0 else "" for at in order]
    if isinstance(samples, SequenceSamples):
        return words, replace(samples, values=ranks[inverse])
    return words, replace(samples, words=ranks[inverse])


def _size_and_hash(path: Path) -> tuple[int, str]:
    with storage_errors(path), open(path, "rb") as file:
        return path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()
