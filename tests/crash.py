"""A training run that is killed at named points and resumed: `python tests/crash.py [STRIDE [swa]]`, a fresh process.

The gold run trains on distinct images with convolution, batch norm, dropout, random crop, flip and erasing, mixup, SAM,
gradient noise, AdamW, a cosine schedule, label smoothing, EMA (or SWA), accumulation, early stopping armed, and a
checkpoint every 3 of its 24 steps.
For every point that a clean run passes, and every time it passes it, a forked child is killed there with SIGKILL; then
another child resumes, and all that the run left must equal gold's: weights, moments, counters, metrics.
Only one thread is used, so that forking is safe.
"""

from __future__ import annotations

import collections
import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from dlkit import atomic_io
from dlkit.config import recipe
from dlkit.runs.run_folder import RunFolder
from dlkit.training import assembly, checkpoint, train

SETTINGS = {
    "data.options.train": 80,
    "data.options.test": 8,
    "data.options.channels": 1,
    "data.validation": 0.2,
    "data.augment.crop_padding": 2,
    "data.augment.horizontal_flip": 0.5,
    "data.augment.erasing": 0.3,
    "optimizer.name": "adamw",
    "optimizer.weight_decay": 0.05,
    "schedule.name": "cosine",
    "loss.label_smoothing": 0.1,
    "regularizers.mixup.alpha": 0.4,
    "regularizers.gradient_noise.eta": 0.001,
    "regularizers.sam.rho": 0.05,
    "train.epochs": 3,
    "train.batch_size": 8,
    "train.accumulate": 2,
    "train.ema": 0.9,
    "train.patience": 3,
    "train.checkpoint_every": 3,
    "train.log_every": 2,
    "train.threads": 1,
    "train.device": "cpu",
}
SWA = {"train.ema": 0.0, "regularizers.swa.start": 0.3}  # instead of the EMA: the mean of all three epochs


class Small(nn.Module):
    """Convolution, batch norm, dropout: each kind of state there is."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 4, 3, stride=4, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.dropout = nn.Dropout(0.3)
        self.output = nn.Linear(4 * 7 * 7, classes)

    def forward(self, images: Tensor) -> Tensor:  # (N, 1, 28, 28) -> (N, classes)
        maps = self.norm(self.convolution(images)).relu()  # (N, 4, 7, 7)
        return self.output(self.dropout(maps.flatten(1)))


def gold_recipe(**changes: object) -> recipe.Recipe:
    return recipe.resolve("mlp", "shapes", flags={**SETTINGS, **changes}).recipe


def use_small_model() -> None:
    assembly.build = lambda name, spec, options: Small(len(spec.classes))  # type: ignore[assignment]


def run_or_resume(runs_dir: Path) -> RunFolder:
    """One call that goes on from wherever the last one was killed."""
    if (runs_dir / "gold").exists():
        folder = RunFolder(runs_dir / "gold")
        return train.resume_run(folder, changes={}, inexact=False, say=quiet, progress=False)
    return train.train_recipe(gold_recipe(), name="gold", runs_dir=runs_dir, argv=[], say=quiet, progress=False)


def quiet(text: str) -> None:
    """Says nothing."""


def digest(folder: RunFolder) -> str:
    """SHA-256 over every tensor, the state beside them, and metrics.jsonl without its speeds."""
    found = checkpoint.newest(folder.checkpoints, folder.info()["run_id"], quiet)
    total = hashlib.sha256(json.dumps(found.state, sort_keys=True).encode())
    for name, tensor in sorted(found.tensors.items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode() + tensor.numpy().tobytes())
    for line in folder.metrics():
        total.update(json.dumps({key: value for key, value in line.items() if key != "images_per_s"}).encode())
    kept = [path.name for path in sorted(folder.checkpoints.iterdir())]
    return f"{total.hexdigest()} {folder.info()['status']} {' '.join(kept)}"


def in_child(action: Callable[[], object]) -> int:
    """Run in a forked process; returns its wait status."""
    pid = os.fork()
    if pid == 0:
        try:
            action()
            os._exit(0)
        except BaseException as error:
            print(f"child: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
    return os.waitpid(pid, 0)[1]


def kill_at(name: str, number: int) -> Callable[[str], None]:
    """A hook that kills the process at the number-th passing of a point."""
    passed = 0

    def hook(point: str) -> None:
        nonlocal passed
        passed += point == name
        if passed == number and point == name:
            os.kill(os.getpid(), signal.SIGKILL)

    return hook


def points_of_a_clean_run(runs_dir: Path) -> tuple[dict[str, int], str]:
    """How often a clean run passes each point, and its digest."""
    counts: collections.Counter[str] = collections.Counter()
    atomic_io.hook = lambda name: counts.update([name])
    folder = run_or_resume(runs_dir)
    atomic_io.hook = None
    return dict(counts), digest(folder)


def main(stride: int = 1, average: str = "ema") -> None:
    if average == "swa":
        SETTINGS.update(SWA)
    torch.set_num_threads(1)
    atomic_io.CHUNK = 16 * 1024
    use_small_model()
    work = Path(tempfile.mkdtemp())
    try:
        counts, gold = points_of_a_clean_run(work / "first")
        again = points_of_a_clean_run(work / "second")[1]
        assert gold == again, "two uninterrupted runs differ: not a matter of crashes"
        trials = [(name, number) for name, count in sorted(counts.items()) for number in range(1, count + 1)]
        for trial, (name, number) in enumerate(trials):
            if trial % stride == 0:
                check(work / "trial", name, number, gold)
        print(f"{len(range(0, len(trials), stride))} of {len(trials)} kills, each resumed to the same bits")
    finally:
        shutil.rmtree(work)


def check(runs_dir: Path, name: str, number: int, gold: str) -> None:
    """Kill once at a point, resume, compare."""

    def die() -> None:
        atomic_io.hook = kill_at(name, number)
        run_or_resume(runs_dir)

    status = in_child(die)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, f"{name} {number}: not killed ({status})"
    assert in_child(lambda: run_or_resume(runs_dir)) == 0, f"{name} {number}: the resume failed"
    ended = digest(RunFolder(runs_dir / "gold"))
    assert ended == gold, f"killed at {name} {number}: ended otherwise\n  {ended}\n  {gold}"
    shutil.rmtree(runs_dir)


if __name__ == "__main__":
    main(*(int(word) if word.isdigit() else word for word in sys.argv[1:]))
