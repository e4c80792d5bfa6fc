"""A run's data is found again: from any folder, after it has moved, and where older versions noted a relative path."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from corpus import encoded, picture

import dlkit
from dlkit.config.resolve import resolve, with_absolute_paths, with_changes
from dlkit.config.schema import Data
from dlkit.data import library
from dlkit.errors import DataError, StorageError
from dlkit.evaluation.evaluate import evaluate
from dlkit.runs.data_of_run import data_of_run
from dlkit.runs.run_folder import RunFolder
from dlkit.training.train import resume_run
from dlkit_cli import main

SETTINGS = {"data.size": 8, "data.workers": 0, "train.epochs": 1, "train.threads": 1, "train.batch_size": 8}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A run on photos/, both in one folder, seen from another one."""
    (tmp_path / "one").mkdir(), (tmp_path / "two").mkdir()
    monkeypatch.chdir(tmp_path / "one")
    for number in range(20):
        path = Path(f"photos/{'ab'[number % 2]}/{number}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(picture(8, 8, seed=number), "PNG"))
    found = dlkit.train("mlp", dataset="photos", settings=SETTINGS, name="r")
    monkeypatch.chdir(tmp_path / "two")
    return RunFolder(tmp_path / "one" / found.path)


def test_a_run_notes_where_its_data_lies_from_the_root(run: RunFolder, tmp_path: Path) -> None:
    assert run.recipe().data.dir == str(tmp_path / "one/photos")
    assert evaluate(run, split="validation", write=False).samples == 2


def test_data_that_has_moved_is_named_and_given_again(run: RunFolder, tmp_path: Path) -> None:
    shutil.move(tmp_path / "one/photos", tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"data of run r not found: .*one/photos does not exist.*--data-dir DIR"):
        evaluate(run, split="validation", write=False)
    assert evaluate(run, split="validation", data_dir="../elsewhere", write=False).samples == 2
    here = ["--runs-dir", str(run.path.parent)]
    assert main.run(["reproduce", "r", "--data-dir", "../elsewhere", "--epochs", "1", *here]) == 0
    assert main.run(["train", "--resume", "r", "--epochs", "2", *here]) == 4
    assert main.run(["train", "--resume", "r", "--epochs", "2", "--data-dir", "../elsewhere", *here]) == 0
    assert run.recipe().data.dir == str(tmp_path / "two/../elsewhere") and run.info()["epochs"] == 2
    (tmp_path / "elsewhere/a/0.png").write_bytes(encoded(picture(8, 8, seed=99), "PNG"))
    with pytest.raises(DataError, match=r"1 altered: a/0\.png"):
        resume_run(run, changes={"train.epochs": 3}, inexact=False, say=str, progress=False)


def test_a_relative_location_is_looked_for_beside_the_run(run: RunFolder, tmp_path: Path) -> None:
    old = Data(name="folder", dir="photos")
    assert data_of_run(run, old).dir == str(tmp_path / "one/photos")
    (tmp_path / "two/photos").mkdir()
    assert data_of_run(run, old).dir == str(tmp_path / "two/photos")  # as it always was, this folder goes first


def test_a_path_too_long_for_the_system_is_one_line(tmp_path: Path) -> None:
    for data in (Data(name="wds", dir="{0.." + "9" * 5000 + "}.tar"), Data(name="folder", dir="x" * 5000)):
        with pytest.raises(StorageError, match="File name too long"):
            library.splits(data)


def test_addresses_and_names_of_a_hub_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for given in ("hf:ylecun/mnist", "wds:https://example.org/{0..3}.tar"):
        assert resolve("mlp", given).recipe.data.dir == given.partition(":")[2]
    listed = resolve("mlp", "wds:s-{0..3}.tar", flags={"data.options.names": "names.txt"}).recipe
    assert (listed.data.dir, listed.data.options["names"]) == (f"{tmp_path}/s-{{0..3}}.tar", f"{tmp_path}/names.txt")
    assert with_absolute_paths(listed) == listed and with_changes(listed, {}) == listed
