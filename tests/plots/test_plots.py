"""Figures: the axes hold the values, the files have their format, in the terminal as on paper."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import subprocess
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
from dlkit.plots import axes, bars, calibration, confusion_matrix, curves, learning_curves, style
from dlkit.plots.terminal import BRAILLE, chart
from dlkit.runs.run_folder import RunFolder
from dlkit_cli import formats
from dlkit_cli.main import run as dlkit_command

pytestmark = pytest.mark.usefixtures("rendered_figures")


def png_size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return image.size


def curves_of(axes: Any) -> list[list[tuple[float, float]]]:
    """The points of each line of the axes."""
    return [list(zip(*(values.tolist() for values in line.get_data()), strict=True)) for line in axes.get_lines()]


@pytest.mark.parametrize("classes", [1, 2, 20, 21, 150, 1200])
def test_a_confusion_matrix_shows_shares_counts_and_names(tmp_path: Path, classes: int) -> None:
    names = [f"class\n{index} with quite a long name" for index in range(classes)]
    counts = np.eye(classes, dtype=np.int64) * 7
    counts[0, -1] += 3
    with style.styled(7, 7) as figure:
        confusion_matrix.draw_confusion_matrix(figure, counts, names, "title")
        axes = figure.axes[0]
        correct, wrong = (image.get_array() for image in axes.get_images())
        texts = {text.get_text() for text in axes.texts}
        labels = [label.get_text() for label in axes.get_yticklabels()]
    last = min(classes, confusion_matrix.MAX_CELLS) - 1
    assert correct[last, last] == 1
    if classes > 1:
        assert wrong[0, last] == 0.3 and correct.mask[0, last] and wrong.mask[0, 0]
    assert texts == ({"7", "3"} if 1 < classes <= 20 else {"10"} if classes == 1 else set())
    assert labels[0] == "class?0 with…a long name" and len(labels) <= confusion_matrix.MAX_NAMES


def test_an_empty_row_has_no_share(tmp_path: Path) -> None:
    confusion_matrix.write_confusion_matrix(np.zeros((3, 3), dtype=np.int64), list("abc"), "t", tmp_path / "m.png")
    assert min(png_size(tmp_path / "m.png")) > 400


def test_calibration_bars_are_the_accuracies_of_the_bins_and_gaps_reach_the_confidence() -> None:
    sums = np.array([[0, 4.0, 10.0], [0, 2.0, 9.0], [0, 3.0, 8.0]])
    with style.styled() as figure:
        calibration.draw_calibration(figure, sums, "title")
        bars, gaps = figure.axes[0].containers
    assert [bar.get_height() for bar in bars] == [0.75, 0.8]
    assert [gap.get_y() + gap.get_height() for gap in gaps] == pytest.approx([0.5, 0.9])
    assert [bar.get_height() for bar in figure.axes[1].containers[0]] == [4, 10]


def lines(epochs: int) -> list[dict[str, float | None]]:
    return [
        {"step": 10 * e, "epoch": e, "train/loss": 2 / e, "val/loss": 3 / e, "val/top1": 1 - 0.5 / e, "lr": 0.1}
        for e in range(1, epochs + 1)
    ]


@pytest.mark.parametrize("epochs", [1, 2, 60])
def test_a_learning_curve_shows_train_and_validation(epochs: int) -> None:
    with style.styled() as figure:
        learning_curves.draw_curves(figure, curves.learning_panels(curves.history_from_lines(lines(epochs))))
        loss, accuracy = figure.axes
    assert curves_of(loss) == [[(e, factor / e) for e in range(1, epochs + 1)] for factor in (2, 3)]
    assert curves_of(accuracy) == [[(e, 100 * (1 - 0.5 / e)) for e in range(1, epochs + 1)]]  # no top-5 was logged
    assert loss.get_yscale() == ("log" if epochs == 60 else "linear")


def test_a_top5_that_is_always_right_is_left_out() -> None:
    for top5, labels in ((1.0, ["validation top-1"]), (0.9, ["validation top-1", "validation top-5"])):
        metrics = [{**line, "val/top5": top5} for line in lines(3)]
        _, accuracy = curves.learning_panels(curves.history_from_lines(metrics))
        assert [curve.label for curve in accuracy.curves] == labels


@pytest.mark.parametrize(
    "metrics", [[], [{"step": 3, "epoch": 1, "train/loss": None, "val/loss": math.nan, "val/top1": math.inf}]]
)
def test_a_run_without_metrics_still_has_a_figure(tmp_path: Path, metrics: list[dict[str, float]]) -> None:
    learning_curves.learning_curve(metrics, tmp_path / "curve.png")
    assert min(png_size(tmp_path / "curve.png")) > 400


def test_the_same_input_gives_the_same_bytes_in_each_format(tmp_path: Path) -> None:
    for ending, start in ((".png", b"\x89PNG"), (".svg", b"<?xml"), (".PDF", b"%PDF")):
        for name in "ab":
            bars.write_effects([bars.Bar("part", 1.0, 0.0, 2.0)], "title", "effect", tmp_path / (name + ending))
        written = (tmp_path / f"a{ending}").read_bytes()
        assert written.startswith(start) and written == (tmp_path / f"b{ending}").read_bytes()


def test_no_two_curves_look_alike_even_without_color() -> None:
    styles = [style.line_style(index, 5) for index in range(28)]
    assert len({(style_of["linestyle"], style_of["marker"], style_of["color"]) for style_of in styles}) == 28
    assert len({(style_of["linestyle"], style_of["marker"]) for style_of in styles[:8]}) == 8


def test_names_are_drawn_as_they_are_and_shortened_in_the_middle() -> None:
    names = ["_hidden", "$\\broken$", "汉字", "resnet20-" + "x" * 60 + "-seed1"]
    panel = curves.Panel("t", [curves.Curve(name, index, [(1, 1)]) for index, name in enumerate(names)])
    with style.styled() as figure:
        learning_curves.draw_curves(figure, [panel], one_legend=True)
        figure.canvas.draw()  # would raise: tests treat warnings as errors, and mathtext is not parsed
        texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts[:3] == names[:3] and texts[3].startswith("resnet20-") and texts[3].endswith("-seed1")
    assert len(texts[3]) == style.MAX_LABEL and "…" in texts[3]


def test_matplotlib_is_silent_has_its_cache_in_dlkits_and_keeps_its_settings(tmp_path: Path) -> None:
    code = """if True:
        import os, sys
        from pathlib import Path
        from dlkit.plots import bars, calibration, confusion_matrix, learning_curves, lr_range, parallel_coordinates
        assert "matplotlib" not in sys.modules
        learning_curves.learning_curve([{"step": 1, "epoch": 1, "val/loss": 1.0}], Path(sys.argv[1]))
        import matplotlib
        assert "matplotlib.pyplot" not in sys.modules and "MPLCONFIGDIR" not in os.environ
        assert matplotlib.rcParams["text.parse_math"] and matplotlib.rcParams["svg.hashsalt"] is None
    """
    environment = {name: value for name, value in os.environ.items() if name != "MPLCONFIGDIR"}
    environment["DLKIT_HOME"] = str(tmp_path)
    command = [sys.executable, "-c", code, str(tmp_path / "curve.png")]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert list(tmp_path.glob("matplotlib/fontlist*"))


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_an_axis_covers_its_values_with_few_ticks(low: float, span: float) -> None:
    axis = axes.linear_axis(low, low + span)
    assert axis.low <= low + 1e-6 * span and axis.high >= low + span - 1e-6 * span
    assert 2 <= len(axis.ticks) <= 14 and list(axis.ticks) == sorted(set(axis.ticks))


@given(st.floats(1e-9, 1e3), st.floats(20, 1e9))
def test_a_log_axis_covers_its_values(low: float, ratio: float) -> None:
    axis = axes.log_axis(low, low * ratio)
    assert -0.01 <= axis.position(low) <= axis.position(low * ratio) <= 1.01
    assert axis.position(axis.ticks[0]) == 0 and axis.position(axis.ticks[-1]) == pytest.approx(1)


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


def test_each_run_has_a_color_in_every_panel_and_one_legend(runs: Path) -> None:
    flat = made(runs, "flat", 2, **{"val/top1": 0.7, "val/loss": 1.0})
    histories = curves.load_histories([flat, RunFolder(runs / "long")])
    panels = curves.make_panels(histories)
    assert [panel.title for panel in panels] == ["val/loss", "val/top1"]
    assert all([curve.label for curve in panel.curves] == ["flat", "long"] for panel in panels)
    with style.styled() as figure:
        learning_curves.draw_curves(figure, panels, one_legend=True)
        loss, top1 = figure.axes
    for panel in (loss, top1):
        assert [len(points) for points in curves_of(panel)] == [2, 8] and panel.get_legend() is None
        assert [line.get_color() for line in panel.get_lines()] == list(style.COLORS[:2])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["flat", "long"]


def test_an_unfinished_epoch_counts_as_a_fraction(tmp_path: Path) -> None:
    run = made(tmp_path, "begun", 0)
    run.append_metrics({"step": 3, "epoch": 1, "train/loss": 2.0})
    (history,) = curves.load_histories([run])
    assert history.points("train/loss") == [(0.3, 2.0)]


def test_rows_are_what_was_recorded(runs: Path) -> None:
    histories = curves.load_histories([RunFolder(runs / name) for name in ("short", "long")])
    rows = list(curves.rows(histories, ["val/top1"]))
    assert [(row["run"], row["step"], row["epoch"], row["value"]) for row in rows] == [
        (name, 10 * e, e, 1 - 0.5 / e) for name, epochs in (("short", 2), ("long", 8)) for e in range(1, epochs + 1)
    ]


def test_a_chart_has_the_requested_width_and_its_curve_follows_the_values(runs: Path) -> None:
    histories = curves.load_histories([RunFolder(runs / "long")])
    for unicode in (True, False):
        (panel,) = curves.make_panels(histories, ["val/top1"])
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
    panel = curves.Panel("t", [curves.Curve(str(n), n, points) for n in range(count)], percent=True)
    rows = chart(panel, *size)
    assert len(rows) == 1 + max(size[1], 4) + 2 + count
    assert chart(curves.Panel("t", []), *size)[1] == [("not logged", None)]


def test_the_command_writes_numbers_into_a_pipe_and_a_figure_to_the_requested_path(
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
    assert capsys.readouterr().out == "new/both.png\n" and min(png_size(Path("new/both.png"))) > 400


def test_the_command_draws_on_a_terminal(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "is_terminal", lambda stream: stream is sys.stdout)
    monkeypatch.setenv("COLUMNS", "64")
    for no_color, colored in (("", True), ("1", False)):
        monkeypatch.setenv("NO_COLOR", no_color)
        monkeypatch.setenv("TERM", "xterm-256color")
        assert dlkit_command(["plot"]) == 0
        out, err = capsys.readouterr()
        assert err == "run: runs/long\n" and "Loss" in out and "Accuracy" in out and "a train" in out
        assert ("\x1b[" in out) == colored
    assert max(map(len, out.splitlines())) <= 64


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("plot short -m val/top2", 2, "metric 'val/top2' not found in this run. Did you mean 'val/top1'?"),
        ("plot short long -m trainloss", 2, "in any of these runs. Did you mean 'train/loss'?"),
        ("plot shrot", 2, "Did you mean 'short'?"),
        ("plot short -o curve.jpg", 2, "figures are written as .png, .svg or .pdf. Name it curve.png"),
        ("plot short -o runs/short/run.json/c.png", 7, "run.json"),
        ("plot empty", 4, "no metrics yet in"),
    ],
)
def test_what_cannot_be_plotted_is_reported_in_one_line(
    words: str, code: int, message: str, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made(runs, "empty", 0)
    assert dlkit_command(words.split()) == code
    out, err = capsys.readouterr()
    assert not out and message in err and len(err.splitlines()) == 1


def test_a_metric_that_one_run_lacks_is_reported(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(runs, "other", 3, **{"val/top5": 0.9})
    assert dlkit_command(["plot", "other", "short", "-m", "val/top5"]) == 0
    out, err = capsys.readouterr()
    assert err == "short has not logged val/top5\n" and out.count("other") == 3
    assert dlkit_command(["plot", "other", "runs/other", "-m", "val/top5"]) == 0
