"""JSON documents that carry a digest of themselves, so that a changed byte is damage and never another result.

`"digest"` is the SHA-256 of all other keys in a canonical form: sorted, without white space. `"integrity"` announces
it, so that a document whose digest was lost is damaged too; one with neither key was written by an older dlkit and is
used as it is. Every document that can affect a result is written and read here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dlkit import atomic_io
from dlkit.errors import ModelFileError

INTEGRITY, DIGEST = "integrity", "digest"


class Document(dict[str, Any]):
    """The keys of a document; a missing one is damage of its file, not a bug of the reader."""

    def __init__(self, path: Path, content: Mapping[str, Any]) -> None:
        super().__init__(content)
        self.path = path

    def __missing__(self, key: str) -> Any:
        raise ModelFileError(f"{self.path} is damaged: it has no {key!r}.")


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Put a document at `path`, all of it or none, with its digest."""
    atomic_io.write_json(path, sealed(content))


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The document with its digest."""
    announced = {**content, INTEGRITY: "sha256"}
    return {**announced, DIGEST: digest(json.loads(json.dumps(announced)))}  # of what a reader parses: keys are text


def read(path: Path, schema: str | None = None, *, advice: str = "") -> Document:
    """The document at `path` without its digest.

    Raises:
        ModelFileError: it is damaged, or of another schema; the message names the file and ends with `advice`.
        StorageError: it cannot be read.
    """
    with atomic_io.storage_errors(path):
        content = path.read_bytes()
    try:
        return Document(path, opened(content, schema))
    except ValueError as error:
        raise ModelFileError(f"{path} is damaged: {error}. {advice}".rstrip()) from error


def opened(content: bytes, schema: str | None = None) -> dict[str, Any]:
    """The content of a document, its digest checked.

    Raises:
        ValueError: it is damaged, or of another schema.
    """
    document = parsed(content)
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")
    found = document.pop(DIGEST, None)
    if (found is not None or INTEGRITY in document) and found != digest(document):
        raise ValueError("its content does not match its digest")
    document.pop(INTEGRITY, None)
    if schema is not None and document.get("schema") != schema:
        raise ValueError(f"its schema is {str(document.get('schema'))[:40]!r}, not {schema!r}")
    return document


def parsed(content: bytes) -> Any:
    """JSON from bytes of unknown origin.

    Raises:
        ValueError: no JSON, nested too deeply, or a number too long.
    """
    try:
        return json.loads(content.decode("utf-8", errors="surrogateescape"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON at line {error.lineno}, column {error.colno}") from None
    except ValueError:  # Python's limit on the digits of an integer
        raise ValueError("a number in it is too long") from None


def digest(document: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical form."""
    try:
        text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return hashlib.sha256(text.encode()).hexdigest()
