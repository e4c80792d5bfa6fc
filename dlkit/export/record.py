"""export.json: the exported files of a folder, and how closely each agrees with its run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlkit import atomic_io, documents
from dlkit.errors import ModelFileError, StorageError, UsageError

SCHEMA = "dlkit.export/1"
REPORT = "export.json"


@dataclass(frozen=True)
class ExportResult:
    """An exported file and its entry in export.json, with the measurements of this call."""

    path: Path
    entry: dict[str, Any]

    def document(self) -> dict[str, Any]:
        """The JSON form, `dlkit.export/1`, of this one file."""
        return {"schema": SCHEMA, "path": str(self.path), **self.entry}


def read_entries(folder: Path) -> dict[str, Any]:
    """The entries of export.json by file name; empty if there is no such file.

    Raises:
        UsageError: export.json was not written by dlkit. ModelFileError: it is damaged.
    """
    path = folder / REPORT
    with atomic_io.storage_errors(path):
        if not path.exists():
            return {}
    document = documents.read(path, advice="Remove it, or export into another folder.")
    files = document.get("files") if document.get("schema") == SCHEMA else None
    if not isinstance(files, dict):
        raise UsageError(f"{path} was not written by this dlkit ({SCHEMA}). Export into another folder.")
    return files


def read_entry(path: Path) -> dict[str, Any]:
    """A file's entry in export.json.

    Raises:
        ModelFileError: there is no such file, or no valid entry.
    """
    entry = read_entries(path.parent).get(path.name)
    if not path.exists():
        raise ModelFileError(f"model file {path}: no such file.")
    try:
        assert entry is not None and isinstance(entry["sha256"], str)
        assert {"name", "id", "path", "checkpoint"} <= entry["run"].keys() and "feed" in entry
        assert entry["run"]["checkpoint"] in ("best", "last")
    except (AssertionError, KeyError, TypeError, AttributeError) as error:
        raise ModelFileError(
            f"{path} cannot be verified: {REPORT} in its folder has no entry for it. Export it again."
        ) from error
    return dict(entry)


def write_export(path: Path, data: bytes, files: dict[str, Any]) -> None:
    """Write the file, then export.json; if that fails, remove the file."""
    atomic_io.point("export")
    atomic_io.write_bytes(path, data)
    try:
        documents.write(path.parent / REPORT, {"schema": SCHEMA, "files": files})
    except StorageError:
        path.unlink(missing_ok=True)
        raise
