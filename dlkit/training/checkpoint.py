"""Checkpoints: a safetensors payload and the JSON manifest that vouches for it. No pickle.

A checkpoint exists if and only if its manifest exists and the payload's size and SHA-256 match it; the newest is the
one of the largest step, whatever the file times say. The payload is written first, then the manifest, and only then are
old ones pruned: a kill at any point leaves a whole checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from dlkit import atomic_io
from dlkit.errors import ModelFileError

SCHEMA = "dlkit.checkpoint/1"
NAME = re.compile(r"step-(\d{9})\.json")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint read back and verified: its tensors by name, and the plain state beside them."""

    step: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]


def save(folder: Path, run_id: str, step: int, tensors: Mapping[str, Tensor], state: dict[str, Any]) -> None:
    """Write one checkpoint; it exists once this returns.

    Raises:
        StorageError: nothing new exists, nothing old is lost.
    """
    payload = safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()})
    atomic_io.write_bytes(_payload_path(folder, step), payload)
    manifest = {
        "schema": SCHEMA,
        "run_id": run_id,
        "step": step,
        "size": len(payload),
        "sha256": hashlib.sha256(payload).hexdigest(),
        "state": state,
    }
    atomic_io.write_json(_manifest_path(folder, step), manifest)
    atomic_io.point("after_manifest")


def prune(folder: Path, keep: int, best: int | None) -> None:
    """Delete all but the newest `keep` checkpoints and the best one; what has no manifest goes too."""
    steps = saved_steps(folder)
    kept = set(steps[-keep:]) | {best}
    atomic_io.point("before_prune")
    for step in steps:
        if step not in kept:
            _manifest_path(folder, step).unlink(missing_ok=True)  # first: a payload alone is no checkpoint
            atomic_io.point("mid_prune")
    for payload in folder.glob("step-*.safetensors"):
        if not payload.with_suffix(".json").exists():
            payload.unlink(missing_ok=True)


def saved_steps(folder: Path) -> list[int]:
    """The steps that have a manifest, ascending."""
    matches = (NAME.fullmatch(path.name) for path in folder.glob("step-*.json"))
    return sorted(int(match[1]) for match in matches if match)


def load(folder: Path, step: int, run_id: str) -> Checkpoint:
    """Read one checkpoint and verify it.

    Raises:
        ModelFileError: it is damaged, or belongs to another run; the message says which.
    """
    manifest = read_manifest(folder, step, run_id)
    path = _payload_path(folder, step)
    try:
        payload = path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"checkpoint {path}: {error.strerror}") from error
    if len(payload) != manifest["size"]:
        raise ModelFileError(f"checkpoint {path} has {len(payload)} bytes, its manifest says {manifest['size']}")
    found = hashlib.sha256(payload).hexdigest()
    if found != manifest["sha256"]:
        raise ModelFileError(
            f"checkpoint {path} is damaged: SHA-256 {found[:12]}…, expected {manifest['sha256'][:12]}…"
        )
    try:
        return Checkpoint(step, safetensors.torch.load(payload), manifest["state"])
    except safetensors.SafetensorError as error:
        raise ModelFileError(f"checkpoint {path} is no safetensors file: {error}") from error


def read_manifest(folder: Path, step: int, run_id: str) -> dict[str, Any]:
    """The manifest of one checkpoint, its own claims checked."""
    path = _manifest_path(folder, step)
    try:
        manifest = json.loads(path.read_bytes())
        claims = {"schema": SCHEMA, "run_id": run_id, "step": step}
        wrong = {key: manifest.get(key) for key, value in claims.items() if manifest.get(key) != value}
        shapes = isinstance(manifest.get("size"), int) and isinstance(manifest.get("sha256"), str)
        if wrong or not shapes or not isinstance(manifest.get("state"), dict):
            raise ModelFileError(f"manifest {path} does not belong to this checkpoint: {wrong or 'keys are missing'}")
    except (OSError, ValueError, AttributeError) as error:
        raise ModelFileError(f"manifest {path} cannot be read: {error}") from error
    return dict(manifest)


def newest(folder: Path, run_id: str, warn: Callable[[str], None]) -> Checkpoint:
    """The newest checkpoint that is whole; `warn` hears once of each newer one that is not.

    Raises:
        ModelFileError: there is none.
    """
    steps = saved_steps(folder)
    for step in reversed(steps):
        try:
            return load(folder, step, run_id)
        except ModelFileError as error:
            warn(f"warning: {error}; taking the one before.")
    raise ModelFileError(
        f"no whole checkpoint in {folder} ({len(steps)} damaged). Train again under a new name."
        if steps
        else f"no checkpoint in {folder}: the run was stopped before its first. Train again under a new name."
    )


def _payload_path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:09d}.safetensors"


def _manifest_path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:09d}.json"
