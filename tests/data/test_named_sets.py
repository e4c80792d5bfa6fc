"""The named data sets: files made up in the published form become the splits that were put in."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dlkit.config.schema import Data
from dlkit.data import library
from dlkit.data.download import idx, mat
from dlkit.data.download import store as dataset_cache
from dlkit.data.download.archives import extract as archive_extract
from dlkit.data.download.http import UnreachableError
from dlkit.data.splits import ImageFiles, MemoryImages, pixel_statistics
from dlkit.datasets import cifar100, emnist, fashion_mnist, imagenet, imagenette, kmnist, sst, svhn
from dlkit.datasets.cifar100 import SOURCES
from dlkit.errors import UsageError, VerificationError

RNG = np.random.default_rng(0)
Download = Callable[[str], Path]
SST_FILES = Path(__file__).resolve().parents[3] / "shared" / "data" / "sst"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where the published files lie."""
    (tmp_path / "published").mkdir()
    (tmp_path / "cached").mkdir()
    return tmp_path / "published"


@pytest.fixture
def cached(place: Path) -> Path:
    return place.with_name("cached")


def pixels(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape, np.uint8)


def test_statistics_are_those_of_the_scaled_pixels() -> None:
    images = pixels(20, 3, 5, 7)
    mean, std = pixel_statistics(images)
    scaled = images / 255
    assert mean == tuple(scaled.mean((0, 2, 3)).round(4)) and std == tuple(scaled.std((0, 2, 3)).round(4))


