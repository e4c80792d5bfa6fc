"""How much memory there is on a device, how much this process has taken of it, and that it keeps what it has."""

from __future__ import annotations

import ctypes
import os
import re
from contextlib import suppress
from pathlib import Path

import torch

CGROUPS = (  # limit and use, of version 2 and of version 1
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # mallopt's names in malloc.h


def keep_freed() -> None:
    """Have the C library keep the memory that tensors free for the next ones, where it is glibc.

    By default it hands a large block back to the kernel when it is freed, and in each step the kernel zeroes the same
    pages again: some 20,000 in a step of ResNet-20 (tests/benchmarks/kept_memory.py).
    """
    with suppress(AttributeError, OSError, TypeError):  # another C library, or none to ask
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_TRIM_THRESHOLD, -1)  # never
        mallopt(M_TOP_PAD, 64 << 20)  # grow by so much at once
        if not mallopt(M_MMAP_THRESHOLD, 1 << 30):
            mallopt(M_MMAP_THRESHOLD, 32 << 20)  # the most that older ones take


def available(device: torch.device) -> int | None:
    """Bytes that could still be had, the limit of a container included; None where the system does not tell."""
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type != "cpu":
        return None
    found = [_status("/proc/meminfo", "MemAvailable")]
    for limit, used in CGROUPS:
        with suppress(OSError, ValueError):  # "max" is no number: there is no limit
            found.append(int(Path(limit).read_text()) - int(Path(used).read_text()))
    return min((size for size in found if size is not None), default=None)


def taken(device: torch.device) -> int | None:
    """Bytes in use now."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return _status("/proc/self/status", "VmRSS") if device.type == "cpu" else None


def peak(device: torch.device) -> int | None:
    """The most bytes in use at once since `forget_peak`, where the system can forget it."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    return _status("/proc/self/status", "VmHWM") if device.type == "cpu" else None


def forget_peak(device: torch.device) -> None:
    """Count the peak from here on, from what is in use: freed memory that was kept is given back."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    elif device.type == "cpu":
        with suppress(AttributeError, OSError, TypeError):
            ctypes.CDLL(None).malloc_trim(0)
        with suppress(OSError), open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")  # Linux: the high-water mark alone


def gib(size: float | None) -> str:
    """1.25 GiB."""
    return "an unknown amount" if size is None else f"{size / 2**30:.2f} GiB"


def _status(path: str, name: str) -> int | None:
    """A line of the kernel's: `name: 1234 kB`."""
    if not os.path.exists(path):
        return None
    found = re.search(rf"^{name}:\s*(\d+) kB", Path(path).read_text(encoding="utf-8"), re.MULTILINE)
    return int(found[1]) * 1024 if found else None
