"""--batch-size auto: the search against a loop by hand, and the number in the run's recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_training import TINY, same_bits

import dlkit
from dlkit.config.resolve import load
from dlkit.errors import UsageError
from dlkit.training import batch_size, memory
from dlkit.training.train import resume_run
from dlkit_cli import main


@pytest.mark.parametrize("limit", [8, 9, 17, 100, 127, 128, 129, 1000, 4095, 4096, 10**6])
def test_the_search_ends_within_an_eighth_of_the_largest_that_fits(limit: int) -> None:
    tried: list[int] = []

    def fits(size: int) -> bool:
        tried.append(size)
        return size <= limit

    found = batch_size.largest(fits, 8, 4096)
    assert found <= min(limit, 4096) < found + max(found // 8, 1) + 1 and len(tried) <= 14


@dataclass
class Steps:
    """Steps that take what a function of their size says."""

    seconds: Any
    tried: list[int]
    run: Any = None

    def __post_init__(self) -> None:
        self.run = SimpleNamespace(device=torch.device("cpu"), counted="images")

    def step(self, size: int) -> float:
        self.tried.append(size)
        return float(self.seconds(size))


def test_on_a_cpu_it_stops_where_twice_the_batch_is_no_quicker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda device: None)
    steps = Steps(lambda size: 1.0 if size <= 64 else size / 64, [])  # free up to 64, then linear
    assert batch_size.on_cpu(steps, 8, 4096)[0] == 64 and steps.tried[-1] == 128  # type: ignore[arg-type]
    assert batch_size.on_cpu(Steps(lambda size: 1.0, []), 8, 100)[0] == 64  # type: ignore[arg-type]


def test_on_a_cpu_it_never_asks_for_memory_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Steps(lambda size: 1.0, [])
    monkeypatch.setattr(memory, "available", lambda device: 1000)
    monkeypatch.setattr(memory, "taken", lambda device: 500)
    monkeypatch.setattr(memory, "peak", lambda device: 500 + 10 * steps.tried[-1])  # 10 bytes an image
    found, reason = batch_size.on_cpu(steps, 8, 4096)  # type: ignore[arg-type]
    assert found == 64 and max(steps.tried) == 64 and "would take" in reason  # 128 would be 1280 of 1000


def test_the_number_found_is_in_the_recipe_and_a_resume_and_a_repeat_use_it(tmp_path: Path) -> None:
    settings = {**TINY, "data.options.train": 640, "train.epochs": 2}
    said: list[str] = []
    run = dlkit.train(
        "mlp", dataset="shapes", batch_size="auto", settings=settings, name="a", runs_dir=tmp_path, say=said.append
    )
    size = load(run.path / "recipe.yaml").train.batch_size
    assert size in (8, 16, 32) and any(line.startswith(f"batch size: {size} (") for line in said)  # 576 / 16 = 36
    assert same_bits(run, dlkit.train(recipe=run.path / "recipe.yaml", name="b", runs_dir=tmp_path))
    assert resume_run(run, changes={}, inexact=False, say=str, progress=False).info()["status"] == "finished"


def test_a_tree_is_a_sample_too(tmp_path: Path) -> None:
    settings = {"data.options.train": 160, "data.options.test": 8, "train.epochs": 1, "train.threads": 1}
    run = dlkit.train(
        "tree_lstm", dataset="brackets", batch_size="auto", settings=settings, name="a", runs_dir=tmp_path
    )
    assert 1 <= run.recipe().train.batch_size <= 144 // 16


def test_auto_is_of_one_process_and_of_no_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dlkit.training.distributed import World

    several = SimpleNamespace(world=World(0, 2))
    with pytest.raises(UsageError, match="one process"):
        batch_size.with_largest_batch(several, str)  # type: ignore[arg-type]
    dlkit.train("mlp", dataset="shapes", settings={**TINY, "train.epochs": 1}, name="a", runs_dir=tmp_path)
    assert main.run(["train", "--resume", "a", "--runs-dir", str(tmp_path), "--batch-size", "auto"]) == 2
    assert "cannot change when a run is resumed" in capsys.readouterr().err
