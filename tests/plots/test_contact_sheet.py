"""The contact sheet: what it shows is what the data set holds, and what training would see."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from corpus import encoded, picture

from dlkit.config.resolve import resolve
from dlkit.config.schema import Data
from dlkit.data.loader import TrainingData
from dlkit.data.splits import MemoryImages
from dlkit.datasets import shapes
from dlkit.errors import UsageError
from dlkit.plots.contact_sheet import COLUMNS, GAP, MAX_ROWS, _augmented, _sheet, contact_sheet
from dlkit.specs import ImageSpec
from dlkit_cli import main

SMALL = Data(name="shapes", options={"train": 80, "test": 8})
CHANGED = {"data.options.train": 80, "data.augment.rotation": 30, "data.augment.horizontal_flip": 0.5, "train.seed": 3}


def test_every_class_has_a_row_of_its_own_images(tmp_path: Path) -> None:
    train = shapes.load(train=80, test=8).train
    assert isinstance(train, MemoryImages)
    last = np.flatnonzero(train.targets == len(shapes.CLASSES) - 1)[-1:]
    sheet = _sheet([train.images[:COLUMNS], train.images[last]])
    side = 2 * train.images.shape[-1]
    tile = sheet[side + GAP : -GAP, :side]
    assert (tile == train.images[last[0]].transpose(1, 2, 0).repeat(2, 0).repeat(2, 1)).all()
    assert (sheet[side + GAP :, side:] == 255).all() and sheet.shape[1] == COLUMNS * (side + GAP)
    for ending, start in ((".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")):
        contact_sheet(SMALL, tmp_path / f"sheet{ending}")
        assert (tmp_path / f"sheet{ending}").read_bytes().startswith(start)


def test_augmented_images_are_those_of_the_recipes_epochs() -> None:
    recipe = resolve("mlp", "shapes", flags=CHANGED).recipe
    splits = shapes.load(train=80, test=8)
    assert isinstance(splits.spec, ImageSpec) and isinstance(splits.train, MemoryImages)
    shown = _augmented(splits.train, np.array([17]), splits.spec, recipe)
    assert (shown[0] == splits.train.images[17]).all() and len(shown) == COLUMNS
    cpu = torch.device("cpu")
    training = TrainingData(splits.train, splits.spec, recipe.data.augment, 80, recipe.train.seed, cpu)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (splits.spec.mean, splits.spec.std))
    for epoch in (0, 4):
        (batch,) = training.epoch(epoch)
        (seen,) = batch.inputs[batch.indices == 17]
        expected = ((seen * std + mean) * 255).round().clamp(0, 255).byte().numpy()
        assert (shown[1 + epoch] == expected).all()
    assert (shown[1] != shown[5]).any()


def test_many_classes_are_thinned_out_and_said(tmp_path: Path) -> None:
    for number in range(MAX_ROWS + 10):
        (tmp_path / f"data/{number}").mkdir(parents=True)
        (tmp_path / f"data/{number}/1.png").write_bytes(encoded(picture(20, 20, seed=number), "PNG"))
    said: list[str] = []
    contact_sheet(Data(name="folder", dir=str(tmp_path / "data"), size=8), tmp_path / "sheet.png", say=said.append)
    assert said == ["50 of 60 classes are drawn."] and (tmp_path / "sheet.png").stat().st_size > 1000


def test_a_folder_is_described_by_its_path_or_as_a_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(6):
        (tmp_path / f"data/{'ab'[number % 2]}").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"data/{'ab'[number % 2]}/{number}.png").write_bytes(encoded(picture(20, 20, seed=number), "PNG"))
    for named in ([str(tmp_path / "data")], [f"folder:{tmp_path}/data"], ["folder", "--data-dir", f"{tmp_path}/data"]):
        assert main.run(["dataset", "info", *named, "--json", "-o", str(tmp_path / "sheet.png")]) == 0
        document = json.loads(capsys.readouterr().out)
        assert (document["classes"], document["sizes"]) == (2, {"train": 6}) and (tmp_path / "sheet.png").is_file()
        (tmp_path / "sheet.png").unlink()
    assert main.run(["dataset", "info", "mnist", "--data-dir", str(tmp_path)]) == UsageError.exit_code


def test_what_cannot_be_drawn_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="figures are written as"):
        contact_sheet(SMALL, tmp_path / "sheet.jpg")
    assert main.run(["dataset", "info", "shapes", "--augment", "lenet5-mnist"]) == UsageError.exit_code
    assert "requires -o" in capsys.readouterr().err
    assert main.run(["dataset", "info", "sst", "-o", str(tmp_path / "sheet.png")]) == UsageError.exit_code
    assert "no images" in capsys.readouterr().err and not list(tmp_path.iterdir())
