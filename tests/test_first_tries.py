"""Forty first tries of a newcomer with a folder of photos, written down before the front door was built.

Each one works, or its one line of error names the right words. FRESH and EMPTY have photos, DESK also a
trained run, DAMAGED a truncated photo, TESTLESS a run without a test split.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import run_folders
from PIL import Image

from dlkit.config.resolve import resolve
from dlkit.specs import ImageSpec
from dlkit_cli import console, main

Captured = pytest.CaptureFixture[str]
FRESH, EMPTY, DESK, DAMAGED, TESTLESS = "fresh", "empty", "desk", "damaged", "testless"
PHOTOS = 8  # of each class


@dataclass(frozen=True)
class Try:
    """A command line, where it is typed, and words that its answer must contain; `code` 0 is a try that works."""

    line: str
    words: tuple[str, ...]
    code: int = 0
    folder: str = FRESH


WORKS = [
    Try("train photos/ --epochs 1", ("recipe: for 24 photos", "dlkit eval", "dlkit predict new.jpg", "dlkit report")),
    Try("train photos --dry-run", ("name: resnet8", "test: 0.15", "group: near")),
    Try("train resnet18 photos/ --dry-run", ("name: resnet18", "from scratch")),
    Try("train simple_cnn photos --dry-run", ("name: simple_cnn", "size: 32")),
    Try("train photos resnet18 --dry-run", ("name: resnet18",)),
    Try("train --dataset photos --dry-run", ("name: folder",)),
    Try("train --data-dir photos --dry-run", ("name: folder",)),
    Try("train resnet20 --data-dir photos --dry-run", ("name: resnet20", "name: folder")),
    Try("train photos --img-size 48 --dry-run", ("size: 48",)),
    Try("train photos --test-split 0.25 --dry-run", ("test: 0.25",)),
    Try("train photos --classes cat,owl --epochs 1", ("2 classes: cat, owl",)),
    Try("train photos --no-pretrained --dry-run", ("weights: null",)),
    Try("train split --dry-run", ("name: folder", "group: near")),
    Try("help train", ("Usage: dlkit train",)),
    Try("train help", ("Usage: dlkit train",)),
    Try("help", ("Usage: dlkit", "Commands")),
    Try("eval", ("top1",), folder=DESK),
    Try("predict photos/cat/0.png", ("cat",), folder=DESK),
]
LEADS_ON = [
    Try("train photos --size 64", ("--img-size",), 2),
    Try("train photos --imgsz 64", ("--img-size",), 2),
    Try("train photos --image-size 64", ("--img-size",), 2),
    Try("train photos --bs 16", ("--batch-size",), 2),
    Try("train photos --learning-rate 0.01", ("--lr",), 2),
    Try("train photos --optimizer adam", ("--opt",), 2),
    Try("train photos --val-split 0.2", ("--validation",), 2),
    Try("train photos --gpu 0", ("--device",), 2),
    Try("train --model resnet18 photos", ("dlkit train MODEL DATA",), 2),
    Try("train phtos", ("'photos'",), 2),
    Try("train resnet photos", ("resnet18",), 2),
    Try("train photos/cat", ("Is 'cat' a class?", "photos."), 4),
    Try("train photos --pretrained", ("--no-pretrained", "--weights FILE"), 7),
    Try("evaluate", ("'eval'",), 2),
    Try("test", ("'eval'",), 2),
    Try("val", ("'eval --split validation'",), 2),
    Try("info photos", ("'dataset info'",), 2),
    Try("classify photos/cat/0.png", ("'predict'",), 2),
    Try("fit photos", ("'train'",), 2),
    Try("eval", ("dlkit train",), 2, EMPTY),
    Try("train photos --epochs 1", ("--on-bad-image skip", "dlkit dataset check"), 4, DAMAGED),
    Try("eval", ("--test-split", "--split validation"), 4, TESTLESS),
]


def test_there_are_forty() -> None:
    assert len({(one.line, one.folder) for one in WORKS + LEADS_ON}) == 40


@pytest.mark.parametrize("one", WORKS, ids=lambda one: f"{one.folder}: {one.line}")
def test_a_first_try_works(one: Try, places: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    code, out, err = typed(one, places, monkeypatch, capsys)
    assert (code, [word for word in one.words if word not in out + err]) == (0, []), out + err


@pytest.mark.parametrize("one", LEADS_ON, ids=lambda one: f"{one.folder}: {one.line}")
def test_a_wrong_first_try_names_the_right_words(
    one: Try, places: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    code, out, err = typed(one, places, monkeypatch, capsys)
    last = err.rstrip("\n").rpartition("\n")[2]
    assert (code, out) == (one.code, "") and last.startswith("dlkit"), err
    assert [word for word in one.words if word not in last] == [], last


def test_training_inside_the_folder_of_photos_leaves_no_class_called_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    write_photos(tmp_path)
    for runs in ("runs", "runs/first"):  # reserved, then trained
        (tmp_path / runs).mkdir()
        if runs != "runs":
            (tmp_path / runs / "run.json").write_text("{}")
        monkeypatch.chdir(tmp_path)
        assert main.run(["train", ".", "--dry-run"]) == 0, capsys.readouterr().err
    (tmp_path / "runs" / "first" / "run.json").unlink()  # a class with a folder in it
    assert main.run(["train", ".", "--dry-run"]) == 4


def typed(one: Try, places: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> tuple[int, str, str]:
    """What a command line answers where it is typed."""
    monkeypatch.chdir(places / one.folder)
    monkeypatch.setattr(console, "settings", console.Settings())
    capsys.readouterr()
    code = main.run(one.line.split())
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folders in which a newcomer sits."""
    root = tmp_path_factory.mktemp("newcomer")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DLKIT_OFFLINE", "1")
        for name in (FRESH, EMPTY, DESK, DAMAGED, TESTLESS):
            write_photos(root / name / "photos")
        write_photos(root / FRESH / "split" / "train")
        write_photos(root / FRESH / "split" / "test")
        broken = root / DAMAGED / "photos" / "cat" / "3.png"
        broken.write_bytes(broken.read_bytes()[:200])
        patch.chdir(root / DESK)
        assert main.run(["-q", "train", "photos", "--epochs", "1"]) == 0
        recipe = resolve("resnet20", str(root / TESTLESS / "photos")).recipe
        spec = ImageSpec(3, 32, 32, ("cat", "dog", "owl"), (0.5,) * 3, (0.5,) * 3)
        info = {"model": "resnet20", "dataset": "folder", "spec": spec.to_json()}
        run_folders.create(root / TESTLESS / "runs", "testless", recipe, info)
        yield root


def write_photos(folder: Path) -> None:
    """Pictures of noise in a color of their class, 28 × 20 pixels."""
    for number, name in enumerate(("cat", "dog", "owl")):
        (folder / name).mkdir(parents=True)
        for index in range(PHOTOS):
            rng = np.random.default_rng([number, index, len(folder.parts)])
            pixels = rng.integers(0, 120, (20, 28, 3), dtype=np.uint8)
            pixels[..., number] += 100
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
