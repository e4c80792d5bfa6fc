"""The learning rate range test, on curves made up and on a tiny network."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image
from tiny_training import TINY

import dlkit
from dlkit.config.resolve import resolve
from dlkit.errors import UsageError
from dlkit.training import lr_find
from dlkit.training.lr_find import Point
from dlkit_cli import main


def curve(losses: list[float]) -> list[Point]:
    return [Point(step, 10.0 ** (step - 11), loss, loss) for step, loss in enumerate(losses, start=1)]


def test_the_rate_of_the_steepest_descent_is_suggested() -> None:
    points = curve([2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.9, 1.2, 1.0, 0.9, 3.0, 9.0])
    minimum, steepest = lr_find.chosen(points)
    assert minimum is points[9] and steepest is points[7]  # 1.9 to 1.0 around it
    found = lr_find.RangeTest("mlp", "shapes", 16, tuple(points), minimum, steepest)
    assert found.suggestion == pytest.approx(points[7].lr)


def test_an_overfitted_network_and_a_fall_after_a_rise_do_not_lead_to_a_large_rate() -> None:
    """Losses that stay near 0 over four decades, and one that falls back steeply after it rose."""
    overfitted = curve([2.0] * 6 + [1.9, 1.0, 0.1, 0.02, 0.01, 0.01, 0.02, 0.015, 0.01, 1.5, 5.0])
    minimum, steepest = lr_find.chosen(overfitted)
    assert minimum is not None and steepest is not None and steepest.step in (8, 9)  # 1.9 to 0.02
    bumped = curve([2.0] * 6 + [1.9, 1.5, 1.2, 2.5, 4.0, 0.5, 3.0])
    minimum, steepest = lr_find.chosen(bumped)
    assert minimum is bumped[8] and steepest is not None and steepest.step <= 9


def test_a_curve_that_never_rises_gives_no_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    points = curve([2.0] * 6 + [1.9, 1.2, 1.0, 0.9, 0.9, 0.9])
    assert lr_find.first_rise(points) == len(points)
    words = ["lr-find", "mlp", "--dataset", "shapes", "--set", "data.options.train=80", "-b", "16", "--steps", "40"]
    assert main.run([*words, "--highest", "1e-3", "--json"]) == 2
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert document["suggestion"] is None and document["rose"] is False and document["steepest"] is not None
    assert "the loss never rose up to lr 0.001" in err.splitlines()[-1]


TRAINABLE: list[tuple[str, str, dict[str, object]]] = [
    ("mlp", "shapes", {"data.options.train": 300, "train.batch_size": 32, "optimizer.name": "sgd"}),
    ("tree_lstm", "brackets", {"data.options.train": 120, "train.batch_size": 20}),
    ("gru", "adding", {"data.options.train": 600, "data.options.steps": 10, "train.batch_size": 50}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("model", "dataset", "settings"), TRAINABLE)
def test_a_network_trains_at_the_suggested_rate(
    model: str, dataset: str, settings: dict[str, object], tmp_path: Path
) -> None:
    made = resolve(model, dataset, flags={"train.threads": 1, **settings}).recipe
    suggestion = lr_find.lr_find(made, steps=60).suggestion
    assert suggestion is not None
    schedule = {"schedule.name": "constant", "train.epochs": 4, "optimizer.lr": suggestion, "train.threads": 1}
    run = dlkit.train(model, dataset=dataset, settings={**settings, **schedule}, name="a", runs_dir=tmp_path)
    losses = [line["train/loss"] for line in run.metrics()]
    assert losses[-1] < 0.8 * losses[0] and losses[-1] == min(losses)


def test_a_network_that_overfits_the_sweep_trains_at_the_suggested_rate(tmp_path: Path) -> None:
    """The smallest loss is at two hundred times the rate that is suggested: all samples are in one batch."""
    settings = {**TINY, "model.options.hidden": "256", "data.options.train": 60, "train.batch_size": 54}
    found = lr_find.lr_find(resolve("mlp", "shapes", flags=settings).recipe, steps=60)
    assert found.minimum is not None and found.minimum.loss < 0.1
    assert found.suggestion is not None and found.suggestion < found.minimum.lr / 10
    schedule = {"schedule.name": "constant", "train.epochs": 20, "optimizer.lr": found.suggestion}
    run = dlkit.train("mlp", dataset="shapes", settings={**settings, **schedule}, name="a", runs_dir=tmp_path)
    losses = [line["train/loss"] for line in run.metrics()]
    assert losses[-1] < 0.5 * losses[0] and max(losses) == losses[0]


@pytest.mark.parametrize("losses", [[], [1.0] * 5, [1.0 + step for step in range(12)]])
def test_a_loss_that_never_falls_suggests_nothing(losses: list[float]) -> None:
    assert lr_find.chosen(curve(losses)) == (None, None)


def found(**settings: object) -> lr_find.RangeTest:
    chosen = {**TINY, "train.batch_size": 16, "optimizer.name": "sgd", "optimizer.momentum": 0.0, **settings}
    return lr_find.lr_find(resolve("mlp", "shapes", flags=chosen).recipe, steps=60)


def test_the_rate_rises_geometrically_until_the_loss_diverges() -> None:
    points = found().points
    ratios = [after.lr / before.lr for before, after in pairwise(points)]
    assert points[0].lr == lr_find.LOWEST and max(ratios) == pytest.approx(min(ratios), rel=1e-6)
    assert ratios[0] ** 59 == pytest.approx(lr_find.HIGHEST / lr_find.LOWEST, rel=1e-6)
    smoothed = [point.smoothed for point in points]
    assert len(points) <= 60 and all(math.isfinite(loss) for loss in smoothed)


def test_the_suggestion_trains_and_the_same_test_gives_the_same_answer() -> None:
    one = found()
    assert one.minimum is not None and one.suggestion is not None and 1e-4 < one.suggestion < 1
    assert one.minimum.smoothed < one.points[lr_find.FIRST].smoothed and one == found()


def test_a_range_that_is_none_is_refused() -> None:
    made = resolve("mlp", "shapes", flags=TINY).recipe
    for wrong in ({"lowest": 0.0}, {"lowest": 1.0, "highest": 0.1}, {"steps": 3}, {"highest": math.inf}):
        with pytest.raises(UsageError, match="the range must rise"):
            lr_find.lr_find(made, **wrong)  # type: ignore[arg-type]


def test_the_command_takes_what_train_takes_and_writes_only_what_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["lr-find", "mlp", "--dataset", "shapes", "--epochs", "3", "-b", "16", "--set", "data.options.train=80"]
    assert main.run([*words, "--steps", "40", "-o", "curve.png"]) == 0
    out, _ = capsys.readouterr()
    assert [line.split("\t")[0] for line in out.splitlines()] == ["what", "suggestion", "steepest", "minimum"]
    assert [path.name for path in tmp_path.iterdir()] == ["curve.png"]
    with Image.open("curve.png") as image:
        assert image.format == "PNG" and image.width > 400
    assert main.run([*words, "--steps", "40", "-o", "curve.jpg"]) == 2 and not Path("curve.jpg").exists()
    assert main.run([*words, "--steps", "40", "--json"]) == 0
    out, err = capsys.readouterr()
    assert ".png, .svg or .pdf" in err
    document = json.loads(out)
    assert document["schema"] == "dlkit.lr_find/1" and document["batch_size"] == 16
    assert set(document["points"][0]) == {"step", "lr", "loss", "smoothed"}


def test_a_range_in_which_nothing_trains_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["lr-find", "mlp", "--dataset", "shapes", "--set", "data.options.train=80", "--steps", "20"]
    assert main.run([*words, "--lowest", "1e3", "--highest", "1e6"]) == 8
    out, err = capsys.readouterr()
    assert out == "" and "the loss never fell" in err.splitlines()[-1]
