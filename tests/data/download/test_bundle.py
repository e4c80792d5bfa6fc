"""Bundles: data sets get from one cache into another as they are, or not at all."""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from corpus import ARCHIVES, Bad, tar_member, tar_of
from mnist_files import made_up_mnist

from dlkit import cache, documents
from dlkit.config.schema import Data
from dlkit.data import library
from dlkit.data.download import bundle
from dlkit.data.download import store as dataset_cache
from dlkit.data.download.download import digest
from dlkit.datasets import mnist
from dlkit.errors import DataError, StorageError, UsageError, VerificationError
from dlkit_cli.main import run


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with a small made-up MNIST, whose digests are taken for the true ones."""
    monkeypatch.setenv("DLKIT_HOME", str(tmp_path / "here"))
    copy = tmp_path / "copy"
    copy.mkdir()
    made_up_mnist(copy)
    contents = {path.name: (path.stat().st_size, digest(path)) for path in sorted(copy.iterdir())}
    for path in list(copy.iterdir()):
        (copy / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    monkeypatch.setattr(mnist, "CONTENTS", contents)
    dataset_cache.download("mnist", str(copy))
    return tmp_path


@pytest.fixture
def elsewhere(here: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """Called, it moves to a machine with an empty cache."""

    def move() -> Path:
        monkeypatch.setenv("DLKIT_HOME", str(here / "there"))
        return here / "there" / "datasets"

    return move


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock")) if folder.is_dir() else []


def test_what_is_bundled_is_there_after_unbundling(here: Path, elsewhere: Callable[[], Path]) -> None:
    made = bundle.bundle(["mnist", "mnist"], here / "b.tar")
    before = {file.name: file.sha256 for file in dataset_cache.verify("mnist").files}
    assert made.names == ("mnist",) and made.sha256 == digest(here / "b.tar") and made.bytes > 10_000
    there = elsewhere()
    (found,) = bundle.unbundle(here / "b.tar")
    assert found.folder == there / "mnist" and {file.name: file.sha256 for file in found.files} == before
    assert visible(there) == ["mnist"] and len(library.splits(Data(name="mnist")).train) == 60


def test_equal_sets_give_an_equal_file_and_what_is_here_is_left_alone(here: Path) -> None:
    one, two = (bundle.bundle(["mnist"], here / name) for name in ("a.tar", "b.tar"))
    assert one.sha256 == two.sha256
    before = os.stat(cache.datasets_dir() / "mnist").st_ino
    said: list[str] = []
    bundle.unbundle(here / "a.tar", log=said.append)
    assert os.stat(cache.datasets_dir() / "mnist").st_ino == before and said == ["mnist: in the cache already"]


def test_a_damaged_set_in_the_cache_gives_way(here: Path) -> None:
    bundle.bundle(["mnist"], here / "b.tar")
    (cache.datasets_dir() / "mnist" / "t10k-labels-idx1-ubyte").write_bytes(b"")
    with pytest.raises(VerificationError):
        bundle.bundle(["mnist"], here / "other.tar")
    assert not (here / "other.tar").exists()
    bundle.unbundle(here / "b.tar")
    dataset_cache.verify("mnist")


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]


def rewritten(path: Path, content: dict[str, bytes]) -> None:
    path.write_bytes(tar_of(*(tar_member(name, data) for name, data in content.items())))


LABELS = "mnist/t10k-labels-idx1-ubyte"


def altered(content: dict[str, bytes], kind: str) -> dict[str, bytes]:
    manifest = json.loads(content["mnist/manifest.json"])
    del manifest[documents.DIGEST]
    if kind in ("byte", "byte and manifest"):
        content[LABELS] = content[LABELS][:-1] + bytes([content[LABELS][-1] ^ 1])
    if kind == "byte and manifest":  # its author made both agree; dlkit's own digest does not
        (name,) = [name for name in manifest["files"] if name.startswith("t10k-labels")]
        path = Path(os.environ["DLKIT_HOME"]) / "x"
        path.write_bytes(content[LABELS])
        manifest["files"][name]["sha256"] = digest(path)
        content["mnist/manifest.json"] = json.dumps(documents.sealed(manifest)).encode()
    if kind == "missing":
        del content[LABELS]
    if kind == "more":
        content["mnist/extra"] = b"x"
    if kind == "outside":
        manifest["files"]["../../canary"] = {"bytes": 1, "sha256": "0"}
        content["mnist/manifest.json"] = json.dumps(documents.sealed(manifest)).encode()
    if kind == "manifest":
        content["mnist/manifest.json"] = b"[]"
    if kind == "second set":
        content = {"aaa_first/manifest.json": b'{"files": {}}', **content}
    return content


@pytest.mark.parametrize(
    ("kind", "error", "said"),
    [
        ("byte", VerificationError, r"b\.tar: mnist/t10k-labels.*SHA-256 .* instead of .*Nothing was installed"),
        ("byte and manifest", VerificationError, "SHA-256 .* instead of"),
        ("missing", VerificationError, "not in both"),
        ("more", VerificationError, "mnist/extra: .*not in both"),
        ("outside", VerificationError, "not in both"),
        ("manifest", VerificationError, r"manifest\.json: missing or damaged"),
        ("second set", DataError, "'aaa_first', which this dlkit does not download"),
    ],
)
def test_an_altered_bundle_is_refused_whole(
    kind: str, error: type[Exception], said: str, here: Path, elsewhere: Callable[[], Path]
) -> None:
    bundle.bundle(["mnist"], here / "b.tar")
    rewritten(here / "b.tar", altered(members(here / "b.tar"), kind))
    there = elsewhere()
    with pytest.raises(error, match=said) as refused:
        bundle.unbundle(here / "b.tar")
    assert visible(there) == [] and "\n" not in str(refused.value)


@pytest.mark.parametrize("bad", ARCHIVES, ids=str)
def test_a_hostile_archive_leaves_the_cache_as_it_was(bad: Bad, here: Path, elsewhere: Callable[[], Path]) -> None:
    bad.make(here / bad.name)
    there = elsewhere()
    there.mkdir(parents=True)
    (there.parent / "canary").write_text("alive")
    with pytest.raises(VerificationError) as refused:
        bundle.unbundle(here / bad.name)
    assert visible(there) == [] and refused.value.exit_code == 6 and (there.parent / "canary").read_text() == "alive"


def test_a_tar_that_is_no_bundle_is_told(here: Path) -> None:
    rewritten(here / "b.tar", {"photos/1.jpg": b"x"})
    for name, said in (("b.tar", "not a bundle of data sets"), ("none.tar", "no such file")):
        with pytest.raises(DataError, match=said):
            bundle.unbundle(here / name)


def test_only_what_is_downloaded_and_here_can_be_bundled(here: Path) -> None:
    for name, error in (("shapes", UsageError), ("folder", UsageError), ("cifar10", DataError)):
        with pytest.raises(error):
            bundle.bundle(["mnist", name], here / "b.tar")
    with pytest.raises(StorageError):
        bundle.bundle(["mnist"], here / "nowhere" / "b.tar")
    assert visible(here) == ["copy", "here"]


def test_a_full_disk_leaves_neither_a_bundle_nor_a_set(
    here: Path, elsewhere: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle.bundle(["mnist"], here / "b.tar")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="disk full"):
            bundle.bundle(["mnist"], here / "c.tar")
    there = elsewhere()
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StorageError, match="disk full"):
        bundle.unbundle(here / "b.tar")
    assert visible(here) == ["b.tar", "copy", "here", "there"] and visible(there) == []


def test_a_person_carries_a_set_over(
    here: Path, elsewhere: Callable[[], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["dataset", "bundle", "mnist", "-o", str(here / "b.tar")]) == 0
    told = capsys.readouterr()
    assert told.out == f"{here / 'b.tar'}\n" and f"SHA-256 {digest(here / 'b.tar')}" in told.err
    there = elsewhere()
    assert run(["dataset", "unbundle", str(here / "b.tar"), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row == {"schema": "dlkit.dataset/1", "name": "mnist", "bytes": row["bytes"], "folder": str(there / "mnist")}
    assert run(["dataset", "bundle", "mnist"]) == 2 and run(["dataset", "bundle", "cifar10", "-o", "x.tar"]) == 4
    assert run(["dataset", "unbundle", str(here / "copy")]) == 4
    (here / "b.tar").write_bytes(io.BytesIO((here / "b.tar").read_bytes()).read(3000))
    assert run(["dataset", "unbundle", str(here / "b.tar")]) == 6
