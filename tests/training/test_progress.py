"""The bar of a training, as a terminal shows it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dlkit.training.loop import Window
from dlkit.training.progress import TrainingBar
from dlkit_cli import console

DLKIT = str(Path(sys.executable).with_name("dlkit"))
SHOWN = r"epoch [12]/2 \d+% \|.*\| \d+ %  (\d\d:\d\d|\?) left, loss \d+\.\d+, \d+\.\d%"


def run_at(step: int, window: Window) -> Any:
    """What the bar asks a run of three epochs of four steps for."""
    return SimpleNamespace(
        step=step, steps_per_epoch=4, settings=SimpleNamespace(epochs=3), window=window, classes=("a", "b")
    )


@pytest.mark.parametrize(
    ("step", "epoch"), [(0, "epoch 1/3 0%"), (3, "epoch 1/3 75%"), (4, "epoch 1/3 100%"), (5, "epoch 2/3 25%"),
    (12, "epoch 3/3 100%")],
)  # fmt: skip
def test_the_bar_names_the_epoch_and_its_share(step: int, epoch: str, capsys: pytest.CaptureFixture[str]) -> None:
    with TrainingBar(run_at(step, Window()), shown=True) as bar:
        bar.advance(0)
        bar._bar.refresh()
    assert f"{epoch} |" in capsys.readouterr().err


def test_loss_and_accuracy_are_means_of_the_window_and_stay_when_it_ends(capsys: pytest.CaptureFixture[str]) -> None:
    run = run_at(2, Window(loss=3.0, correct=7, samples=10))
    with TrainingBar(run, shown=True) as bar:
        bar.advance(0)
        run.window = Window()
        bar.advance(0)
        bar._bar.refresh()
    assert capsys.readouterr().err.rpartition("left")[2].strip("\r\x1b[A ").startswith(", loss 0.3000, 70.0%")


def test_nothing_is_drawn_where_no_bar_is_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    with TrainingBar(run_at(2, Window(1.0, 1, 1)), shown=False) as bar:
        bar.advance(1)
    assert capsys.readouterr().err == ""


def test_the_best_epoch_is_green_on_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    line = "epoch 1/2  train loss 0.5  best"
    for terminal, no_color, expected in ((True, "", f"\x1b[32m{line}\x1b[0m"), (True, "1", line), (False, "", line)):
        monkeypatch.setattr(console.formats, "is_terminal", lambda stream, answer=terminal: answer)
        monkeypatch.setenv("NO_COLOR", no_color)
        console.say(line)
        assert capsys.readouterr().err == expected + "\n"
    console.say("epoch 2/2  train loss 0.6")
    assert capsys.readouterr().err == "epoch 2/2  train loss 0.6\n"


@pytest.mark.slow
@pytest.mark.parametrize("columns", [60, 80])
def test_a_training_fits_its_terminal(columns: int, tmp_path: Path) -> None:
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    line = [DLKIT, "train", "mlp", "shapes", "--epochs", "2", "--name", "a", "--set", "data.options.train=640"]
    environment = {**os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8", "NO_COLOR": ""}
    process = subprocess.Popen(line, stdin=follower, stdout=follower, stderr=follower, cwd=tmp_path, env=environment)
    os.close(follower)
    text = b""
    try:
        while chunk := os.read(leader, 1 << 16):
            text += chunk
    except OSError:  # what Linux raises when the program has closed its end
        pass
    os.close(leader)
    assert process.wait() == 0
    bars = [bar.strip() for bar in re.split(r"[\r\n]", text.decode()) if " left" in bar]
    assert any(re.fullmatch(SHOWN, bar) for bar in bars), bars
    assert all(len(bar) <= columns for bar in bars)
    assert re.search(r"\x1b\[32mepoch 1/2  train loss .*  best\x1b\[0m", text.decode())