@pytest.mark.parametrize("module", [fashion_mnist, kmnist])
def test_a_set_after_mnists_pattern_holds_what_was_published(
    module: object, place: Path, cached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = {
        name: pixels(10, 28, 28) if "images" in name else np.arange(10, dtype=np.uint8) for name in idx.LIKE_MNIST
    }  # type: ignore[attr-defined]
    for name, values in arrays.items():
        (place / f"{name}.gz").write_bytes(gzip.compress(idx.encode(values)))
    sizes = {name: len(idx.encode(values)) for name, values in arrays.items()}
    monkeypatch.setattr(idx, "LIKE_MNIST", sizes)
    module.fetch(cached, lambda name: place / name)  # type: ignore[attr-defined]
    splits = module.load(cached)  # type: ignore[attr-defined]
    assert (splits.train.images[:, 0] == arrays["train-images-idx3-ubyte"]).all()
    assert (splits.test.images[:, 0] == arrays["t10k-images-idx3-ubyte"]).all()
    assert splits.train.targets.tolist() == list(range(10)) and len(splits.spec.classes) == 10


def emnist_archive(path: Path, labels: dict[str, list[str]]) -> dict[str, np.ndarray]:
    """Every split of EMNIST, two images a class; returns the training images by split."""
    images = {}
    with zipfile.ZipFile(path, "w") as archive:
        for split in emnist.COUNTS:
            names = labels.get(split, ["0", "1", "2"])
            first = 1 if split == "letters" else 0
            table = "".join(f"{first + place} {ord(name)} {ord(name) + 32}\n" for place, name in enumerate(names))
            archive.writestr(f"gzip/emnist-{split}-mapping.txt", table)
            for part in emnist.PARTS:
                values = pixels(2 * len(names), 28, 28)
                targets = np.tile(np.arange(len(names)) + first, 2).astype(np.uint8)
                for kind, array in (("images-idx3", values), ("labels-idx1", targets)):
                    name = f"gzip/emnist-{split}-{part}-{kind}-ubyte.gz"
                    archive.writestr(name, gzip.compress(idx.encode(array)))
                if part == "train":
                    images[split] = values
    return images


def test_emnist_stands_upright_and_counts_classes_from_its_table(place: Path, cached: Path) -> None:
    images = emnist_archive(place / emnist.ARCHIVE, {"letters": ["A", "B", "C", "D"]})
    emnist.fetch(cached, lambda name: place / name)
    splits = emnist.load(cached, split="letters")
    assert splits.spec.classes == ("A", "B", "C", "D") and splits.train.targets.tolist() == [0, 1, 2, 3] * 2  # type: ignore[union-attr]
    assert (splits.train.images[:, 0] == images["letters"].transpose(0, 2, 1)).all()  # type: ignore[union-attr]
    assert emnist.load(cached).spec.classes == ("0", "1", "2")
    assert not (cached / "unpacked").exists()


def test_emnist_names_its_splits_where_another_is_asked_for(cached: Path) -> None:
    with pytest.raises(UsageError, match="letters"):
        emnist.load(cached, split="leters")


def test_an_emnist_table_that_does_not_count_is_refused(place: Path, cached: Path) -> None:
    emnist_archive(place / emnist.ARCHIVE, {})
    emnist.fetch(cached, lambda name: place / name)
    (cached / "emnist-balanced-mapping.txt").write_text("0 48\n2 49\n")
    with pytest.raises(VerificationError, match="mapping"):
        emnist.load(cached)


def cifar100_archive(path: Path) -> np.ndarray:
    """Twenty records in each file; returns those of train."""
    records = pixels(20, cifar100.RECORD)
    records[:, 0], records[:, 1] = np.arange(20), np.arange(20) * 5
    files = {
        "train.bin": records.tobytes(),
        "test.bin": records[::-1].tobytes(),
        "fine_label_names.txt": "".join(f"fine{number}\n" for number in range(100)).encode(),
        "coarse_label_names.txt": "".join(f"coarse{number}\n" for number in range(20)).encode() + b"\n",
    }
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{cifar100.FOLDER}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return records


def test_cifar100_has_a_hundred_classes_or_twenty(place: Path, cached: Path) -> None:
    records = cifar100_archive(place / cifar100.ARCHIVE)
    cifar100.fetch(cached, lambda name: place / name)
    fine, coarse = cifar100.load(cached), cifar100.load(cached, labels="coarse")
    assert len(fine.spec.classes) == 100 and len(coarse.spec.classes) == 20
    assert isinstance(fine.train, MemoryImages) and isinstance(coarse.train, MemoryImages)
    assert fine.train.targets.tolist() == records[:, 1].tolist() and coarse.train.targets.tolist() == list(range(20))
    assert (fine.train.images.reshape(20, -1) == records[:, 2:]).all()


def test_a_cifar100_file_that_was_cut_is_refused(place: Path, cached: Path) -> None:
    cifar100_archive(place / cifar100.ARCHIVE)
    cifar100.fetch(cached, lambda name: place / name)
    (cached / "test.bin").write_bytes((cached / "test.bin").read_bytes()[:-1])
    with pytest.raises(VerificationError, match=r"test\.bin"):
        cifar100.load(cached)


def element(kind: int, body: bytes) -> bytes:
    return struct.pack("<II", kind, len(body)) + body + bytes(-len(body) % 8)


def matlab_file(arrays: dict[str, np.ndarray], compressed: bool = True) -> bytes:
    content = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    for name, array in arrays.items():
        parts = element(6, struct.pack("<II", 9, 0)) + element(5, np.array(array.shape, "<i4").tobytes())
        short = struct.pack("<HH", 1, len(name)) + name.encode().ljust(4, b"\0")  # the small form
        parts += short + element(2, array.tobytes(order="F"))
        whole = element(14, parts)
        packed = zlib.compress(whole)
        content += struct.pack("<II", 15, len(packed)) + packed if compressed else whole
    return content


@pytest.mark.parametrize("compressed", [True, False])
def test_matlab_arrays_come_back_as_they_were_written(compressed: bool, tmp_path: Path) -> None:
    arrays = {"X": pixels(4, 3, 2, 5), "y": pixels(5, 1)}
    (tmp_path / "a.mat").write_bytes(matlab_file(arrays, compressed))
    found = mat.arrays(tmp_path / "a.mat")
    assert list(found) == ["X", "y"] and all((found[name] == arrays[name]).all() for name in arrays)


def test_matlab_files_are_read_as_scipy_writes_them(tmp_path: Path) -> None:
    scipy_io = pytest.importorskip("scipy.io", reason="scipy is not installed: it would be the oracle")
    arrays = {"X": pixels(4, 3, 2, 5), "y": pixels(5, 1)}
    scipy_io.savemat(tmp_path / "a.mat", arrays, do_compression=True)
    found = mat.arrays(tmp_path / "a.mat")
    assert all((found[name] == arrays[name]).all() for name in arrays)


@pytest.mark.parametrize("keep", [0, 100, 130, 200, -1])
def test_a_matlab_file_that_was_cut_is_refused(keep: int, tmp_path: Path) -> None:
    (tmp_path / "a.mat").write_bytes(matlab_file({"X": pixels(4, 3, 2, 5)})[:keep])
    with pytest.raises(VerificationError, match=r"a\.mat"):
        mat.arrays(tmp_path / "a.mat")


def test_svhn_calls_its_tenth_label_zero(place: Path, cached: Path) -> None:
    images, labels = pixels(32, 32, 3, 11), (np.arange(11) % 10 + 1).astype(np.uint8)[:, None]
    for name in svhn.PUBLISHED:
        (place / name).write_bytes(matlab_file({"X": images, "y": labels}))
    svhn.fetch(cached, lambda name: place / name)
    train = svhn.load(cached).train
    assert isinstance(train, MemoryImages) and train.targets.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert (train.images[3] == images[..., 3].transpose(2, 0, 1)).all()


@pytest.mark.parametrize(("name", "fixed"), imagenette.VARIANTS.items())
def test_imagenette_names_its_classes_and_keeps_its_validation_for_the_test(
    name: str, fixed: dict[str, object], place: Path, cached: Path
) -> None:
    (archive,) = imagenette.ABOUT[name].files
    names = imagenette.NAMES[str(fixed.get("subset", "nette"))]
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, "JPEG")
    with tarfile.open(place / archive, "w:gz") as packed:
        for part in ("train", "val"):
            for number in names:
                member = tarfile.TarInfo(f"{Path(archive).stem}/{part}/{number}/{number}_1.JPEG")
                member.size = len(buffer.getvalue())
                packed.addfile(member, io.BytesIO(buffer.getvalue()))
    imagenette.fetch(cached, lambda name: place / name, **fixed)  # type: ignore[arg-type]
    splits = imagenette.load(cached, **fixed)  # type: ignore[arg-type]
    assert set(splits.spec.classes) == set(names.values()) and splits.validation is None
    assert isinstance(splits.train, ImageFiles) and len(splits.train) == len(splits.test or []) == 10
    assert splits.spec.height == fixed["size"]


