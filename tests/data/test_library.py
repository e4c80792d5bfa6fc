"""Data sets by name: they get into the cache whole or not at all, and what is altered there is noticed."""

from __future__ import annotations

import gzip
import multiprocessing
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import encoded, picture
from mnist_files import MNIST_HERE, made_up_mnist

from dlkit import cache
from dlkit.config.data_location import resolve_dataset
from dlkit.config.schema import Data
from dlkit.data import library
from dlkit.data.download import download as downloads
from dlkit.data.download import store as dataset_cache
from dlkit.data.splits import ImageFiles, MemoryImages
from dlkit.datasets import mnist
from dlkit.errors import DataError, StorageError, UsageError, VerificationError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no network."""
    monkeypatch.setenv("DLKIT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("DLKIT_OFFLINE", raising=False)

    def refuse(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(downloads.subprocess, "run", lambda *_, **__: pytest.fail("pip was started"))
    return tmp_path / "home"


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small made-up MNIST, packed, whose digests are taken for the true ones."""
    place = tmp_path / "copy"
    place.mkdir()
    made_up_mnist(place)
    contents = {}
    for path in sorted(place.iterdir()):
        contents[path.name] = (path.stat().st_size, downloads.digest(path))
        (place / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    monkeypatch.setattr(mnist, "CONTENTS", contents)
    return place


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_download_from_a_folder_then_load(copy: Path, home: Path) -> None:
    found = dataset_cache.download("mnist", str(copy))
    assert found.fetched and found.folder == home / "datasets" / "mnist" and len(found.files) == 4
    assert visible(home / "datasets") == ["mnist"]
    splits = library.splits(Data(name="mnist"))
    assert isinstance(splits.train, MemoryImages) and splits.train.images.shape == (60, 1, 28, 28)
    assert dataset_cache.verify("mnist").bytes == found.bytes


def test_download_of_what_is_there_only_verifies(copy: Path) -> None:
    dataset_cache.download("mnist", str(copy))
    assert not dataset_cache.download("mnist").fetched  # no source could have been reached


def test_other_compression_of_the_right_file_is_right(copy: Path) -> None:
    for path in copy.iterdir():
        path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), compresslevel=1))
    assert dataset_cache.download("mnist", str(copy)).fetched


@pytest.mark.parametrize("spoil", ["byte", "longer", "cut", "text", "empty"])
def test_wrong_copy_is_refused_and_nothing_is_left(spoil: str, copy: Path, home: Path) -> None:
    path = copy / "t10k-labels-idx1-ubyte.gz"
    content = gzip.decompress(path.read_bytes())
    spoilt = {
        "byte": gzip.compress(content[:-1] + bytes([content[-1] ^ 1])),
        "longer": gzip.compress(content + bytes(10_000_000)),
        "cut": path.read_bytes()[:-9],
        "text": b"<html>",
        "empty": b"",
    }
    path.write_bytes(spoilt[spoil])
    with pytest.raises(VerificationError, match="t10k-labels"):
        dataset_cache.download("mnist", str(copy))
    assert visible(home / "datasets") == []


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte", "manifest.json"])
@pytest.mark.parametrize("spoil", ["flip", "cut", "remove"])
def test_altered_cache_is_noticed_on_next_use_and_repaired(name: str, spoil: str, copy: Path, home: Path) -> None:
    dataset_cache.download("mnist", str(copy))
    path = home / "datasets" / "mnist" / name
    content = path.read_bytes()
    if spoil == "remove":
        path.unlink()
    else:
        middle = len(content) // 2
        path.write_bytes(
            content[:middle] + (b"" if spoil == "cut" else bytes([content[middle] ^ 1]) + content[middle + 1 :])
        )
    with pytest.raises(VerificationError, match=r"mnist.*dlkit dataset download mnist"):
        library.splits(Data(name="mnist"))
    said: list[str] = []
    assert dataset_cache.download("mnist", str(copy), log=said.append).fetched
    assert any("again" in line for line in said)
    dataset_cache.verify("mnist")
    assert visible(home / "datasets") == ["mnist"]


def test_unreachable_sources_are_all_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    class Failed:
        returncode, stderr = 1, "ERROR: Could not find a version\nERROR: No matching distribution found"

    monkeypatch.setattr(downloads.subprocess, "run", lambda *_, **__: Failed)
    with pytest.raises(StorageError) as failed:
        library.splits(Data(name="mnist"))
    message = str(failed.value)
    for part in ("ossci-datasets", "cvdf-datasets", "No matching distribution", "--from DIR"):
        assert part in message
    assert visible(home / "datasets") in ([], [".mnist.parts"])


def test_offline_names_the_way_out(monkeypatch: pytest.MonkeyPatch, copy: Path) -> None:
    monkeypatch.setenv("DLKIT_OFFLINE", "1")
    with pytest.raises(StorageError, match=r"DLKIT_OFFLINE.*--from") as refused:
        library.splits(Data(name="mnist"))
    assert refused.value.exit_code == 7
    dataset_cache.download("mnist", str(copy))
    library.splits(Data(name="mnist"))


