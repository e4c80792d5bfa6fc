"""Weights that were trained on images which now validate: counted, whatever the data are and however long the chain."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from shapes_on_disk import write_folder

import dlkit
from dlkit.config.schema import Data
from dlkit.data import library
from dlkit.data.loader import split
from dlkit.export.export import export
from dlkit.runs.run_folder import RunFolder
from dlkit.training import leaks
from dlkit.training.weights import find, portable, trained_on


def train(
    runs_dir: Path, name: str, said: list[str], seed: int, source: Path | str | None = None, **more: Any
) -> RunFolder:
    data = more.pop("data", {"dataset": "shapes"})
    settings = {"train.threads": 1, "train.device": "cpu", "data.validation": 0.25, "model.options.hidden": "4", **more}
    settings |= {} if source is None else {"model.weights": str(source)}
    return dlkit.train(
        "mlp", epochs=1, seed=seed, settings=settings, name=name, runs_dir=runs_dir, say=said.append, **data
    )


def leaked(said: list[str]) -> list[str]:
    return [line for line in said if "were in the training data of" in line]


def test_a_built_in_set_that_is_split_otherwise_leaks_and_so_do_chains_and_exports(tmp_path: Path) -> None:
    small = {"data.options.train": 80, "data.options.test": 40}
    said: list[str] = []
    one = train(tmp_path, "one", said, 0, **small)
    two = train(tmp_path, "two", said, 1, "one", **small)
    (line,) = leaked(said)
    data = two.recipe().data
    parts = {seed: split(library.splits(data), 0.25, seed) for seed in (0, 1, 2)}

    def told(source: Path, seed: int) -> list[str]:
        found = leaks.warnings(find(str(source), None, tmp_path, print).trained_on, parts[seed], data)
        return [warning.partition(",")[0] for warning in found]

    def expected(name: str, trained: int, seed: int) -> str:
        """By the pixels themselves."""
        known = {image.tobytes() for image in parts[trained]["train"].images}  # type: ignore[union-attr]
        images = parts[seed]["validation"].images  # type: ignore[union-attr]
        count = sum(image.tobytes() in known for image in images)
        assert 0 < count <= len(images) == 20
        return f"{count} of 20 validation images were in the training data of {name!r}"

    assert line.startswith(f"warning: {expected('one', 0, 1)}, ")
    assert told(one.path, 0) == [] and told(one.path, 1) == [expected("one", 0, 1)]
    assert told(two.path, 2) == [expected("two", 1, 2), expected("one", 0, 2)] and told(two.path, 1) == told(
        one.path, 1
    )
    found = dlkit.evaluate(two, split="validation", write=False)
    assert any(warning.startswith(expected("one", 0, 1)) for warning in found.warnings)
    assert not leaked(list(dlkit.evaluate(two, write=False).warnings))  # its test split was never trained on

    file = export(two, to="safetensors", output=tmp_path / "m.safetensors").path
    assert str(tmp_path) not in str(find(str(file), None, tmp_path, print).trained_on)  # no place of this machine
    shutil.rmtree(one.path)
    assert told(file, 2) == told(two.path, 2) == [expected("two", 1, 2), expected("one", 0, 2)]


def test_files_leak_by_their_bytes_wherever_they_lie(tmp_path: Path) -> None:
    write_folder(tmp_path / "a", "train", ("disk", "ring"), count=80)
    shutil.copytree(tmp_path / "a" / "train", tmp_path / "b" / "train")
    shutil.copytree(tmp_path / "a" / "train", tmp_path / "b" / "test")
    said: list[str] = []
    options = {"data.size": 28, "data.workers": 0, "data.options.test": 0.0, "data.options.group": ""}
    one = train(tmp_path / "runs", "one", said, 0, data={"dataset": "folder", "data_dir": tmp_path / "a"}, **options)
    two = train(
        tmp_path / "runs", "two", said, 1, "one", data={"dataset": "folder", "data_dir": tmp_path / "b"}, **options
    )
    held_out = two.info()["data"]["validation"]["samples"]
    (line,) = leaked(said)
    count = int(line.split()[1])
    assert f"{count} of {held_out} validation images" in line and 0 < count <= held_out
    held_out_files = {"validation": split(library.splits(two.recipe().data), 0.25, 1)["validation"]}
    records = portable(trained_on(one))  # as an export holds them: without the files' digests and places
    assert str(tmp_path) not in str(records)
    assert leaks.warnings(records, held_out_files, two.recipe().data) == [line.removeprefix("warning: ")]
    warnings = dlkit.evaluate(two, split="test", write=False).warnings
    assert any("test images were in the training data of 'one'" in warning for warning in warnings)


@pytest.mark.parametrize(
    "record",
    [{"name": "x"}, {"name": "x", "data": 3}, {"name": "x", "data": {"name": "shapes"}, "seed": "y", "sha256": "z"},
     {"name": "x", "run": "\0", "data": {"name": "nothing"}}, {"name": "x", "data": {"name": "mnist"}, "sha256": "z"}],
)  # fmt: skip
def test_a_record_that_cannot_be_followed_says_nothing(record: dict[str, Any], tmp_path: Path) -> None:
    data = Data(name="shapes", options={"train": 40, "test": 8})
    parts = split(library.splits(data), 0.25, 0)
    assert leaks.warnings([record], parts, data) == []