def test_members_of_a_family_share_what_is_downloaded_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cifar100_archive(place / cifar100.ARCHIVE)
    trusted = {name: [replace(SOURCES[0], digest="", size=0)] for name in (cifar100.ARCHIVE,)}
    abouts = {name: replace(about, files=trusted) for name, about in cifar100.ABOUT.items()}
    monkeypatch.setattr(cifar100, "ABOUT", abouts)
    dataset_cache.download("cifar100_coarse", str(place))
    assert library.info("cifar100").state == "cached" and library.info("imagenette").state == "not downloaded"
    assert len(library.splits(Data(name="cifar100")).spec.classes) == 100


def test_matlab_structures_are_read_as_scipy_writes_them(tmp_path: Path) -> None:
    scipy_io = pytest.importorskip("scipy.io", reason="scipy is not installed: it writes the structures")
    rows = [(float(place), f"n{place:08d}", np.array([[place, 2.5]])) for place in range(5)]
    kinds = [("ILSVRC2012_ID", "f8"), ("WNID", object), ("sizes", object)]
    scipy_io.savemat(tmp_path / "a.mat", {"synsets": np.array(rows, dtype=kinds)[:, None]}, do_compression=True)
    found = mat.variables(tmp_path / "a.mat")["synsets"]
    assert [(row["ILSVRC2012_ID"].item(), row["WNID"]) for row in found] == [row[:2] for row in rows]
    assert found[3]["sizes"].tolist() == [[3, 2.5]]


