"""A person's own images obey the same laws whatever they lie in: a folder, a table, tar shards, a saved data set."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from corpus import encoded, picture
from PIL import Image
from same_images import as_folder, as_saved, as_shards, as_table

import dlkit
from dlkit.config.schema import Augment, Data
from dlkit.data import library
from dlkit.data.checks import check as dataset_check
from dlkit.data.fingerprint import fingerprint
from dlkit.data.images import decode, pack, user_images
from dlkit.data.loader import TrainingData, split
from dlkit.data.splits import ImageFiles, Splits
from dlkit.datasets import folder as folders
from dlkit.errors import DataError, UsageError
from dlkit.runs.run_folder import RunFolder
from dlkit.training import checkpoint, loop, train

SETTINGS = {
    "data.size": 28, "data.workers": 0, "train.epochs": 2, "train.batch_size": 16, "train.threads": 1,
    "train.device": "cpu", "model.options.hidden": "16", "data.augment.horizontal_flip": 0.5,
}  # fmt: skip
needs_datasets = pytest.mark.skipif(importlib.util.find_spec("datasets") is None, reason="datasets is not installed")
every_form = pytest.mark.parametrize("name", ["csv", "wds", pytest.param("hf", marks=needs_datasets)])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return as_folder(tmp_path_factory.mktemp("own") / "folder")


@pytest.fixture(scope="module")
def places(root: Path) -> dict[str, Path]:
    beside = root.parent
    found = {"folder": root, "csv": as_table(root, beside / "table"), "wds": as_shards(root, beside / "wds")}
    return found if importlib.util.find_spec("datasets") is None else found | {"hf": as_saved(root, beside / "hf")}


def read(name: str, places: dict[str, Path], **options: Any) -> Splits:
    return library.splits(Data(name=name, dir=str(places[name]), size=28, options=options))


def trained(name: str, places: dict[str, Path], runs_dir: Path, run: str) -> RunFolder:
    return dlkit.train("mlp", dataset=f"{name}:{places[name]}", settings=SETTINGS, name=run, runs_dir=runs_dir)


@pytest.fixture(scope="module")
def gold(places: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The weights that the folder's images give."""
    return weights(trained("folder", places, tmp_path_factory.mktemp("gold"), "gold"))


def weights(run: RunFolder) -> dict[str, torch.Tensor]:
    return checkpoint.newest(run.checkpoints, run.info()["run_id"], str).tensors


@every_form
def test_every_form_has_the_images_and_classes_of_the_folder(name: str, places: dict[str, Path]) -> None:
    ours, theirs = read(name, places), read("folder", places)
    assert ours.spec == theirs.spec and ours.validation is None
    for part in ("train", "test"):
        mine, other = getattr(ours, part), getattr(theirs, part)
        assert isinstance(mine, ImageFiles) and (mine.targets == other.targets).all() and len(mine) > 30
        for one, two in zip(mine.paths[::7], other.paths[::7], strict=True):
            assert (decode.load(one, ours.spec) == decode.load(two, ours.spec)).all()


@every_form
def test_workers_do_not_change_what_is_read(name: str, places: dict[str, Path]) -> None:
    splits = read(name, places)
    augment = Augment(horizontal_flip=0.5, resized_crop=(0.5, 1.0))

    def batches(workers: int) -> list[torch.Tensor]:
        data = TrainingData(splits.train, splits.spec, augment, 32, seed=3, device=torch.device("cpu"), workers=workers)
        return [batch.inputs for batch in data.epoch(1)]

    one = batches(0)
    for workers in (1, 2):
        assert all(torch.equal(a, b) for a, b in zip(one, batches(workers), strict=True))


