"""Receipts: what a run writes down so that it can be told later whether another one is the same.

The hash of its weights, the machine and the packages it ran on, the state of the working folder; and how two such
records differ. Nothing here is secret: of git neither remote nor branch is read, of argv no password in a URL is kept.
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
WHERE_USED = ("timm", "datasets", "webdataset")  # noted where something has imported them
GIT_PATIENCE_S = 5.0

Document = Mapping[str, Any]


def weights_sha256(model: nn.Module, averaged: nn.Module | None = None) -> str:
    """SHA-256 over name, dtype, shape and bytes of all weights and buffers, under the names a checkpoint gives them."""
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    if averaged is not None:
        tensors |= {f"ema/{name}": tensor for name, tensor in averaged.state_dict().items()}
    return tensors_sha256(tensors)


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over name, dtype, shape and bytes, by name; the memory format counts not."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Python's, and of each package whose code can change a result."""
    used = [name for name in WHERE_USED if name in sys.modules]
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in (*PACKAGES, *used)},
    }


def hardware() -> dict[str, Any]:
    """The processor, what torch uses of it, its cores, the memory, and the GPUs."""
    gpus = range(torch.cuda.device_count())
    return {
        "cpu": _cpu_model(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": _memory_gib(),
        "gpus": [torch.cuda.get_device_name(number) for number in gpus],
    }


def git_state(folder: Path | None = None) -> dict[str, Any] | None:
    """The commit that a folder is at, and whether a file under git has changed since; None where there is no git."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "dirty": bool(changed)}


def without_passwords(argv: Sequence[str]) -> list[str]:
    """The command line, less what stands between :// and @ in a URL."""
    return [re.sub(r"://[^/@\s]*@", "://…@", word) for word in argv]


@dataclass(frozen=True)
class Difference:
    """One thing that is not what it was: what ("data file", "setting", "package", …), its name, and its two values."""

    what: str
    name: str
    before: Any
    now: Any

    def __str__(self) -> str:
        name = self.name if self.what in ("setting", self.name) else f"{self.what} {self.name}"
        return f"{name} was {_short(self.before)}, is {_short(self.now)}"


def recipe_differences(before: Document, now: Document) -> list[Difference]:
    """Settings of two recipes, as their JSON has them, that are not the same."""
    ours, theirs = flatten(before), flatten(now)
    keys = dict.fromkeys([*ours, *theirs])
    return [
        Difference("setting", key, ours.get(key), theirs.get(key)) for key in keys if ours.get(key) != theirs.get(key)
    ]


def environment_differences(before: Document, now: Document) -> list[Difference]:
    """Where two runs' run.json tell of other packages, threads, devices or machines."""
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
    """What git says; it takes no lock, writes no index and starts no program that the repository names."""
    command = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=GIT_PATIENCE_S, check=True)
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
