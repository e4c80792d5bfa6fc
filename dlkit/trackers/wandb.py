"""Weights & Biases: a run at wandb.ai, or in wandb/ of the run folder until `wandb sync`, depending on $WANDB_MODE."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dlkit import atomic_io
from dlkit.privacy import offline, use_cache_folders
from dlkit.trackers import PROJECT, Line, Subject, Tracker, numbers

NEEDS, EXTRA = ("wandb",), "wandb"

SENT = "sent.json"  # the last logged step, not available offline otherwise


def track(subject: Subject, history: Sequence[Line]) -> Tracker:
    """Identifies the run by its run_id; skips logged steps."""
    use_cache_folders()
    import wandb

    folder = subject.folder / "wandb"
    folder.mkdir(exist_ok=True)
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT") or PROJECT, name=subject.name, id=subject.run_id, resume="allow",
        dir=str(subject.folder), config=dict(subject.recipe), mode="offline" if offline() else None,
        settings=wandb.Settings(console="off", silent=True),
    )  # fmt: skip
    tracker = _Run(run, folder / SENT)
    for line in history:
        tracker.log(line)
    return tracker


class _Run:
    def __init__(self, run: Any, sent: Path) -> None:
        self.run, self.sent = run, sent
        self.last = json.loads(sent.read_bytes())["step"] if sent.is_file() else -1

    def log(self, line: Line) -> None:
        if line["step"] > self.last:
            self.run.log(numbers(line), step=line["step"])
            self.last = line["step"]
            atomic_io.write_json(self.sent, {"step": self.last})

    def close(self, status: str) -> None:
        self.run.finish(exit_code=0 if status == "finished" else 1)