def test_missing_set_may_be_left_missing() -> None:
    for ask in (
        lambda: library.splits(Data(name="mnist"), allow_download=False),
        lambda: dataset_cache.verify("mnist"),
    ):
        with pytest.raises(DataError, match="dlkit dataset download mnist"):
            ask()


def test_place_without_the_files_is_a_usage_error(tmp_path: Path, home: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="none of"):
        dataset_cache.download("mnist", str(tmp_path / "empty"))


@pytest.mark.parametrize("name", ["shapes", "folder"])
def test_what_needs_no_download_says_so(name: str) -> None:
    for ask in (dataset_cache.download, dataset_cache.verify):
        with pytest.raises(UsageError, match="nothing to download"):
            ask(name)


def test_misspelt_name_gets_the_nearest() -> None:
    with pytest.raises(UsageError, match="'mnist'"):
        library.splits(Data(name="mnsit"))


def test_size_and_channels_of_a_fixed_set(copy: Path) -> None:
    dataset_cache.download("mnist", str(copy))
    three = library.splits(Data(name="mnist", channels=3, size=28))
    assert isinstance(three.train, MemoryImages) and three.train.images.shape == (60, 3, 28, 28)
    assert three.spec.mean == (0.1307,) * 3 and (three.train.images[:, 0] == three.train.images[:, 2]).all()
    with pytest.raises(UsageError, match="28 × 28"):
        library.splits(Data(name="mnist", size=32))
    with pytest.raises(UsageError, match="--data-dir"):
        library.splits(Data(name="mnist", dir="here"))


def test_shapes_take_size_channels_and_options() -> None:
    splits = library.splits(Data(name="shapes", size=16, channels=1, options={"train": 8, "test": 4, "noise": 0}))
    assert isinstance(splits.train, MemoryImages) and splits.train.images.shape == (8, 1, 16, 16)
    for options in ({"size": "big"}, {"train": True}, {"size": 20}):
        with pytest.raises(UsageError, match=r"size|train"):
            library.splits(Data(name="shapes", size=16, options=options))
    with pytest.raises(UsageError, match="no option 'noize'"):
        library.splits(Data(name="shapes", options={"noize": 0.1}))


