"""The learning rate range test, on curves made up and on a tiny network."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image
from test_train import TINY

from dlkit import recipe
from dlkit.errors import UsageError
from dlkit.verbs import lr_find
from dlkit.verbs.lr_find import Point
from dlkit_cli import main


def curve(losses: list[float]) -> list[Point]:
    return [Point(step, 10.0 ** (step - 11), loss, loss) for step, loss in enumerate(losses, start=1)]


def test_a_tenth_of_the_rate_at_the_smallest_loss_is_suggested() -> None:
    points = curve([2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.9, 1.2, 1.0, 0.9, 3.0, 9.0])
    minimum, steepest = lr_find.chosen(points)
    assert minimum is points[9] and steepest is points[7]  # 1.9 to 1.0 around it
    found = lr_find.RangeTest("mlp", "shapes", 16, tuple(points), minimum, steepest)
    assert found.suggestion == pytest.approx(points[9].lr / 10)


@pytest.mark.parametrize("losses", [[], [1.0] * 5, [1.0 + step for step in range(12)]])
def test_a_loss_that_never_falls_suggests_nothing(losses: list[float]) -> None:
    assert lr_find.chosen(curve(losses)) == (None, None)


def found(**settings: object) -> lr_find.RangeTest:
    chosen = {**TINY, "train.batch_size": 16, "optimizer.name": "sgd", "optimizer.momentum": 0.0, **settings}
    return lr_find.lr_find(recipe.resolve("mlp", "shapes", flags=chosen).recipe, steps=60)


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
    made = recipe.resolve("mlp", "shapes", flags=TINY).recipe
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
    assert main.run([*words, "--steps", "40", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "dlkit.lr_find/1" and document["batch_size"] == 16
    assert set(document["points"][0]) == {"step", "lr", "loss", "smoothed"}


def test_a_range_in_which_nothing_trains_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["lr-find", "mlp", "--dataset", "shapes", "--set", "data.options.train=80", "--steps", "20"]
    assert main.run([*words, "--lowest", "1e3", "--highest", "1e6"]) == 8
    out, err = capsys.readouterr()
    assert out == "" and "the loss never fell" in err.splitlines()[-1]
