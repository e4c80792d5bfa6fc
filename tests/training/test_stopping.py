"""Signals and kills on the real command line: by observed step, never by the clock."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from tiny_training import same_bits

from dlkit.datasets import shapes
from dlkit.runs.run_folder import RunFolder
from dlkit_cli.main import run as dlkit_command

SETTINGS = [
    "model.options.dropout=0.2",
    "train.ema=0.9",
    "train.threads=1",
    "train.log_every=1",
    "train.checkpoint_every=3",
    "train.batch_size=8",
    "train.epochs=6",
    "data.augment.crop_padding=2",
    "data.augment.horizontal_flip=0.5",
    "data.augment.rotation=10",
]
STEPS = 72  # of the whole run: 96 training images in batches of 8, six epochs


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """96 training and 24 validation images as files, so that loader workers have work."""
    root = tmp_path_factory.mktemp("pictures")
    found = shapes.load(None, train=96, test=24)
    for split, samples in (("train", found.train), ("val", found.test)):
        for index, (image, target) in enumerate(zip(samples.images, samples.targets, strict=True)):  # type: ignore[union-attr]
            folder = root / split / found.spec.classes[target]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{index}.png")
    return root


def command(pictures: Path, runs_dir: Path, workers: int, *more: str) -> list[str]:
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    return [
        "train", "simple_cnn", "--dataset", "folder", "--data-dir", str(pictures),
        "--test-split", "0", "--set", "data.options.group=''",
        "--set", "data.size=28", "--workers", str(workers), "--name", "a", "--runs-dir", str(runs_dir),
        *settings, *more,
    ]  # fmt: skip


def resume(runs_dir: Path) -> int:
    return dlkit_command(["train", "--resume", "a", "--runs-dir", str(runs_dir)])


def start_until(step: int, words: list[str], runs_dir: Path) -> subprocess.Popen[str]:
    """The training process, once its metrics show `step` done."""
    words = [sys.executable, "-m", "dlkit_cli", *words]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    metrics = runs_dir / "a" / "metrics.jsonl"
    while not metrics.exists() or metrics.read_bytes().count(b"\n") < step:
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)
    return process


def steps_done(runs_dir: Path) -> int:
    return len(RunFolder(runs_dir / "a").metrics())


@pytest.fixture(scope="module")
def gold(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The run that nobody stopped."""
    runs_dir = tmp_path_factory.mktemp("gold")
    assert dlkit_command(command(pictures, runs_dir, 0)) == 0
    run = RunFolder(runs_dir / "a")
    assert run.metrics()[-1]["step"] == STEPS
    return run


def check_like_gold(runs_dir: Path, gold: RunFolder) -> None:
    run = RunFolder(runs_dir / "a")
    assert same_bits(run, gold)
    timeless = [[{**line, "images_per_s": 0} for line in one.metrics()] for one in (run, gold)]
    assert timeless[0] == timeless[1]


def kill_and_resume(pictures: Path, runs_dir: Path, gold: RunFolder, step: int, workers: int) -> None:
    process = start_until(step, command(pictures, runs_dir, workers), runs_dir)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL and steps_done(runs_dir) < STEPS, "it ended before the kill"
    assert resume(runs_dir) == 0
    check_like_gold(runs_dir, gold)


def stop_and_resume(
    pictures: Path, runs_dir: Path, gold: RunFolder, number: signal.Signals, group: bool, workers: int
) -> None:
    process = start_until(10, command(pictures, runs_dir, workers), runs_dir)
    (os.killpg if group else os.kill)(process.pid, number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert out == "" and "Traceback" not in err and "--resume" in err.splitlines()[-1]
    assert 10 <= steps_done(runs_dir) < STEPS
    assert RunFolder(runs_dir / "a").info()["status"] == "stopped"
    assert resume(runs_dir) == 0
    check_like_gold(runs_dir, gold)


@pytest.mark.slow
def test_sigterm_to_the_group_saves_and_the_resume_ends_like_gold(
    pictures: Path, tmp_path: Path, gold: RunFolder
) -> None:
    stop_and_resume(pictures, tmp_path, gold, signal.SIGTERM, group=True, workers=2)


def test_sigkill_loses_no_bit(pictures: Path, tmp_path: Path, gold: RunFolder) -> None:
    kill_and_resume(pictures, tmp_path, gold, step=25, workers=0)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("group", [False, True])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_every_signal_saves_whoever_hears_it(
    pictures: Path, tmp_path: Path, gold: RunFolder, number: signal.Signals, group: bool, workers: int
) -> None:
    stop_and_resume(pictures, tmp_path, gold, number, group, workers)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("step", [1, 2, 3, 5, 9, 12, 13, 24, 33, 47])  # 3, 9, 12, 24, 33: a checkpoint follows
def test_twenty_kills_lose_no_bit(pictures: Path, tmp_path: Path, gold: RunFolder, step: int, workers: int) -> None:
    kill_and_resume(pictures, tmp_path, gold, step, workers)


@pytest.mark.slow
def test_a_worker_that_is_killed_saves_the_run_and_says_so(pictures: Path, tmp_path: Path) -> None:
    small_batches = command(pictures, tmp_path, 2, "--set", "train.batch_size=1", "--epochs", "2")
    process = start_until(5, small_batches, tmp_path)  # of 96 in the epoch: the workers are not done
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    os.kill(int(children[0]), signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 10 and "Traceback" not in err, err
    assert "--workers 0" in err.splitlines()[-1] and len(err.splitlines()[-1]) < 300
    done = steps_done(tmp_path)
    assert 5 <= done < 192 and resume(tmp_path) == 0 and steps_done(tmp_path) == 192


def test_damaged_checkpoints_are_reported_and_the_one_before_is_used(
    tmp_path: Path, gold: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(gold.path, tmp_path / "a")
    newest = max((tmp_path / "a" / "checkpoints").glob("*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-7])
    assert resume(tmp_path) == 0 and newest.name in capsys.readouterr().err
    check_like_gold(tmp_path, gold)
