"""Provenance: the record with which a run can be compared with another one later.

The hash of its weights, its machine and packages, and the state of the working folder; and the differences of two such
records. It contains no secrets: neither remote nor branch of git is read, and passwords in URLs of argv are removed.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dlkit.config.keys import flatten

PACKAGES = ("dlkit", "torch", "torchvision", "numpy", "pillow", "safetensors", "pydantic")
OPTIONAL_PACKAGES = ("timm", "datasets", "webdataset")  # recorded if they are imported
GIT_TIMEOUT_S = 5.0

Document = Mapping[str, Any]


def weights_sha256(model: nn.Module, averaged: nn.Module | None = None) -> str:
    """SHA-256 over name, dtype, shape and bytes of all weights and buffers, under their names in a checkpoint."""
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    if averaged is not None:
        tensors |= {f"ema/{name}": tensor for name, tensor in averaged.state_dict().items()}
    return tensors_sha256(tensors)


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over name, dtype, shape and bytes, by name; the memory format has no effect."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """The versions of Python and of each package whose code can affect a result."""
    used = [name for name in OPTIONAL_PACKAGES if name in sys.modules]
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in (*PACKAGES, *used)},
    }


def hardware() -> dict[str, Any]:
    """The processor, its capability for torch, its cores, the memory, and the GPUs."""
    gpus = range(torch.cuda.device_count())
    return {
        "cpu": _cpu_model(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": _memory_gib(),
        "gpus": [torch.cuda.get_device_name(number) for number in gpus],
    }


def git_state(folder: Path | None = None) -> dict[str, Any] | None:
    """The commit of a folder, and whether a tracked file has changed since; None without git."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "dirty": bool(changed)}


def without_passwords(argv: Sequence[str]) -> list[str]:
    """The command line without the user and password of URLs."""
    return [re.sub(r"://[^/@\s]*@", "://…@", word) for word in argv]


@dataclass(frozen=True)
class Difference:
    """A change: its kind ("data file", "setting", "package", …), its name, and both values."""

    what: str
    name: str
    before: Any
    now: Any

    def __str__(self) -> str:
        name = self.name if self.what in ("setting", self.name) else f"{self.what} {self.name}"
        return f"{name} was {_short(self.before)}, is {_short(self.now)}"


def recipe_differences(before: Document, now: Document) -> list[Difference]:
    """The settings in which two recipes, in their JSON form, differ."""
    ours, theirs = flatten(before), flatten(now)
    keys = dict.fromkeys([*ours, *theirs])
    return [
        Difference("setting", key, ours.get(key), theirs.get(key)) for key in keys if ours.get(key) != theirs.get(key)
    ]


def environment_differences(before: Document, now: Document) -> list[Difference]:
    """The packages, threads, devices and machines in which two runs' run.json differ."""
    pairs = [("package", name, before["versions"].get(name), new) for name, new in now["versions"].items()]
    pairs += [("", name, before[name], now[name]) for name in ("threads", "device", "world_size", "precision")]
    if "hardware" in before:  # not in runs of an older dlkit
        ours, theirs = before["hardware"], now["hardware"]
        pairs += [("hardware", name, ours.get(name), theirs[name]) for name in ("cpu", "cpu_capability", "gpus")]
    return [Difference(what or name, name, was, new) for what, name, was, new in pairs if was != new]


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:12]}…" if re.fullmatch("[0-9a-f]{64}", text) else text


def _git(folder: Path | None, *words: str) -> str:
    """The output of git, which takes no lock, writes no index and starts no program configured in the repository."""
    command = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=GIT_TIMEOUT_S, check=True)
    return done.stdout.strip()


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1] if found else platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None
