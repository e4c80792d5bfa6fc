"""reproduce, and what a resume says of data that changed: on images of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import run_folders
from PIL import Image
from tiny_training import same_bits

import dlkit
from dlkit import atomic_io
from dlkit.config import yaml_file
from dlkit.config.resolve import with_changes
from dlkit.data.fingerprint import read_files
from dlkit.datasets import shapes
from dlkit.errors import DataError, ModelFileError, StoppedError, UsageError
from dlkit.experiments.reproduce import reproduce
from dlkit.runs.run_folder import RunFolder
from dlkit.training.train import Watch, resume_run, train_recipe
from dlkit_cli import main

SETTINGS = {
    "data.options.test": 0.0, "data.options.group": "", "optimizer.name": "adam", "optimizer.lr": 0.001,
    "optimizer.weight_decay": 0.0,
    "data.size": 12, "data.workers": 0, "data.augment.horizontal_flip": 0.5, "model.options.hidden": "8",
    "model.options.dropout": 0.2, "train.epochs": 3, "train.threads": 1, "train.batch_size": 8, "train.ema": 0.9,
    "train.monitor": "train/loss",
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty images in class folders, without a validation split of their own, and a run on them; all paths relative."""
    root = tmp_path_factory.mktemp("made")
    found = shapes.load(None, train=40, test=8).train
    for index, (image, target) in enumerate(zip(found.images, found.targets, strict=True)):  # type: ignore[union-attr]
        folder = root / "pictures" / f"class {target % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{index}.png")
    with contextlib.chdir(root):
        dlkit.train("mlp", dataset="folder", data_dir="pictures", settings=SETTINGS, name="a")
    return root


@pytest.fixture
def run(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A copy of both, to spoil; the run's data is the copy."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True, symlinks=True)
    monkeypatch.chdir(tmp_path)
    copy = RunFolder(tmp_path / "runs" / "a")
    recipe = with_changes(copy.recipe(), {"data.dir": str(tmp_path / "pictures")})
    atomic_io.write_text(copy.path / "recipe.yaml", yaml_file.dump(recipe))
    copy.update(recipe=recipe.model_dump(mode="json"))
    return copy


@pytest.fixture
def pictures(run: RunFolder) -> Path:
    return Path("pictures")


def flip_last_byte(path: Path) -> None:
    """One byte of a file, its size and its times kept."""
    content, times = path.read_bytes(), path.stat()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_an_untouched_run_comes_out_again(run: RunFolder) -> None:
    result = reproduce(run)
    assert result.equal and (result.epochs, result.compared) == (3, 3) and result.environment == ()
    assert result.weights_sha256 == run.metrics()[-1]["weights_sha256"]
    again = RunFolder(Path(str(result.reproduced)))
    assert again.name == "a-reproduced" and same_bits(run, again) and again.info()["status"] == "finished"
    assert reproduce(run, epochs=1).reproduced == f"{again.path}-2"


def test_one_changed_byte_in_one_training_image_is_found_before_training(run: RunFolder, pictures: Path) -> None:
    changed = read_files(run.data_files)["train"][3].path
    flip_last_byte(pictures / changed)
    result = reproduce(run)
    assert result.difference is not None and (result.difference.what, result.difference.name) == ("data file", changed)
    assert result.reproduced is None and sorted(os.listdir(run.path.parent)) == ["a", "latest"]
    assert changed in result.verdict()


def test_an_edited_recipe_is_named_by_reproduce_and_refused_by_resume(run: RunFolder) -> None:
    recipe = run.path / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("lr: 0.001", "lr: 0.002"))
    difference = reproduce(run).difference
    assert difference is not None and str(difference) == "optimizer.lr was 0.001, is 0.002"
    with pytest.raises(ModelFileError, match=r"optimizer\.lr was 0\.001, is 0\.002"):
        resume_run(run, changes={}, inexact=False, say=str, progress=False)


def test_the_first_epoch_that_differs_ends_it(run: RunFolder) -> None:
    lines = run.metrics()
    lines[1]["weights_sha256"] = "0" * 64
    run_folders.rewrite_metrics(run, lines)
    result = reproduce(run)
    assert not result.equal and result.epochs == 1 and "epoch 2" in result.verdict()
    again = RunFolder(Path(str(result.reproduced)))
    assert len(again.metrics()) == 2 and again.info()["status"] == "failed"


def test_other_weights_at_the_start_are_found_before_the_first_step(run: RunFolder) -> None:
    run.update(weights_sha256="0" * 64)
    result = reproduce(run)
    assert result.difference is not None and "at the start" in result.difference.name and result.reproduced is None


def test_another_torch_is_said_before_and_in_the_verdict(run: RunFolder) -> None:
    info, said = run.info(), list[str]()
    run.update(versions={**info["versions"], "torch": "1.0"}, hardware={**info["hardware"], "cpu": "abacus"})
    result = reproduce(run, epochs=1, say=said.append)
    assert result.equal and [difference.name for difference in result.environment] == ["torch", "cpu"]
    warned = next(place for place, line in enumerate(said) if line.startswith("warning: ") and "torch was 1.0" in line)
    assert warned < said.index("epoch 1: equal weights") and "cpu was abacus" in result.verdict()


