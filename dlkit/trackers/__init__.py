"""Experiment trackers, one service per module; metrics.jsonl remains the source of the metrics.

A module defines `track(subject, history) -> Tracker`: history is the lines of metrics.jsonl so far, empty for a new
run, up to the checkpoint for a resumed one. `track` logs each of them once, regardless of earlier logs; the tracker
then gets every new line, and finally the status: finished, stopped, diverged or failed. `NEEDS` are the required
packages of the extra `EXTRA`, imported inside `track`. Their own environment variables configure the destination.
Exceptions end the tracking, not the training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

Line = Mapping[str, Any]  # of metrics.jsonl

PROJECT = "dlkit"  # default project or experiment of services that have one


@dataclass(frozen=True)
class Subject:
    """The tracked run."""

    folder: Path
    name: str
    run_id: str
    recipe: Mapping[str, Any]


class Tracker(Protocol):
    """Receives the metrics and the status of a run."""

    def log(self, line: Line) -> None: ...

    def close(self, status: str) -> None: ...


def numbers(line: Line) -> dict[str, float]:
    """The finite numbers of a line, without its step."""
    return {
        key: float(value)
        for key, value in line.items()
        if key != "step" and isinstance(value, int | float) and math.isfinite(value)
    }
