"""The run under test, and the digest of all that it leaves.

It trains on distinct images with convolution, batch norm, dropout, random crop, flip and erasing, mixup, SAM, gradient
noise, AdamW, a cosine schedule, label smoothing, EMA (or SWA), accumulation, early stopping armed, and a checkpoint
every 3 of its 24 steps.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from torch import Tensor, nn

from dlkit.config import schema
from dlkit.config.resolve import resolve
from dlkit.plots import learning_curves
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


def gold_recipe(**changes: object) -> schema.Recipe:
    return resolve("mlp", "shapes", flags={**SETTINGS, **changes}).recipe


def use_small_model() -> None:
    assembly.build = lambda name, spec, options: Small(len(spec.classes))  # type: ignore[assignment]


def draw_quickly() -> None:
    """Figures become fixed bytes, written as ever: drawing would take more time than the training."""
    from matplotlib.figure import Figure

    learning_curves.draw_curves = lambda drawing, panels, **options: None  # type: ignore[assignment]
    Figure.savefig = lambda self, file, **options: file.write(bytes(20_000))  # type: ignore[method-assign,assignment]


def quiet(text: str) -> None:
    """Says nothing."""


def run_or_resume(runs_dir: Path, say: Callable[[str], None] = quiet) -> RunFolder:
    """One call that goes on from wherever the last one was killed."""
    if (runs_dir / "gold").exists():
        folder = RunFolder(runs_dir / "gold")
        return train.resume_run(folder, changes={}, inexact=False, say=say, progress=False)
    return train.train_recipe(gold_recipe(), name="gold", runs_dir=runs_dir, argv=[], say=say, progress=False)


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
