"""The schema of run.json: the types of the keys that commands use."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dlkit.documents import Document
from dlkit.errors import ModelFileError

Count = Annotated[int, Field(ge=0, le=2**53)]


class StoredDocument(BaseModel):
    """A JSON document: the types of known keys; other keys are allowed."""

    model_config = ConfigDict(strict=True, extra="allow")


class SplitInfo(StoredDocument):
    samples: Count = 0
    sha256: str = ""


class BestInfo(StoredDocument):
    epoch: Count
    step: Count
    value: float


class RunInfo(StoredDocument):
    run_id: str
    name: str
    status: str
    started: str | None = None
    ended: str | None = None
    epochs: Count | None = None
    model: str | None = None
    dataset: str | None = None
    monitor: str | None = None
    threads: Annotated[int, Field(ge=1, le=2**16)] = 1
    world_size: Annotated[int, Field(ge=1, le=2**20)] = 1
    parameters: Count = 0
    inexact: bool = False
    spec: dict[str, Any] = {}
    recipe: dict[str, Any] = {}
    versions: dict[str, str] = {}
    hardware: dict[str, Any] = {}
    data: dict[str, SplitInfo] = {}
    best: BestInfo | None = None
    resumes: list[dict[str, Any]] = []
    from_scratch: list[str] = []
    argv: list[str] = []


def check(document: Document, schema: type[StoredDocument] = RunInfo) -> None:
    """Raises: ModelFileError that names the first key with a wrong type."""
    try:
        schema.model_validate(dict(document))
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise ModelFileError(f"{document.path} is damaged: {where!r} is missing or has a wrong type.") from error
