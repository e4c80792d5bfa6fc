"""Where else a run's figures are shown, a service a file; metrics.jsonl stays their source.

Each file defines `track(subject, history) -> Tracker`: history are the lines of metrics.jsonl so far, none of a new
run, those up to the checkpoint of one that goes on. After it the tracker shows each of them once, whatever it showed
before; then it is told every new line, and at last how the run ended: finished, stopped, diverged or failed. `NEEDS`
are the packages of the extra `EXTRA` that it cannot do without; they are imported inside `track`. Where they send what
they are given, their own environment variables say. Whatever they raise ends the tracking, not the training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

Line = Mapping[str, Any]  # of metrics.jsonl

PROJECT = "dlkit"  # what runs are filed under, where the service has such a thing and the user names none


@dataclass(frozen=True)
class Subject:
    """The run that is tracked."""

    folder: Path
    name: str
    run_id: str
    recipe: Mapping[str, Any]


class Tracker(Protocol):
    """What is told how a run goes."""

    def log(self, line: Line) -> None: ...

    def close(self, status: str) -> None: ...


def numbers(line: Line) -> dict[str, float]:
    """The finite numbers of a line, without its step."""
    return {
        key: float(value)
        for key, value in line.items()
        if key != "step" and isinstance(value, int | float) and math.isfinite(value)
    }
