"""What a split holds, as one SHA-256: equal if and only if its samples and labels are."""

from __future__ import annotations

import hashlib
from pathlib import Path

from dlkit.data.samples import MemoryImages, Samples
from dlkit.durable import storage_errors


def fingerprint(samples: Samples, classes: tuple[str, ...]) -> str:
    """SHA-256 over classes, labels and contents; for files over sorted (class/name, size, SHA-256 of the bytes)."""
    digest = hashlib.sha256(repr(classes).encode())
    if isinstance(samples, MemoryImages):
        digest.update(repr(samples.images.shape).encode())
        digest.update(samples.targets.tobytes())
        digest.update(samples.images.data)
        return digest.hexdigest()
    rows = zip(samples.paths, samples.targets.tolist(), strict=True)
    for name, target, path in sorted((path.name, target, path) for path, target in rows):
        digest.update(repr((classes[target], name, *_size_and_hash(path))).encode("utf-8", errors="surrogateescape"))
    return digest.hexdigest()


def _size_and_hash(path: Path) -> tuple[int, str]:
    with storage_errors(path), open(path, "rb") as file:
        return path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()
