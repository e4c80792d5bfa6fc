"""What several test files share: tiny trained runs, exported files, and a cache of the tests' own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tiny_texts
from corpus import encoded
from PIL import Image

from dlkit.plots import bars, calibration, confusion_matrix, learning_curves, parallel_coordinates, style
from dlkit.runs.run_folder import RunFolder

if TYPE_CHECKING:
    from exported_files import File
    from matplotlib.figure import Figure

# One thread, also in the processes that tests start: tiny models gain nothing from two and lose much on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

FIGURES = (bars, calibration, confusion_matrix, learning_curves, parallel_coordinates)  # of runs and experiments
BLANK_PNG = encoded(Image.new("L", (1, 1)), "PNG")


@pytest.fixture(scope="session", autouse=True)
def _no_wait_for_the_disk() -> Iterator[None]:
    """Only a power failure could show what fsync did; tests of that follow the calls in processes of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: os.fstat(descriptor) and None)
        yield


@contextmanager
def blank_figure(path: Path, width: float, height: float) -> Iterator[Figure]:
    """dlkit's figure, drawn and written as ever, but as a fixed image."""
    with style.figure(path, width, height) as drawing:
        yield drawing
        drawing.savefig = lambda file, **options: file.write(BLANK_PNG)  # type: ignore[method-assign,assignment]


@pytest.fixture(scope="session", autouse=True)
def _no_rendering() -> Iterator[None]:
    """To render the figures of a tiny training takes four times as long as the training; see `rendered_figures`."""
    with pytest.MonkeyPatch.context() as patch:
        for module in FIGURES:
            patch.setattr(module, "figure", blank_figure)
        yield


@pytest.fixture
def rendered_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures as a user gets them."""
    for module in FIGURES:
        monkeypatch.setattr(module, "figure", style.figure)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the cache of the person who runs it, or goes to the network."""
    monkeypatch.setenv("DLKIT_HOME", str(tmp_path_factory.getbasetemp() / "home"))
    monkeypatch.setenv("DLKIT_OFFLINE", "1")


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunFolder]:
    """An mlp after one epoch over a few hundred shapes."""
    import dlkit

    runs_dir: Path = tmp_path_factory.mktemp("tiny") / "runs"
    yield dlkit.train(
        "mlp",
        dataset="shapes",
        epochs=1,
        batch_size=32,
        settings={"data.options.train": 320, "data.options.test": 160, "model.options.hidden": "32"},
        name="tiny",
        runs_dir=runs_dir,
    )


@pytest.fixture(scope="session")
def onnx_file(tiny_run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> File:
    from exported_files import File

    from dlkit.export.export import export

    return File(export(tiny_run, output=tmp_path_factory.mktemp("onnx") / "tiny.onnx").path)


@pytest.fixture(scope="session")
def weights_file(tiny_run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> File:
    from exported_files import File

    from dlkit.export.export import export

    path = tmp_path_factory.mktemp("safetensors") / "tiny.safetensors"
    return File(export(tiny_run, to="safetensors", output=path).path)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    from exported_files import draw_pictures

    return draw_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="session")
def text_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A small LSTM that has learnt which word decides."""
    import dlkit

    folder = tmp_path_factory.mktemp("texts")
    tiny_texts.write_table(folder / "train.csv", 800, seed=0)
    tiny_texts.write_table(folder / "test.csv", 60, seed=1)
    options = {"hidden_size": 16, "embedding_size": 16}
    return dlkit.train(
        "lstm", dataset="text_csv", data_dir=folder, epochs=3, batch_size=32, lr=0.02, name="texts",
        settings={"data.validation": 0.35, **{f"model.options.{key}": value for key, value in options.items()}},
        runs_dir=folder / "runs",
    )  # fmt: skip


@pytest.fixture(scope="session")
def tree_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A small Tree-LSTM that has learnt the same."""
    import dlkit

    folder = tmp_path_factory.mktemp("trees")
    tiny_texts.write_trees(folder / "train.txt", 500, seed=2)
    tiny_texts.write_trees(folder / "test.txt", 60, seed=3)
    return dlkit.train(
        "tree_lstm", dataset="trees", data_dir=folder, epochs=3, batch_size=32, lr=0.02, name="trees",
        settings={"data.validation": 0.2, "model.options.hidden_size": 16, "model.options.embedding_size": 16},
        runs_dir=folder / "runs",
    )  # fmt: skip


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever trains, or goes on with a training, fails the test."""
    from dlkit.training import train

    def refuse(*arguments: object, **named: object) -> None:
        raise AssertionError("something was trained")

    monkeypatch.setattr(train, "train_recipe", refuse)
    monkeypatch.setattr(train, "resume_run", refuse)