def test_folder_needs_a_place_and_takes_size(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        (tmp_path / "mine" / name / "1.png").write_bytes(encoded(picture(), "PNG"))
    splits = library.splits(Data(name="folder", dir=str(tmp_path / "mine"), size=32))
    assert isinstance(splits.train, ImageFiles) and splits.spec.height == 32
    with pytest.raises(UsageError, match="--data-dir"):
        library.splits(Data(name="folder"))


def test_listing_and_info_tell_the_state(copy: Path) -> None:
    states = {found.name: found.state for found in library.listing()}
    assert states["mnist"] == states["cifar10"] == states["emnist_letters"] == "not downloaded"
    assert states["folder"] == "your own" and states["shapes"] == "built in"
    assert library.info("mnist").folder is None
    dataset_cache.download("mnist", str(copy))
    info = library.info("mnist")
    assert info.state == "cached" and info.folder is not None and len(info.files) == 4
    assert info.sizes == {"train": 60_000, "test": 10_000} and len(info.sources["train-images-idx3-ubyte.gz"]) == 2


def test_cache_that_cannot_be_written_says_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DLKIT_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(StorageError, match="DLKIT_HOME"):
        dataset_cache.download("mnist")
    monkeypatch.setenv("DLKIT_HOME", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(StorageError, match="DLKIT_HOME"):
        dataset_cache.download("mnist")


def test_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache.datasets_dir() == tmp_path / "home" / "datasets"
    monkeypatch.delenv("DLKIT_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.weights_dir() == tmp_path / "dlkit" / "weights"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.home().name == "dlkit"


def _download_in_child(copy: Path, broken_lock: bool, results: Any) -> None:
    if broken_lock:
        import fcntl

        fcntl.flock = lambda *_: None
    try:
        results.put(str(dataset_cache.download("mnist", str(copy)).fetched))
    except Exception as error:
        results.put(repr(error))


@pytest.mark.parametrize("broken_lock", [False, True])
def test_many_processes_leave_one_right_set(broken_lock: bool, copy: Path, home: Path) -> None:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    children = [context.Process(target=_download_in_child, args=(copy, broken_lock, results)) for _ in range(6)]
    for child in children:
        child.start()
    answers = [results.get(timeout=60) for _ in children]
    for child in children:
        child.join()
    assert set(answers) <= {"True", "False"} and (broken_lock or answers.count("True") == 1)
    assert visible(home / "datasets") == ["mnist"]
    dataset_cache.verify("mnist")


@pytest.mark.parametrize("how_late", ["before it looks", "after it looked"])
def test_who_loses_a_race_without_locks_leaves_all_as_it_is(
    how_late: str, copy: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another has put the set in place meanwhile, and a third may be reading it."""
    shutil.copytree(dataset_cache.download("mnist", str(copy)).folder, tmp_path / "another")
    shutil.rmtree(home / "datasets" / "mnist")

    def another_is_quicker(*given: Any) -> Any:
        (tmp_path / "another").rename(home / "datasets" / "mnist")
        return slower(*given)

    where = "_write_manifest" if how_late == "before it looks" else "install_folder"
    slower = getattr(dataset_cache, where)
    monkeypatch.setattr(dataset_cache, where, another_is_quicker)
    anothers = (tmp_path / "another").stat().st_ino
    assert not dataset_cache.download("mnist", str(copy)).fetched
    assert visible(home / "datasets") == ["mnist"] and (home / "datasets" / "mnist").stat().st_ino == anothers


def test_killed_download_leaves_no_set_and_the_next_one_tidies_up(copy: Path, home: Path) -> None:
    child = multiprocessing.get_context("fork").Process(target=_die_before_renaming, args=(copy,))
    child.start()
    child.join()
    assert child.exitcode == -9 and "mnist" not in visible(home / "datasets") and visible(home / "datasets")
    assert dataset_cache.download("mnist", str(copy)).fetched
    assert visible(home / "datasets") == ["mnist"]


def _die_before_renaming(copy: Path) -> None:
    dataset_cache.install_folder = lambda *_: os.kill(os.getpid(), 9)
    dataset_cache.download("mnist", str(copy))


@pytest.mark.skipif(not MNIST_HERE.is_dir(), reason="no local copy of MNIST beside the project")
def test_real_mnist_passes_its_pinned_digests(home: Path) -> None:
    assert dataset_cache.download("mnist", str(MNIST_HERE)).bytes == sum(size for size, _ in mnist.CONTENTS.values())
    splits = library.splits(Data(name="mnist"))
    assert len(splits.train) == 60_000 and splits.test is not None and len(splits.test) == 10_000
    assert np.bincount(splits.test.targets).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    shutil.rmtree(home)


def test_a_data_set_is_named_or_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """info, check and pack take the same: a name comes before a folder that is called like it."""
    monkeypatch.chdir(tmp_path)
    for name in ("mnist", "photos", "a:b"):
        (tmp_path / name).mkdir()
    assert resolve_dataset("mnist") == ("mnist", None)
    assert resolve_dataset("./mnist") == ("folder", "./mnist")
    assert resolve_dataset("photos") == ("folder", "photos")
    assert resolve_dataset("a:b") == ("folder", "a:b")
    assert resolve_dataset("wds:shards") == resolve_dataset("wds", "shards") == ("wds", "shards")
    with pytest.raises(UsageError, match="Give one"):
        resolve_dataset("wds:shards", "others")
    for given, place in (("photo", None), ("mnits", None), ("photos", "there"), ("mnits:there", None)):
        with pytest.raises(UsageError, match=f"data set '{given}' not found"):
            resolve_dataset(given, place)
    with pytest.raises(DataError, match="no such folder, table or shard"):
        resolve_dataset("./mnits")


def test_a_path_is_read_by_the_data_set_for_what_lies_there(tmp_path: Path) -> None:
    """As people lay their data out; the model decides between images and texts where both could be meant."""
    for name in ("images/a/1.png", "texts/good/1.txt", "splits/Train/a/1.png", "splits/train.csv", "tables/train.csv",
                 "tables/1.png", "shards/train/0.tar", "shards/classnames.txt", "trees/train.txt", "one.csv", "one.tsv",
                 "one.tar", "archive/a/1.png", "archive/all.tar", "saved/dataset_dict.json"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text,label\n")
    (tmp_path / "one.pack").write_bytes(bytes(8) + b'{"__metadata__": {"schema": "dlkit.pack/1"')
    images, sequences, trees = ("images",), ("sequences",), ("trees",)
    readers = {
        ("images", images): "folder", ("images", ()): "folder", ("texts", ()): "text_folder",
        ("texts", sequences): "text_folder", ("splits", images): "folder", ("tables", images): "csv",
        ("tables", sequences): "text_csv", ("shards", images): "wds", ("trees", trees): "trees",
        ("trees", sequences): "trees", ("one.csv", images): "csv", ("one.tsv", sequences): "text_csv",
        ("one.csv", ()): "text_csv", ("one.tar", images): "wds", ("one-{0..9}.tar", ()): "wds",
        ("archive", images): "folder", ("saved", images): "hf", ("one.pack", images): "packed",
    }  # fmt: skip
    for (name, takes), reader in readers.items():
        assert resolve_dataset(str(tmp_path / name), None, takes) == (reader, str(tmp_path / name)), (name, takes)
    (tmp_path / "photos.zip").touch()
    with pytest.raises(UsageError, match="not a folder, a table"):
        resolve_dataset(str(tmp_path / "photos.zip"))
