"""`python -m crash [LAYER [COUNT]]`, from tests/: all layers in full, one, or so many trials of each."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import torch

from crash import faults, kills, mutants, mutations, power, together
from crash.gold import SETTINGS, SWA, digest, draw_quickly, run_or_resume, use_small_model
from dlkit import atomic_io

LAYERS = {
    "points": kills.points,
    "random": kills.random_times,
    "power": power.losses,
    "faults": faults.injected,
    "disk": faults.full_disk,
    "together": together.processes,
    "ranks": together.ranks,
    "documents": mutations.documents,
    "mutants": mutants.mutants,
}
MEMORY = "/dev/shm"  # a kill loses nothing that was written, wherever; an fsync takes 10 ms on a disk
FAST = {"points": 2, "power": 20, "faults": 3, "documents": 4, "together": 2}


def main(layer: str = "all", count: str = "") -> None:
    if layer == "swa":  # the mean of all epochs instead of the moving average
        SETTINGS.update(SWA)
        layer = "points"
    torch.set_num_threads(1)
    atomic_io.CHUNK = 16 * 1024
    use_small_model()
    draw_quickly()
    work = Path(tempfile.mkdtemp(dir=MEMORY if os.access(MEMORY, os.W_OK) else None))
    try:
        gold, again = (digest(run_or_resume(work / name)) for name in ("first", "second"))
        assert gold == again, "two uninterrupted runs differ: not a matter of crashes"
        chosen = FAST if layer == "fast" else LAYERS if layer == "all" else {layer: int(count or 0)}
        for name in chosen:
            begun, place = time.monotonic(), work / name
            place.mkdir()
            many = FAST[name] if layer == "fast" else int(count or 0)
            told = LAYERS[name](place, gold, *([many] if many else []))
            print(f"{name}: {told}; {time.monotonic() - begun:.0f} s", flush=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
