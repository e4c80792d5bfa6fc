"""Hugging Face data sets: what save_to_disk wrote is read without a network; columns are found by their type."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from corpus import encoded, picture

from dlkit.config.schema import Data
from dlkit.data import library
from dlkit.data.images import decode
from dlkit.data.loader import split
from dlkit.datasets import hf
from dlkit.errors import DataError, StorageError, UsageError
from dlkit_cli.main import run

needs_datasets = pytest.mark.skipif(importlib.util.find_spec("datasets") is None, reason="datasets is not installed")


def image(seed: int) -> dict[str, Any]:
    return {"bytes": encoded(picture(12, 12, seed=seed), "PNG"), "path": None}


def table(count: int = 12, names: tuple[str, ...] | None = ("owl", "fox"), **more: Any) -> Any:
    import datasets

    datasets.disable_progress_bars()
    label = datasets.Value("string") if names is None else datasets.ClassLabel(names=list(names))
    columns = {"image": [image(n) for n in range(count)], "label": [n % 2 for n in range(count)], **more}
    if names is None:
        columns["label"] = ["ab"[n % 2] for n in range(count)]
    features = {"image": datasets.Image(), "label": label}
    for name, values in more.items():
        features.setdefault(name, datasets.Value("string" if isinstance(values[0], str) else "int64"))
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def saved(found: Any, place: Path) -> Path:
    import datasets

    (datasets.DatasetDict(found) if isinstance(found, dict) else found).save_to_disk(str(place))
    return place


@needs_datasets
def test_names_of_the_label_are_the_classes_in_their_order(tmp_path: Path) -> None:
    splits = hf.load(saved(table(), tmp_path / "a"), size=12)
    assert splits.spec.classes == ("owl", "fox") and splits.train.targets.tolist() == [0, 1] * 6
    for seed, source in enumerate(splits.train.paths):  # type: ignore[union-attr]
        assert (decode.load(source, splits.spec) == decode.load(image(seed)["bytes"], splits.spec)).all()
    assert splits.validation is None and splits.test is None


@needs_datasets
def test_splits_have_the_names_that_people_give_them(tmp_path: Path) -> None:
    parts = {"train": table(8), "valid": table(4), "test": table(2)}
    splits = hf.load(saved(parts, tmp_path / "a"))
    assert (len(splits.train), len(splits.validation or []), len(splits.test or [])) == (8, 4, 2)


@needs_datasets
def test_a_split_whose_labels_are_kept_back_is_left_out_and_said(tmp_path: Path) -> None:
    splits = hf.load(saved({"train": table(8), "test": table(4, label=[-1] * 4)}, tmp_path / "a"))
    assert splits.test is None and "the test split has no labels and is not used." in splits.warnings


@needs_datasets
def test_labels_may_be_text_and_columns_may_be_named(tmp_path: Path) -> None:
    place = saved(table(8, names=None).rename_columns({"image": "photo", "label": "kind"}), tmp_path / "a")
    assert hf.load(place, label_column="kind").spec.classes == ("a", "b")
    with pytest.raises(DataError, match=r"0 columns of type ClassLabel\. Set data.*label_column.*kind"):
        hf.load(place)
    with pytest.raises(DataError, match=r"no column 'kid'.*'kind'"):
        hf.load(place, label_column="kid")


@needs_datasets
def test_rows_of_a_group_stay_together(tmp_path: Path) -> None:
    place = saved(table(40, who=[f"p{n // 4}" for n in range(40)]), tmp_path / "a")
    parts = split(hf.load(place, group_column="who", test=0.2), 0.25, 0)
    people = [{source.index // 4 for source in part.paths} for part in parts.values()]  # type: ignore[union-attr]
    assert sum(map(len, people)) == 10 and len(set.union(*people)) == 10 and len(parts) == 3


@needs_datasets
def test_a_class_without_an_image_is_said_and_kept(tmp_path: Path) -> None:
    splits = hf.load(saved(table(8, names=("owl", "fox", "bee")), tmp_path / "a"))
    assert splits.spec.classes == ("owl", "fox", "bee")
    assert "the train split has no image of 'bee'." in splits.warnings


@needs_datasets
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("folder", "not a folder from save_to_disk"), ("no train", "no train split"),
        ("odd split", "'extra' is not train, validation or test"), ("no image", "has 0 columns of type Image"),
        ("one class", "one class only"),
    ],
)  # fmt: skip
def test_a_bad_data_set_is_one_line_that_names_it(kind: str, said: str, tmp_path: Path) -> None:
    place = tmp_path / "a"
    made: dict[str, Any] = {
        "no train": lambda: {"test": table(4)},
        "odd split": lambda: {"train": table(4), "extra": table(4)},
        "no image": lambda: table(4).remove_columns("image"),
        "one class": lambda: table(4, names=("owl",), label=[0] * 4),
    }
    if kind == "folder":
        place.mkdir()
    else:
        saved(made[kind](), place)
    with pytest.raises(DataError, match=said) as refused:
        hf.load(place)
    assert "\n" not in str(refused.value)


@needs_datasets
def test_a_row_without_an_image_is_reported_by_its_index(tmp_path: Path) -> None:
    found = table(4, image=[image(0), None, image(2), image(3)])
    splits = hf.load(saved(found, tmp_path / "a"))
    with pytest.raises(DataError, match="a/train/1: the row contains no image"):
        decode.load(splits.train.paths[1], splits.spec)  # type: ignore[union-attr]


def test_without_a_network_the_hub_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLKIT_HOME", str(tmp_path / "home"))
    for name in ("mnist", "ylecun/mnist", "owner/name:config"):
        with pytest.raises(StorageError, match=f"{name}: no such folder.*not in the cache, and DLKIT_OFFLINE"):
            hf.locate(name, True, str)
    for place in ("./not/here", "../up", "a/b/c"):
        with pytest.raises(DataError, match="no such folder"):
            hf.locate(place, True, str)
    (tmp_path / "home/datasets/hf/ylecun--mnist").mkdir(parents=True)
    assert hf.locate("ylecun/mnist", False, str).name == "ylecun--mnist"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """A hub with one data set, and an error for each other name; returns what it is asked for."""
    import datasets

    asked: list[tuple[Any, ...]] = []
    errors = {
        "gone": ConnectionError("Couldn't reach the Hub"),
        "unknown": datasets.exceptions.DatasetNotFoundError("Dataset 'unknown' doesn't exist"),
        "many": ValueError("Config name is missing.\nPlease pick one among: ['a', 'b']"),
        "program": RuntimeError("Dataset scripts are no longer supported, but found program.py"),
    }

    def load_dataset(name: str, configuration: str | None, cache_dir: str) -> Any:
        asked.append((name, configuration))
        if name in errors:
            raise errors[name]
        return datasets.DatasetDict({"train": table(8), "test": table(4)})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setenv("DLKIT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("DLKIT_OFFLINE")
    return asked


@needs_datasets
def test_a_data_set_of_the_hub_is_fetched_once_and_said(hub: list[tuple[Any, ...]], tmp_path: Path) -> None:
    said: list[str] = []
    for _ in range(2):
        splits = library.splits(Data(name="hf", dir="owner/set:small"), log=said.append)
        assert len(splits.train) == 8 and splits.test is not None and len(splits.test) == 4
    assert hub == [("owner/set", "small")] and len(said) == 1 and "owner/set:small" in said[0]
    there = [path.name for path in (tmp_path / "home/datasets/hf").iterdir()]
    assert sorted(name for name in there if not name.endswith(".lock")) == ["owner--set--small"]


@needs_datasets
@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("gone", StorageError, "gone: the Hugging Face hub cannot be reached: Couldn't reach"),
        ("unknown", DataError, "neither a public data set on the hub"), ("many", DataError, "Config name is missing"),
        ("program", DataError, "scripts are no longer supported"),
    ],
)  # fmt: skip
def test_what_the_hub_cannot_give_is_one_line_and_leaves_nothing(
    name: str, error: type[Exception], said: str, hub: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    with pytest.raises(error, match=said) as refused:
        library.splits(Data(name="hf", dir=name))
    assert "\n" not in str(refused.value) and hub == [(name, None)]
    left = [path.name for path in (tmp_path / "home/datasets/hf").iterdir()]
    assert [found for found in left if not found.endswith(".lock")] == []


def test_a_missing_package_is_named_with_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"python -m pip install 'dlkit\[hf\]'"):
        hf.load(tmp_path)


@needs_datasets
def test_a_person_trains_with_a_saved_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = saved(table(), tmp_path / "a")
    common = ["--set", "data.size=8", "-j", "0", "--epochs", "1", "--runs-dir", str(tmp_path / "runs")]
    assert run(["train", "mlp", "--dataset", f"hf:{place}", *common, "--name", "a", "-b", "4"]) == 0
    assert run(["eval", str(tmp_path / "runs/a"), "--split", "validation", "--json"]) == 0
    capsys.readouterr()
    assert run(["train", "mlp", "--dataset", f"hf:{tmp_path}/none", *common]) == 4
    assert "no such folder" in capsys.readouterr().err
