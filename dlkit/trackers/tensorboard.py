"""TensorBoard: event files in the run folder, shown by `tensorboard --logdir runs`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dlkit.trackers import Line, Subject, Tracker, numbers

NEEDS, EXTRA = ("tensorboard",), "track"


def track(subject: Subject, history: Sequence[Line]) -> Tracker:
    """Replaces earlier event files by the history, so that no line is logged twice."""
    from torch.utils.tensorboard import SummaryWriter

    folder = subject.folder / "tensorboard"
    for old in folder.glob("events.out.tfevents.*"):
        old.unlink()
    tracker = _Events(SummaryWriter(str(folder), purge_step=0))
    for line in history:
        tracker.log(line)
    return tracker


class _Events:
    def __init__(self, writer: Any) -> None:
        self.writer = writer

    def log(self, line: Line) -> None:
        for name, value in numbers(line).items():
            self.writer.add_scalar(name, value, global_step=line["step"])
        self.writer.flush()  # otherwise a kill loses up to two minutes

    def close(self, status: str) -> None:
        self.writer.close()
