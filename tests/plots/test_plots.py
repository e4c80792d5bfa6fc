"""The pictures: that they hold what they should, where they should."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import run_folders
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dlkit.config.resolve import resolve
from dlkit.errors import StorageError
from dlkit.plots import axes, curves, drawing, learning_curves, matrix
from dlkit.plots.terminal import BRAILLE, chart
from dlkit.runs.run_folder import RunFolder
from dlkit_cli import formats
from dlkit_cli.main import run as dlkit_command


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG" and image.mode == "RGB"
        return np.asarray(image).astype(int)


def share_of(picture: np.ndarray, colour: drawing.Colour) -> float:
    """The fraction of pixels of exactly this colour."""
    return float((picture == np.array(colour)).all(axis=2).mean())


def test_a_perfect_matrix_is_blue_and_a_hopeless_one_orange(tmp_path: Path) -> None:
    counts = {"perfect": np.eye(4, dtype=np.int64) * 7, "hopeless": np.roll(np.eye(4, dtype=np.int64) * 7, 1, axis=1)}
    for name, confusion in counts.items():
        matrix.confusion_matrix(confusion, list("abcd"), name, tmp_path / f"{name}.png")
    perfect, hopeless = pixels(tmp_path / "perfect.png"), pixels(tmp_path / "hopeless.png")
    assert share_of(perfect, drawing.BLUE) > 5 * share_of(perfect, drawing.ORANGE)
    assert share_of(hopeless, drawing.ORANGE) > 5 * share_of(hopeless, drawing.BLUE)


@pytest.mark.parametrize("classes", [1, 2, 20, 21, 150, 1200])
def test_a_matrix_of_any_size_is_drawn_at_a_legible_size(tmp_path: Path, classes: int) -> None:
    names = [f"class\n{index} with quite a long name" for index in range(classes)]
    matrix.confusion_matrix(np.eye(classes, dtype=np.int64), names, "title", tmp_path / "plots" / "matrix.png")
    height, width, _ = pixels(tmp_path / "plots" / "matrix.png").shape
    assert 200 < height < 2000 and 200 < width < 2000


def test_an_empty_row_is_left_white(tmp_path: Path) -> None:
    matrix.confusion_matrix(np.zeros((3, 3), dtype=np.int64), list("abc"), "nothing", tmp_path / "matrix.png")
    assert share_of(pixels(tmp_path / "matrix.png"), drawing.PAPER) > 0.8


def lines(epochs: int) -> list[dict[str, float | None]]:
    return [
        {"step": 10 * e, "epoch": e, "train/loss": 2 / e, "val/loss": 3 / e, "val/top1": 1 - 0.5 / e, "lr": 0.1}
        for e in range(1, epochs + 1)
    ]


@pytest.mark.parametrize("epochs", [1, 2, 60])
def test_a_learning_curve_shows_train_and_validation(tmp_path: Path, epochs: int) -> None:
    learning_curves.learning_curve(lines(epochs), tmp_path / "curve.png")
    picture = pixels(tmp_path / "curve.png")
    assert share_of(picture, drawing.BLUE) > 0 and share_of(picture, drawing.ORANGE) > 0
    assert share_of(picture, drawing.GREEN) == 0  # no top-5 was recorded


@pytest.mark.parametrize(
    "metrics", [[], [{"step": 3, "epoch": 1, "train/loss": None, "val/loss": math.nan, "val/top1": math.inf}]]
)
def test_a_run_without_figures_still_gets_its_picture(tmp_path: Path, metrics: list[dict[str, float]]) -> None:
    learning_curves.learning_curve(metrics, tmp_path / "curve.png")
    picture = pixels(tmp_path / "curve.png")
    assert share_of(picture, drawing.BLUE) == 0 and picture.size


def test_the_same_figures_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        learning_curves.learning_curve(lines(3), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_an_axis_covers_its_values_with_few_ticks(low: float, span: float) -> None:
    axis = axes.linear_axis(low, low + span)
    assert axis.low <= low + 1e-6 * span and axis.high >= low + span - 1e-6 * span
    assert 2 <= len(axis.ticks) <= 14 and list(axis.ticks) == sorted(set(axis.ticks))


@given(st.floats(1e-9, 1e3), st.floats(20, 1e9))
def test_a_log_axis_covers_its_values(low: float, ratio: float) -> None:
    axis = axes.log_axis(low, low * ratio)
    assert -0.01 <= axis.place(low) <= axis.place(low * ratio) <= 1.01
    assert axis.place(axis.ticks[0]) == 0 and axis.place(axis.ticks[-1]) == pytest.approx(1)


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "plots").write_text("in the way")
    with pytest.raises(StorageError, match="plots"):
        learning_curves.learning_curve(lines(2), tmp_path / "plots" / "curve.png")


# -- several runs, and the terminal


def made(runs_dir: Path, name: str, epochs: int, **more: Any) -> RunFolder:
    """A run as train leaves it after so many epochs of 10 steps, without the training."""
    recipe = resolve("mlp", "shapes", flags={"train.batch_size": 10}).recipe
    info = {"model": "mlp", "dataset": "shapes", "data": {"train": {"samples": 100}}, "spec": {}}
    run = run_folders.create(runs_dir, name, recipe, info)
    for line in lines(epochs):
        run.append_metrics({**line, "weights_sha256": "ab", **more})
    return run


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    for name, epochs in (("short", 2), ("long", 8)):
        made(tmp_path / "runs", name, epochs)
    yield tmp_path / "runs"


def test_each_run_has_a_colour_in_every_panel_and_one_legend(runs: Path) -> None:
    flat = made(runs, "flat", 2, **{"val/top1": 0.7, "val/loss": 1.0})
    recorded = curves.recorded([flat, RunFolder(runs / "long")])
    panels = curves.panels(recorded)
    assert [panel.title for panel in panels] == ["val/loss", "val/top1"]
    assert all([curve.label for curve in panel.curves] == ["flat", "long"] for panel in panels)
    learning_curves.curves(panels, runs / "both.png", one_legend=True)
    picture = pixels(runs / "both.png")
    blue, orange = ((picture == np.array(colour)).all(axis=2) for colour in (drawing.BLUE, drawing.ORANGE))
    half = picture.shape[1] // 2
    for side in (slice(0, half), slice(half, None)):  # long is orange, and reaches further to the right
        assert np.flatnonzero(orange[:400, side].any(axis=0)).max() > np.flatnonzero(blue[:400, side].any(axis=0)).max()
    assert blue[400:, :half].any() and not blue[400:, half:].any()


def test_an_epoch_that_has_not_ended_is_not_taken_for_a_whole_one(tmp_path: Path) -> None:
    run = made(tmp_path, "begun", 0)
    run.append_metrics({"step": 3, "epoch": 1, "train/loss": 2.0})
    (recorded,) = curves.recorded([run])
    assert recorded.points("train/loss") == [(0.3, 2.0)]


def test_rows_are_what_was_recorded(runs: Path) -> None:
    recorded = curves.recorded([RunFolder(runs / name) for name in ("short", "long")])
    rows = list(curves.rows(recorded, ["val/top1"]))
    assert [(row["run"], row["step"], row["epoch"], row["value"]) for row in rows] == [
        (name, 10 * e, e, 1 - 0.5 / e) for name, epochs in (("short", 2), ("long", 8)) for e in range(1, epochs + 1)
    ]


def test_a_chart_is_as_wide_as_asked_and_its_curve_goes_where_the_values_go(runs: Path) -> None:
    recorded = curves.recorded([RunFolder(runs / "long")])
    for unicode in (True, False):
        (panel,) = curves.panels(recorded, ["val/top1"])
        rows = ["".join(text for text, _ in row) for row in chart(panel, 60, 12, unicode=unicode)]
        drawn = rows[1:13]
        assert rows[0] == "val/top1" and {len(row) for row in drawn} == {60} and len(rows) == 16
        inside = [[place for place, letter in enumerate(row[7:-2]) if letter.strip()] for row in drawn]
        tops = [min(row for row in range(12) if column in inside[row]) for column in range(6, 50)]
        assert tops == sorted(tops, reverse=True) and tops[0] - tops[-1] >= 8  # it rises, from foot to head
        assert drawn[tops[-1]].endswith(" a") and rows[-1] == "a long  93.75 % at epoch 8"
        assert any(ord(letter) > BRAILLE for letter in "".join(drawn)) == unicode


@pytest.mark.parametrize("count", [1, 3, 60])
@pytest.mark.parametrize("size", [(10, 1), (200, 40)])
def test_a_chart_takes_few_points_many_runs_and_any_terminal(count: int, size: tuple[int, int], tmp_path: Path) -> None:
    points = [(1.0, 50.0)]
    panel = curves.Panel("t", [curves.Curve(str(n), drawing.BLUE, points) for n in range(count)], percent=True)
    rows = chart(panel, *size)
    assert len(rows) == 1 + max(size[1], 4) + 2 + count
    assert chart(curves.Panel("t", []), *size)[1] == [("not recorded", None)]


def test_the_command_writes_numbers_into_a_pipe_and_a_picture_where_it_is_told(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dlkit_command(["plot", "short", "long"]) == 0
    out, err = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(out), delimiter="\t"))
    assert list(rows[0]) == ["step", "epoch", "run", "metric", "value"] and not err
    assert {row["metric"] for row in rows} == {"val/loss", "val/top1"} and len(rows) == 2 * (2 + 8)
    assert dlkit_command(["plot", "short", "--json"]) == 0
    assert {row["schema"] for row in json.loads(capsys.readouterr().out)} == {"dlkit.plot/1"}
    assert dlkit_command(["plot", "short", "long", "-o", "new/both.png"]) == 0
    assert capsys.readouterr().out == "new/both.png\n" and pixels(Path("new/both.png")).size


def test_the_command_draws_on_a_terminal(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "is_terminal", lambda stream: stream is sys.stdout)
    monkeypatch.setenv("COLUMNS", "64")
    for no_color, coloured in (("", True), ("1", False)):
        monkeypatch.setenv("NO_COLOR", no_color)
        monkeypatch.setenv("TERM", "xterm-256color")
        assert dlkit_command(["plot"]) == 0
        out, err = capsys.readouterr()
        assert err == "run: runs/long\n" and "Loss" in out and "Accuracy" in out and "a train" in out
        assert ("\x1b[" in out) == coloured
    assert max(map(len, out.splitlines())) <= 64


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("plot short -m val/top2", 2, "no metric 'val/top2' is recorded in this run. Did you mean 'val/top1'?"),
        ("plot short long -m trainloss", 2, "in any of these runs. Did you mean 'train/loss'?"),
        ("plot shrot", 2, "Did you mean 'short'?"),
        ("plot short -o curve.jpg", 2, "Name it curve.png."),
        ("plot short -o runs/short/run.json/c.png", 7, "run.json"),
        ("plot empty", 4, "nothing is recorded yet in"),
    ],
)
def test_what_cannot_be_plotted_is_told_in_one_line(
    words: str, code: int, said: str, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made(runs, "empty", 0)
    assert dlkit_command(words.split()) == code
    out, err = capsys.readouterr()
    assert not out and said in err and len(err.splitlines()) == 1


def test_a_metric_that_one_of_several_lacks_is_said(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(runs, "other", 3, **{"val/top5": 0.9})
    assert dlkit_command(["plot", "other", "short", "-m", "val/top5"]) == 0
    out, err = capsys.readouterr()
    assert err == "short has not recorded val/top5\n" and out.count("other") == 3
    assert dlkit_command(["plot", "other", "runs/other", "-m", "val/top5"]) == 0