def test_the_first_epochs_alone_keep_the_whole_schedule_and_can_be_gone_on_with(run: RunFolder) -> None:
    result = reproduce(run, epochs=2, name="b")
    again = RunFolder(Path(str(result.reproduced)))
    assert result.equal and again.info()["status"] == "stopped" and again.info()["epochs"] == 2
    resume_run(again, changes={}, inexact=False, say=str, progress=False)
    assert same_bits(run, again)


@pytest.mark.parametrize("pauses", [[], pytest.param([7], marks=pytest.mark.slow), [3, 7]])
def test_a_run_that_was_extended_is_replayed_as_it_happened(pauses: list[int], run: RunFolder) -> None:
    """Two epochs of five steps on a cosine, stopped at some steps to go on for more epochs each time."""
    recipe = with_changes(run.recipe(), {"schedule.name": "cosine", "train.epochs": 2})
    with contextlib.suppress(StoppedError):
        train_recipe(
            recipe, name="c", runs_dir=run.path.parent, argv=[], say=str, progress=False,
            watch=Watch(steps=(pauses or [None])[0]),
        )  # fmt: skip
    extended = RunFolder(run.path.parent / "c")
    for epochs, pause in zip((3, 4, 5), [*pauses[1:], None], strict=False):
        with contextlib.suppress(StoppedError):
            changes = {"train.epochs": epochs, "train.log_every": epochs}
            resume_run(extended, changes=changes, inexact=False, say=str, progress=False, watch=Watch(steps=pause))
    said: list[str] = []
    result = reproduce(extended, say=said.append)
    assert result.equal and result.epochs == 3 + max(len(pauses) - 1, 0), result.verdict()
    straight = dlkit.train(recipe=extended.path / "recipe.yaml", runs_dir=run.path.parent, name="straight")
    first = [next(line for line in one.metrics() if "weights_sha256" in line) for one in (straight, extended)]
    assert first[0]["weights_sha256"] != first[1]["weights_sha256"]  # its recipe alone has another schedule
    assert reproduce(extended, epochs=1).equal


def test_there_must_be_something_to_compare_with(run: RunFolder) -> None:
    with pytest.raises(UsageError, match="has 3 to compare"):
        reproduce(run, epochs=4)
    lines = run.metrics()
    run_folders.rewrite_metrics(run, [])
    with pytest.raises(UsageError, match="not finished an epoch"):
        reproduce(run)
    for line in lines:
        del line["weights_sha256"]
    run_folders.rewrite_metrics(run, lines)
    run.update(weights_sha256=None)
    old = {key: value for key, value in run.info().items() if key != "weights_sha256"}
    (run.path / "run.json").write_text(json.dumps(old))
    with pytest.raises(ModelFileError, match="older dlkit"):
        reproduce(run)


def test_the_command_exits_6_and_names_the_file(
    run: RunFolder, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["reproduce", "a", "--runs-dir", str(run.path.parent), "--epochs", "1"]
    assert main.run(words) == 0
    assert capsys.readouterr().out.startswith("run a is reproduced: 1 of 1 epochs have equal weights (SHA-256 ")
    changed = read_files(run.data_files)["train"][0].path
    flip_last_byte(pictures / changed)
    assert main.run([*words, "--json"]) == 6
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert document["schema"] == "dlkit.reproduce/1" and document["equal"] is False
    assert document["difference"]["name"] == changed and changed in err.splitlines()[-1]


def add(pictures: Path, file: Path) -> None:
    (file.parent / "new.png").write_bytes(file.read_bytes())


def remove(pictures: Path, file: Path) -> None:
    file.unlink()


def rename(pictures: Path, file: Path) -> None:
    file.rename(file.with_name("other.png"))


def alter(pictures: Path, file: Path) -> None:
    flip_last_byte(file)


def swap_labels(pictures: Path, file: Path) -> None:
    one, other = (sorted((pictures / name).iterdir())[0] for name in ("class 0", "class 1"))
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


CHANGES: dict[Callable[[Path, Path], None], str] = {
    add: r"1 added: class ./new\.png",
    remove: r"1 removed: class ./\d+\.png",
    rename: r"1 removed: class ./\d+\.png; 1 added: class ./other\.png",
    alter: r"1 altered: class ./\d+\.png",
    swap_labels: r"2 altered: class 0/\d+\.png, class 1/\d+\.png",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_resume_on_changed_data_lists_what_changed(
    run: RunFolder, pictures: Path, change: Callable[[Path, Path], None]
) -> None:
    change(pictures, pictures / read_files(run.data_files)["train"][5].path)
    with pytest.raises(DataError, match=CHANGES[change]) as caught:
        resume_run(run, changes={}, inexact=False, say=str, progress=False)
    assert caught.value.exit_code == 4 and "\n" not in str(caught.value)