def imagenet_files(place: Path, monkeypatch: pytest.MonkeyPatch, classes: int = 6) -> list[str]:
    """The three files with so many classes, whose ids run against the order of their WordNet numbers."""
    scipy_io = pytest.importorskip("scipy.io", reason="scipy is not installed: it writes the development kit")
    monkeypatch.setattr("dlkit.imagenet.classes", lambda: tuple(f"class {rank}" for rank in range(classes)))
    numbers = [f"n{place:08d}" for place in range(classes)]
    rows = [(float(classes - rank), number) for rank, number in enumerate(numbers)]
    rows.append((float(classes + 1), "n99999999"))  # a group of classes
    buffer = io.BytesIO()
    synsets = np.array(rows, dtype=[("ILSVRC2012_ID", "f8"), ("WNID", object)])[:, None]
    scipy_io.savemat(buffer, {"synsets": synsets}, do_compression=True)
    labels = "".join(f"{label}\n" for label in range(1, classes + 1))
    with tarfile.open(place / imagenet.KIT, "w:gz") as kit:
        add(kit, f"{imagenet.KIT_FOLDER}/data/meta.mat", buffer.getvalue())
        add(kit, f"{imagenet.KIT_FOLDER}/data/ILSVRC2012_validation_ground_truth.txt", labels.encode())
    with tarfile.open(place / imagenet.VALIDATION, "w") as validation:
        for number in range(1, classes + 1):
            add(validation, f"ILSVRC2012_val_{number:08d}.JPEG", str(number).encode())
    with tarfile.open(place / imagenet.TRAIN, "w") as train:
        for number in numbers:
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as images:
                add(images, f"{number}_1.JPEG", number.encode())
            add(train, f"{number}.tar", inner.getvalue())
    return numbers


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def test_imagenet_sorts_both_splits_by_class(place: Path, cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = imagenet_files(place, monkeypatch)
    imagenet.fetch(cached, lambda name: place / name)
    for rank, number in enumerate(numbers):
        (train,), (test,) = ((cached / split / f"class {rank}").iterdir() for split in ("train", "test"))
        assert train.read_text() == number and test.read_text() == str(len(numbers) - rank)  # the label is the id


def test_imagenet_goes_on_with_the_class_after_the_last(
    place: Path, cached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imagenet_files(place, monkeypatch)
    unpacked: list[str] = []

    def extract(archive: Path, target: Path) -> None:
        if len(unpacked) == 3:
            raise KeyboardInterrupt
        unpacked.append(target.name)
        archive_extract(archive, target)

    monkeypatch.setattr(imagenet, "extract", extract)
    with pytest.raises(KeyboardInterrupt):
        imagenet.fetch(cached, lambda name: place / name)
    first, unpacked[:] = list(unpacked), [""] * 4
    imagenet.fetch(cached, lambda name: place / name)
    assert len(first) == 3 and not set(first) & set(unpacked)
    assert unpacked[4:] == ["class 2", "class 3", "class 4", "class 5", "validation"]


@pytest.mark.skipif(not SST_FILES.is_dir(), reason="needs the files of SST in shared/data/sst")
@pytest.mark.parametrize("options", [{}, {"form": "trees"}, {"binary": True}, {"binary": True, "form": "trees"}])
def test_the_published_spec_of_sst_is_that_of_its_data_without_the_words(
    options: dict[str, Any], tmp_path: Path
) -> None:
    sst.fetch(tmp_path, unpublished_archive)
    loaded = sst.load(tmp_path, **options).spec
    assert sst.spec(**options) == replace(loaded, words=())  # type: ignore[type-var]
    assert sst.spec(least=3) is None


def unpublished_archive(name: str) -> Path:
    if name == sst.ARCHIVE:
        raise UnreachableError(name)
    return SST_FILES / name