@every_form
def test_a_form_trains_to_the_folders_weights_and_a_stopped_run_ends_like_it(
    name: str, places: dict[str, Path], gold: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, steps = loop.forward_backward, 0

    def interrupted(run: loop.Run, batch: loop.Batch) -> tuple[torch.Tensor, torch.Tensor]:
        nonlocal steps
        steps += 1
        if steps == 8:
            raise KeyboardInterrupt
        return original(run, batch)

    monkeypatch.setattr(loop, "forward_backward", interrupted)
    monkeypatch.setitem(SETTINGS, "train.checkpoint_every", 3)
    with pytest.raises(KeyboardInterrupt):
        trained(name, places, tmp_path, "own")
    monkeypatch.setattr(loop, "forward_backward", original)
    run = RunFolder(tmp_path / "own")
    assert checkpoint.saved_steps(run.checkpoints)[-1] == 6
    train.resume_run(run, changes={}, inexact=False, say=str, progress=False)
    own = weights(run)
    assert own.keys() == gold.keys() and all(torch.equal(own[key], gold[key]) for key in gold)
    found = dlkit.evaluate(run, say=str)
    assert found.samples == 32 and (run.path / "predictions.jsonl").read_text().count("\n") == 32


@every_form
def test_the_fingerprint_sees_other_labels_and_other_images(name: str, places: dict[str, Path]) -> None:
    splits = read(name, places)
    whole, part = splits.train, read(name, places, test=0.0).train
    assert isinstance(whole, ImageFiles)
    once = fingerprint(whole, splits.spec.classes)
    assert once == fingerprint(part, splits.spec.classes)
    exchanged = ImageFiles(whole.paths, whole.targets[::-1].copy())
    fewer = ImageFiles(list(whole.paths[1:]), whole.targets[1:])
    assert len({once, *(fingerprint(samples, splits.spec.classes) for samples in (exchanged, fewer))}) == 3


@every_form
def test_a_damaged_image_is_one_line_that_names_it(name: str, places: dict[str, Path], tmp_path: Path) -> None:
    splits = read(name, places)
    assert isinstance(splits.train, ImageFiles)

    class Damaged:
        size = 3

        def read(self) -> bytes:
            return b"abc"

        def __str__(self) -> str:
            return str(splits.train.paths[0])  # type: ignore[union-attr]

    with pytest.raises(DataError, match="not an image") as refused:
        decode.load(Damaged(), splits.spec)
    assert str(refused.value).startswith(str(splits.train.paths[0])) and "\n" not in str(refused.value)


@every_form
def test_a_form_is_checked_and_packed_like_a_folder(name: str, places: dict[str, Path], tmp_path: Path) -> None:
    report = dataset_check.check(f"{name}:{places[name]}", workers=1)
    assert report.images == 128 and report.splits == dataset_check.check(str(places["folder"]), workers=1).splits
    found = pack.pack(Data(name=name, dir=str(places[name]), size=28), tmp_path / "a.pack", workers=0)
    assert found.sizes == {"train": 96, "test": 32}


def folder_of(tmp_path: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"{number}".encode() * (number + 1))
    return tmp_path


def test_a_test_split_by_ratio_is_the_same_for_every_seed_and_shares_nothing(root: Path) -> None:
    splits = folders.load(root / "train", test=0.25)
    assert splits.test is not None and len(splits.test) == 24 and len(splits.train) == 72
    seeds = [split(splits, 0.2, seed) for seed in (0, 1)]
    tests = [[str(path) for path in parts["test"].paths] for parts in seeds]  # type: ignore[union-attr]
    assert tests[0] == tests[1]
    for parts in seeds:
        paths = [str(path) for part in parts.values() for path in part.paths]  # type: ignore[union-attr]
        assert len(paths) == len(set(paths)) == 96
    assert (np.bincount(splits.test.targets) > 0).all()


def test_files_of_a_group_are_never_cut_apart(tmp_path: Path) -> None:
    names = [f"{kind}/patient{who}_{shot}.png" for kind in ("ill", "well") for who in range(20) for shot in range(3)]
    splits = folders.load(folder_of(tmp_path, *names), test=0.2, group="(patient[0-9]+)_")
    for seed in range(5):
        parts = split(splits, 0.25, seed)
        who = {name: {path.name.split("_")[0] for path in part.paths} for name, part in parts.items()}  # type: ignore[union-attr]
        assert not who["train"] & who["validation"] and not who["test"] & (who["train"] | who["validation"])
        assert set.union(*who.values()) == {f"patient{number}" for number in range(20)}
        assert [len(parts[name]) for name in ("test", "validation")] == [24, 24]


def test_an_invalid_group_pattern_is_reported(tmp_path: Path) -> None:
    folder_of(tmp_path, "a/x1.png", "a/x2.png", "b/x3.png", "b/other.png")
    with pytest.raises(UsageError, match="not a regular expression"):
        folders.load(tmp_path, group="(x")
    with pytest.raises(DataError, match=r"does not match 'b/other\.png'"):
        folders.load(tmp_path, group="x[0-9]")


def test_a_test_share_beside_a_test_split_or_out_of_range_is_refused(root: Path) -> None:
    for options, said in (({"test": 0.1}, "has a test split"), ({"test": 1.0}, "fraction")):
        with pytest.raises(UsageError, match=said):
            folders.load(root, **options)


def test_a_class_that_a_cut_leaves_out_is_said(tmp_path: Path) -> None:
    names = [f"a/{number}.png" for number in range(9)] + ["b/only.png"]
    splits = folders.load(folder_of(tmp_path, *names), test=0.2)
    assert "the test split has no image of 'b'." in splits.warnings


def test_what_is_missing_is_counted_where_it_is_much() -> None:
    samples = ImageFiles([], np.array([], dtype=np.int64))
    (line,) = user_images.missing_class_notes("test", samples, tuple(f"c{number}" for number in range(13)))
    assert line.endswith("'c9' and 3 more.")


def test_a_place_told_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Give one"):
        dlkit.train("mlp", dataset=f"csv:{tmp_path}/a.csv", data_dir=tmp_path / "b.csv", runs_dir=tmp_path)


def test_near_copies_stay_on_one_side_of_the_cut_with_group_near(tmp_path: Path) -> None:
    for number in range(30):
        path = tmp_path / f"{'ab'[number % 2]}/{number}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encoded(picture(48, 48, seed=number), "PNG"))
        if number < 12:
            turned = picture(48, 48, seed=number).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            path.with_name(f"{number}_again.jpg").write_bytes(encoded(turned, "JPEG", quality=80))
    (tmp_path / "b/broken.png").write_bytes(b"x")  # which training names: it is in a group of its own

    def sides(group: str, seed: int) -> list[set[str]]:
        parts = split(folders.load(tmp_path, group=group, size=8), 0.3, seed)
        names: dict[str, set[str]] = {}
        for name, part in parts.items():
            assert isinstance(part, ImageFiles)
            for path in part.paths:
                names.setdefault(Path(str(path)).stem.removesuffix("_again"), set()).add(name)
        return [found for number, found in sorted(names.items()) if number != "broken" and int(number) < 12]

    assert any(len(found) == 2 for found in sides("", 0))
    for seed in range(3):
        assert all(len(found) == 1 for found in sides("near", seed)) and sides("near", seed) == sides("near", seed)
