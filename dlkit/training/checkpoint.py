"""Checkpoints: a safetensors payload and the JSON manifest that vouches for it. No pickle.

A checkpoint exists if and only if its manifest exists and the payload's size and SHA-256 match it; the newest is the
one of the largest step, whatever the file times say. The payload is written first, then the manifest, and only then are
old ones pruned: a kill at any point leaves a whole checkpoint. The manifest carries a digest of itself
(dlkit.documents), and one of the lines of metrics.jsonl that were written before it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from dlkit import atomic_io
from dlkit.errors import ModelFileError, StorageError
from dlkit.runs import manifest
from dlkit.runs.manifest import saved_steps

__all__ = ["Checkpoint", "load", "newest", "prune", "save", "saved_steps"]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint read back and verified: its tensors by name, and the plain state beside them."""

    step: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]
    metrics: Mapping[str, Any] | None = None  # how many lines of metrics.jsonl belong to it, and their SHA-256
    sha256: str = ""  # of the payload


def save(
    folder: Path,
    run_id: str,
    step: int,
    tensors: Mapping[str, Tensor],
    state: dict[str, Any],
    metrics: Mapping[str, Any] | None = None,
) -> None:
    """Write one checkpoint; it exists once this returns.

    Raises:
        StorageError: nothing new exists, nothing old is lost.
    """
    payload = safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()})
    atomic_io.write_bytes(_payload_path(folder, step), payload)
    content = {
        "run_id": run_id,
        "step": step,
        "size": len(payload),
        "sha256": hashlib.sha256(payload).hexdigest(),
        **({} if metrics is None else {"metrics": dict(metrics)}),
        "state": state,
    }
    manifest.write(folder, content)
    atomic_io.point("after_manifest")


def prune(folder: Path, keep: int, best: int | None) -> None:
    """Delete all but the newest `keep` checkpoints and the best one; what has no manifest goes too."""
    steps = saved_steps(folder)
    with atomic_io.storage_errors(folder):
        kept = set(steps[-keep:]) | {best}
        atomic_io.point("before_prune")
        for step in steps:
            if step not in kept:
                manifest.manifest_path(folder, step).unlink(missing_ok=True)  # first: a payload alone is no checkpoint
                atomic_io.point("mid_prune")
        for payload in folder.glob("step-*.safetensors"):
            if not payload.with_suffix(".json").exists():
                payload.unlink(missing_ok=True)


def load(folder: Path, step: int, run_id: str) -> Checkpoint:
    """Read one checkpoint and verify it.

    Raises:
        ModelFileError: it is damaged, or belongs to another run; the message says which.
        StorageError: it cannot be read.
    """
    claims = manifest.read(folder, step, run_id)
    path = _payload_path(folder, step)
    with atomic_io.storage_errors(path):
        if not path.exists():
            raise ModelFileError(f"checkpoint {path} is missing, its manifest is there.")
        payload = path.read_bytes()
    if len(payload) != claims["size"]:
        raise ModelFileError(f"checkpoint {path} has {len(payload)} bytes, its manifest says {claims['size']}")
    found = hashlib.sha256(payload).hexdigest()
    if found != claims["sha256"]:
        raise ModelFileError(f"checkpoint {path} is damaged: SHA-256 {found[:12]}…, expected {claims['sha256'][:12]}…")
    try:
        return Checkpoint(step, safetensors.torch.load(payload), claims["state"], claims.get("metrics"), found)
    except safetensors.SafetensorError as error:
        raise ModelFileError(f"checkpoint {path} is no safetensors file: {error}") from error


def newest(folder: Path, run_id: str, warn: Callable[[str], None]) -> Checkpoint:
    """The newest checkpoint that is valid; `warn` receives one line for each newer one that is not.

    A checkpoint that this user may not read is not damaged: it is an error, and no older one is used in its stead.

    Raises:
        ModelFileError: there is none. StorageError: one cannot be read.
    """
    steps = saved_steps(folder)
    unreadable: StorageError | None = None
    for step in reversed(steps):
        try:
            return load(folder, step, run_id)
        except (StorageError, ModelFileError) as error:
            if step not in saved_steps(folder):
                return newest(folder, run_id, warn)  # its trainer has pruned it since it was listed
            if isinstance(error.__cause__, PermissionError):
                raise
            unreadable = error if isinstance(error, StorageError) else unreadable
            warn(f"warning: {str(error).rstrip('.')}; taking the one before.")
    if unreadable is not None:
        raise unreadable
    raise ModelFileError(
        f"no whole checkpoint in {folder} ({len(steps)} damaged). Train again under a new name."
        if steps
        else f"no checkpoint in {folder}: the run was stopped before its first. Train again under a new name."
    )


def _payload_path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:09d}.safetensors"
