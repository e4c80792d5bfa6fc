"""Every recipe that dlkit ships says where it comes from, and takes two steps on made-up data of its shape."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from _pytest.mark import ParameterSet
from PIL import Image

import dlkit
from dlkit.config import yaml_file
from dlkit.config.resolve import resolve
from dlkit.config.schema import Data
from dlkit.data import library
from dlkit.data.splits import ImageFiles, MemoryImages, Splits
from dlkit.datasets import sst
from dlkit.specs import ImageSpec

SAMPLES = 8
IN_MEMORY = {"mnist": (1, 28), "fashion_mnist": (1, 28), "cifar10": (3, 32)}  # channels, side; of ten classes
PHOTOGRAPHS = {"imagenet": 1000, "imagenette": 10, "imagenette_160": 10, "folder": 3}  # classes
MADE_BY_CODE = {"shapes", "brackets", "adding"}
SENTENCE = "(4 (3 (2 a) (4 gem)) (2 (2 of) (2 (2 a) (2 movie))))\n"
BIG = ("imagenet", "-folder", "vgg", "alexnet", "densenet40", "resnet32", "resnet44", "resnet56", "resnet110")


def made_up(data: Data, folder: Path) -> Splits:
    """A few samples that look like those of the data set that the recipe names."""
    targets = np.arange(SAMPLES, dtype=np.int64) % 3
    pixels = np.random.default_rng(0)
    if data.name in IN_MEMORY:
        channels, side = IN_MEMORY[data.name]
        spec = ImageSpec(channels, side, side, tuple("0123456789"), (0.5,) * channels, (0.25,) * channels)
        images = pixels.integers(0, 256, (SAMPLES, channels, side, side), dtype=np.uint8)
        return Splits(spec, MemoryImages(images, targets))
    if data.name in PHOTOGRAPHS:
        paths = [folder / f"{number}.png" for number in range(SAMPLES)]
        for path in paths:
            Image.fromarray(pixels.integers(0, 256, (240, 260, 3), dtype=np.uint8)).save(path)
        classes = tuple(map(str, range(PHOTOGRAPHS[data.name])))
        return Splits(ImageSpec(3, 224, 224, classes, (0.5,) * 3, (0.25,) * 3), ImageFiles(paths, targets))
    assert data.name in ("sst", "sst_binary")
    for split in ("train", "dev", "test"):
        (folder / f"{split}.txt").write_text(SENTENCE * SAMPLES)
    options = {key: value for key, value in data.options.items() if key != "least"}
    return sst.load(folder, binary=data.name == "sst_binary", **{"least": 1, **options})  # type: ignore[arg-type]


def cases() -> Iterator[ParameterSet]:
    """Every recipe; in the fast tier the first of each model that is not big."""
    models: set[str] = set()
    for name in yaml_file.shipped_names():
        model = name.partition("-")[0]
        slow = model in models or any(word in name for word in BIG)
        models |= set() if slow else {model}
        yield pytest.param(name, marks=[pytest.mark.slow] if slow else [])


@pytest.mark.parametrize("name", list(cases()))
def test_a_shipped_recipe_takes_two_steps(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, object] = {
        "train.epochs": 1,
        "train.batch_size": SAMPLES // 2,
        "train.accumulate": 1,
        "train.threads": 1,
        "data.validation": 0.0,
        "train.monitor": "train/loss",
        "data.workers": 0,
        "schedule.warmup_epochs": 0.0,
        "model.weights": None,
    }
    recipe = resolve(recipe=name, flags={"data.dir": "DIR"} if name.endswith("-folder") else {}).recipe
    if recipe.data.name in MADE_BY_CODE:
        settings["data.options.train"] = SAMPLES
    else:
        monkeypatch.setattr(library, "splits", lambda data, **how: made_up(data, tmp_path))
    given = settings | ({"data.dir": "DIR"} if name.endswith("-folder") else {})
    run = dlkit.train(recipe=name, settings=given, name="two_steps", runs_dir=tmp_path)
    last = run.metrics()[-1]
    assert last["step"] == 2 and math.isfinite(last["train/loss"])


def test_shipped_recipes_are_valid_and_say_where_they_come_from(subtests: pytest.Subtests) -> None:
    for name in yaml_file.shipped_names():
        with subtests.test(name):
            check_header(name)


def check_header(name: str) -> None:
    path = yaml_file.shipped_path(name)
    assert path is not None
    yours = {"data.dir": "DIR"} if "-folder" in name else {}
    recipe = resolve(recipe=path, flags=yours).recipe
    assert name.startswith(f"{recipe.model.name}-{recipe.data.name}")
    header = yaml_file.header(path)
    assert all(f"\n{word}: " in header for word in ("Paper", "Command", "Result"))
    command = re.search(r"^Command: dlkit train (.*)$", header, re.MULTILINE)
    assert command is not None
    assert not yours or command[1].endswith(" --data-dir DIR")
    words = command[1].removesuffix(" --data-dir DIR")
    named = re.fullmatch(r"(\S+) --dataset (\S+)", words)
    again = (
        resolve(*named.groups(), flags=yours) if named else resolve(recipe=words.removeprefix("--recipe "), flags=yours)
    )
    assert again.recipe == recipe


def test_recipes_are_shipped() -> None:
    assert {"lenet5-mnist", "lenet5-mnist_augmented", "lenet5_relu-mnist"} <= set(yaml_file.shipped_names())
