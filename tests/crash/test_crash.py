"""The crash suite in processes of its own, as forking wants a single thread: a few trials of each layer, or all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def crash(*words: str) -> list[str]:
    command = [sys.executable, "-m", "crash", *words]
    done = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    return done.stdout.splitlines()


def test_a_few_trials_of_five_layers_lose_nothing_and_end_with_the_same_bits() -> None:
    assert len(crash("fast")) == 5


@pytest.mark.slow
@pytest.mark.parametrize(
    "layer", ["points", "swa", "random", "power", "faults", "disk", "together", "ranks", "documents", "mutants"]
)
def test_every_trial_of_a_layer_loses_nothing_and_ends_with_the_same_bits(layer: str) -> None:
    (line,) = crash(layer)
    assert line
