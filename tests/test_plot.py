"""The pictures: that they hold what they should, where they should."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dlkit.errors import StorageError
from dlkit.verbs import plot


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG" and image.mode == "RGB"
        return np.asarray(image).astype(int)


def share_of(picture: np.ndarray, colour: plot.Colour) -> float:
    """The fraction of pixels of exactly this colour."""
    return float((picture == np.array(colour)).all(axis=2).mean())


def test_a_perfect_matrix_is_blue_and_a_hopeless_one_orange(tmp_path: Path) -> None:
    counts = {"perfect": np.eye(4, dtype=np.int64) * 7, "hopeless": np.roll(np.eye(4, dtype=np.int64) * 7, 1, axis=1)}
    for name, confusion in counts.items():
        plot.confusion_matrix(confusion, list("abcd"), name, tmp_path / f"{name}.png")
    perfect, hopeless = pixels(tmp_path / "perfect.png"), pixels(tmp_path / "hopeless.png")
    assert share_of(perfect, plot.BLUE) > 5 * share_of(perfect, plot.ORANGE)
    assert share_of(hopeless, plot.ORANGE) > 5 * share_of(hopeless, plot.BLUE)


@pytest.mark.parametrize("classes", [1, 2, 20, 21, 150, 1200])
def test_a_matrix_of_any_size_is_drawn_at_a_legible_size(tmp_path: Path, classes: int) -> None:
    names = [f"class\n{index} with quite a long name" for index in range(classes)]
    plot.confusion_matrix(np.eye(classes, dtype=np.int64), names, "title", tmp_path / "plots" / "matrix.png")
    height, width, _ = pixels(tmp_path / "plots" / "matrix.png").shape
    assert 200 < height < 2000 and 200 < width < 2000


def test_an_empty_row_is_left_white(tmp_path: Path) -> None:
    plot.confusion_matrix(np.zeros((3, 3), dtype=np.int64), list("abc"), "nothing", tmp_path / "matrix.png")
    assert share_of(pixels(tmp_path / "matrix.png"), plot.PAPER) > 0.8


def lines(epochs: int) -> list[dict[str, float | None]]:
    return [
        {"step": 10 * e, "epoch": e, "train/loss": 2 / e, "val/loss": 3 / e, "val/top1": 1 - 0.5 / e, "lr": 0.1}
        for e in range(1, epochs + 1)
    ]


@pytest.mark.parametrize("epochs", [1, 2, 60])
def test_a_learning_curve_shows_train_and_validation(tmp_path: Path, epochs: int) -> None:
    plot.learning_curve(lines(epochs), tmp_path / "curve.png")
    picture = pixels(tmp_path / "curve.png")
    assert share_of(picture, plot.BLUE) > 0 and share_of(picture, plot.ORANGE) > 0
    assert share_of(picture, plot.GREEN) == 0  # no top-5 was recorded


@pytest.mark.parametrize(
    "metrics", [[], [{"step": 3, "epoch": 1, "train/loss": None, "val/loss": math.nan, "val/top1": math.inf}]]
)
def test_a_run_without_figures_still_gets_its_picture(tmp_path: Path, metrics: list[dict[str, float]]) -> None:
    plot.learning_curve(metrics, tmp_path / "curve.png")
    picture = pixels(tmp_path / "curve.png")
    assert share_of(picture, plot.BLUE) == 0 and picture.size


def test_the_same_figures_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        plot.learning_curve(lines(3), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_an_axis_covers_its_values_with_few_ticks(low: float, span: float) -> None:
    axis = plot.linear_axis(low, low + span)
    assert axis.low <= low + 1e-6 * span and axis.high >= low + span - 1e-6 * span
    assert 2 <= len(axis.ticks) <= 14 and list(axis.ticks) == sorted(set(axis.ticks))


@given(st.floats(1e-9, 1e3), st.floats(20, 1e9))
def test_a_log_axis_covers_its_values(low: float, ratio: float) -> None:
    axis = plot.log_axis(low, low * ratio)
    assert -0.01 <= axis.place(low) <= axis.place(low * ratio) <= 1.01
    assert axis.place(axis.ticks[0]) == 0 and axis.place(axis.ticks[-1]) == pytest.approx(1)


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "plots").write_text("in the way")
    with pytest.raises(StorageError, match="plots"):
        plot.learning_curve(lines(2), tmp_path / "plots" / "curve.png")
