"""The data sets on the shelf: shapes by its laws, mnist and cifar10 from made-up files, folders by their rules."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
from corpus import encoded, picture, tar_member, tar_of
from mnist_files import MNIST_HERE, made_up_mnist

from dlkit.config.resolve import resolve
from dlkit.data.download import idx, pickles
from dlkit.data.splits import ImageFiles, MemoryImages, Splits
from dlkit.datasets import cifar10, folder, mnist, shapes
from dlkit.errors import DataError, StorageError, UsageError, VerificationError
from dlkit.training.inputs import prepare

# shapes


def test_shapes_are_the_same_for_the_same_seed_and_others_for_another() -> None:
    one, same, other = (shapes.load(train=50, test=20, seed=seed) for seed in (1, 1, 2))
    for split in ("train", "test"):
        first, second, third = (getattr(splits, split) for splits in (one, same, other))
        assert (first.images == second.images).all() and (first.targets == second.targets).all()
        assert (first.images != third.images).any()


def test_test_shapes_do_not_depend_on_how_many_there_are_to_train_on() -> None:
    few, many = shapes.load(train=10, test=20), shapes.load(train=30, test=20)
    assert (few.test.images == many.test.images).all()  # type: ignore[union-attr]


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 28), (3, 9), (1, 64)])
def test_shapes_have_the_size_asked_for_and_equal_classes(channels: int, size: int) -> None:
    splits = shapes.load(train=80, test=16, size=size, channels=channels)
    assert isinstance(splits.train, MemoryImages)
    assert splits.train.images.shape == (80, channels, size, size) and splits.train.images.dtype == np.uint8
    assert (np.bincount(splits.train.targets) == 10).all() and splits.train.targets.dtype == np.int64
    assert splits.spec.classes == shapes.CLASSES and splits.validation is None


def test_every_shape_lies_inside_its_image_and_covers_what_geometry_says() -> None:
    areas = {
        "disk": np.pi,
        "ring": np.pi * (1 - 0.55**2),
        "square": 1.4**2,
        "frame": 1.4**2 - 0.7**2,
        "triangle": 3 * np.sqrt(3) / 4,
        "cross": 2 * 1.9 * 0.5 - 0.5**2,
        "bar": 1.9 * 0.6,
        "star": 10 * 0.5 * 0.4 * np.sin(np.pi / 5),
    }
    rng = np.random.default_rng(0)
    radius = rng.uniform(15, 20, 20).astype(np.float32)
    centre, turn = np.full((2, 20), 32, np.float32), rng.uniform(0, 7, 20).astype(np.float32)
    for name in shapes.CLASSES:
        covered = shapes.coverage(name, 64, centre, radius, turn)
        assert np.allclose(covered.sum((1, 2)), areas[name] * radius**2, rtol=0.02), name
        assert covered[:, [0, -1]].max() == covered[:, :, [0, -1]].max() == 0


def test_brightness_alone_tells_little_of_the_class() -> None:
    train = shapes.load(train=4000, test=0).train
    assert isinstance(train, MemoryImages)
    means = train.images.mean((1, 2, 3))
    by_class = [means[train.targets == index].mean() for index in range(8)]
    assert np.ptp(by_class) < 0.3 * means.std()


def test_shape_options_out_of_range_are_refused() -> None:
    for options in ({"channels": 2}, {"size": 4}, {"noise": 2.0}, {"train": -1}, {"seed": -1}):
        with pytest.raises(UsageError, match="takes"):
            shapes.load(**options)  # type: ignore[arg-type]


# mnist


def test_idx_files_come_back_as_they_were_written(tmp_path: Path) -> None:
    arrays = made_up_mnist(tmp_path)
    splits = mnist.load(tmp_path)
    assert isinstance(splits.train, MemoryImages) and isinstance(splits.test, MemoryImages)
    assert (splits.train.images[:, 0] == arrays["train-images-idx3-ubyte"]).all()
    assert splits.test.targets.tolist() == arrays["t10k-labels-idx1-ubyte"].tolist()
    assert splits.train.images.shape == (60, 1, 28, 28) and splits.train.images.flags.writeable
    assert splits.spec.classes == tuple("0123456789")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: data[:10],
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: b"\0\0\x0d\3" + data[4:],  # floats
        lambda data: data[:4] + b"\xff\xff\xff\xff" + data[8:],  # -1 images
    ],
    ids=["empty", "header cut", "cut", "longer", "floats", "negative"],
)
def test_damaged_idx_file_is_refused(spoil: object, tmp_path: Path) -> None:
    made_up_mnist(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(spoil(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(VerificationError, match="train-images"):
        mnist.load(tmp_path)


def test_images_and_labels_that_do_not_match_are_refused(tmp_path: Path) -> None:
    made_up_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx.encode(np.full(10, 10, np.uint8)))
    with pytest.raises(VerificationError, match="do not match"):
        mnist.load(tmp_path)


def wheel(place: Path, content: object) -> Path:
    path = place / mnist.WHEEL
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(mnist.WHEEL_MEMBER, gzip.compress(pickle.dumps(content, protocol=3)))
    return path


def digest(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_wheel_gives_the_idx_files_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = made_up_mnist(tmp_path)

    def scaled(name: str, start: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        images = arrays[f"{name}-images-idx3-ubyte"][start:end].reshape(-1, 784)
        return images.astype(np.float32) / 256, arrays[f"{name}-labels-idx1-ubyte"][start:end].astype(np.int64)

    path = wheel(tmp_path, (scaled("train", 0, 50), scaled("train", 50, 60), scaled("t10k", 0, 10)))
    monkeypatch.setattr(mnist, "WHEEL_SHA256", digest(path))
    for name, content in mnist.idx_files(path).items():
        assert content == (tmp_path / name).read_bytes()


def test_wheel_of_another_digest_is_not_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickles._ArraysOnly, "load", lambda self: pytest.fail("it was unpickled"))
    with pytest.raises(VerificationError, match="expected"):
        mnist.idx_files(wheel(tmp_path, ()))


class Evil:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> object:
        return os.mkdir, (str(self.canary),)


def test_pickle_may_hold_arrays_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = wheel(tmp_path, (Evil(tmp_path / "canary"),))
    monkeypatch.setattr(mnist, "WHEEL_SHA256", digest(path))
    with pytest.raises(VerificationError, match="only numpy arrays"):
        mnist.idx_files(path)
    assert not (tmp_path / "canary").exists()


@pytest.mark.skipif(not MNIST_HERE.is_dir(), reason="no local copy of MNIST beside the project")
def test_real_mnist_has_its_known_digits(tmp_path: Path) -> None:
    mnist.fetch(tmp_path, lambda name: MNIST_HERE / name)
    splits = mnist.load(tmp_path)
    assert isinstance(splits.train, MemoryImages) and isinstance(splits.test, MemoryImages)
    assert np.bincount(splits.train.targets).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert splits.test.targets[:5].tolist() == [7, 2, 1, 0, 4]
    assert abs(splits.train.images.mean() / 255 - splits.spec.mean[0]) < 1e-4


# cifar10

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def made_up_cifar(place: Path) -> np.ndarray:
    """The archive, with seven records a batch; returns all of them, test last."""
    records = np.random.default_rng(0).integers(0, 256, (42, cifar10.RECORD), np.uint8)
    records[:, 0] %= 10
    members = [tar_member(f"{cifar10.FOLDER}/batches.meta.txt", "\n".join([*NAMES, ""]).encode())]
    for index, name in enumerate([*cifar10.TRAIN, "test_batch.bin"]):
        members.append(tar_member(f"{cifar10.FOLDER}/{name}", records[7 * index : 7 * index + 7].tobytes()))
    (place / cifar10.ARCHIVE).write_bytes(tar_of(*members, compress=gzip.compress))
    return records


def test_cifar10_records_become_images_and_labels(tmp_path: Path) -> None:
    records = made_up_cifar(tmp_path)
    (tmp_path / "set").mkdir()
    cifar10.fetch(tmp_path / "set", lambda name: tmp_path / name)
    assert len(list((tmp_path / "set").iterdir())) == 7
    splits = cifar10.load(tmp_path / "set")
    assert isinstance(splits.train, MemoryImages) and isinstance(splits.test, MemoryImages)
    assert splits.spec.classes == tuple(NAMES)
    assert splits.train.images.shape == (35, 3, 32, 32) and splits.test.images.shape == (7, 3, 32, 32)
    assert (splits.train.targets == records[:35, 0]).all()
    assert (splits.test.images.reshape(7, -1) == records[35:, 1:]).all()  # planes of red, green and blue, row by row


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("data_batch_3.bin", b"x" * 100),
        ("test_batch.bin", b""),
        ("test_batch.bin", b"\x0b" * 3073),
        ("batches.meta.txt", b"airplane\n"),
    ],
)
def test_damaged_cifar10_is_refused(name: str, data: bytes, tmp_path: Path) -> None:
    made_up_cifar(tmp_path)
    (tmp_path / "set").mkdir()
    cifar10.fetch(tmp_path / "set", lambda name: tmp_path / name)
    (tmp_path / "set" / name).write_bytes(data)
    with pytest.raises(VerificationError, match=name):
        cifar10.load(tmp_path / "set")


# folder


def fill(root: Path, *files: str) -> Path:
    """Images of different bytes at these paths."""
    for number, name in enumerate(files):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(picture(8, 8, seed=hash((name, number)) % 2**32), "PNG"))
    return root


def listed(splits: Splits, split: str = "train") -> list[tuple[str, str]]:
    samples = getattr(splits, split)
    assert isinstance(samples, ImageFiles)
    return [
        (splits.spec.classes[target], path.name) for path, target in zip(samples.paths, samples.targets, strict=True)
    ]


def test_one_folder_of_classes_is_train_alone(tmp_path: Path) -> None:
    splits = folder.load(fill(tmp_path, "b/1.png", "a/2.JPG", "a/deep/1.png", "a/10.png"))
    assert listed(splits) == [("a", "2.JPG"), ("a", "10.png"), ("a", "1.png"), ("b", "1.png")]
    assert splits.validation is None and splits.test is None and splits.warnings == ()
    assert (splits.spec.height, splits.spec.width, splits.spec.channels) == (224, 224, 3)


@pytest.mark.parametrize("name", ["val", "Valid", "VALIDATION", "dev", "photos_val", "val-images"])
def test_splits_are_mapped_by_name_not_by_position(name: str, tmp_path: Path) -> None:
    splits = folder.load(
        fill(tmp_path, "train/a/1.png", "train/b/2.png", "train/c/3.png", f"{name}/c/4.png", "test/b/5.png")
    )
    assert listed(splits, "validation") == [("c", "4.png")] and listed(splits, "test") == [("b", "5.png")]
    assert len(splits.warnings) == 2 and "'a', 'b'" in splits.warnings[0]


@pytest.mark.parametrize("train, test", [("Training", "Testing"), ("TRAIN", "test"), ("x_train", "x_test")])
def test_split_folders_have_any_case_and_their_usual_synonyms(train: str, test: str, tmp_path: Path) -> None:
    splits = folder.load(fill(tmp_path, f"{train}/a/1.png", f"{train}/b/2.png", f"{test}/b/3.png"))
    assert splits.spec.classes == ("a", "b") and listed(splits, "test") == [("b", "3.png")]


def test_a_name_that_may_be_a_class_is_one(tmp_path: Path) -> None:
    splits = folder.load(fill(tmp_path, "toy_train/1.png", "toy_car/1.png", "test_tube/1.png"))
    assert splits.spec.classes == ("test_tube", "toy_car", "toy_train") and splits.test is None


def test_folders_beside_the_splits_are_named(tmp_path: Path) -> None:
    splits = folder.load(fill(tmp_path, "train/a/1.png", "train/b/2.png", "unlabeled/3.png"))
    assert len(splits.warnings) == 1 and "ignored 'unlabeled' beside 'train'" in splits.warnings[0]


def test_classes_called_like_splits_have_a_way_out(tmp_path: Path) -> None:
    refused(fill(tmp_path / "one", "train/1.png", "plane/1.png"), "into one train folder: .*train/train, .*train/plane")
    refused(fill(tmp_path / "two", "valid/1.png", "invalid/1.png"), "into one train folder: .*train/valid")
    splits = folder.load(fill(tmp_path / "three", "train/train/1.png", "train/plane/1.png"))
    assert splits.spec.classes == ("plane", "train")


def test_classes_are_in_natural_order_whatever_the_order_of_creation(tmp_path: Path) -> None:
    names = ["1", "2", "10", "9" * 240, "Apple", "banana", "with space", "é", "🙂"]
    for seed in range(3):
        shuffled = random.Random(seed).sample(names, len(names))
        splits = folder.load(fill(tmp_path / str(seed), *(f"{name}/x.png" for name in shuffled)))
        assert splits.spec.classes == tuple(names)


def test_what_systems_leave_behind_is_ignored(tmp_path: Path) -> None:
    fill(tmp_path, "train/a/1.png", "train/b/1.png", "train/.ipynb_checkpoints/1.png", "train/__MACOSX/1.png")
    fill(tmp_path, "train/a/.DS_Store", "train/a/Thumbs.db", "train/Thumbs.db", "train/a/._1.png", ".git/x.png")
    splits = folder.load(tmp_path)
    assert splits.spec.classes == ("a", "b") and len(splits.train) == 2 and splits.warnings == ()


def test_files_that_are_no_images_are_ignored_with_a_warning(tmp_path: Path) -> None:
    splits = folder.load(fill(tmp_path, "a/1.png", "b/1.png", "a/notes.txt", "b/2.mov", "README"))
    assert len(splits.train) == 2 and len(splits.warnings) == 2
    assert "1 files outside" in splits.warnings[0] and "2 files" in splits.warnings[1]


def refused(root: Path, says: str, error: type[Exception] = DataError) -> None:
    with pytest.raises(error, match=says) as found:
        folder.load(root)
    assert str(root) in str(found.value) and "\n" not in str(found.value)


def test_missing_empty_and_wrong_folders_are_refused(tmp_path: Path) -> None:
    refused(tmp_path / "none", "no such folder")
    refused(tmp_path, "no class folders")
    (tmp_path / "file").touch()
    refused(tmp_path / "file", "not a folder")
    refused(fill(tmp_path / "one", "a/1.png"), "one class only, 'a'")
    refused(fill(tmp_path / "void", "a/1.png", "b/notes.txt"), "b: the class folder holds no image")
    refused(fill(tmp_path / "lonely", "test/a/1.png", "val/a/1.png"), "no train")
    refused(
        fill(tmp_path / "two", "train/a/1.png", "train/b/1.png", "val/a/1.png", "valid/a/1.png"), "both val and valid"
    )
    refused(fill(tmp_path / "bare", "train/a/1.png", "train/b/1.png", "val/a/notes"), "holds no image")


def test_class_unknown_to_train_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    refused(fill(tmp_path, "train/cat/1.png", "train/dog/1.png", "val/cats/1.png"), "'cats' is not in train.*'cat'")


@pytest.mark.parametrize("twins", [("Cat", "cat"), ("caf\u00e9", "cafe\u0301"), ("STRASSE", "straße")])
def test_class_names_that_could_be_confused_are_refused(twins: tuple[str, str], tmp_path: Path) -> None:
    refused(fill(tmp_path, *(f"{name}/1.png" for name in twins), "other/1.png"), "differ only")


def test_class_name_with_a_line_break_is_refused(tmp_path: Path) -> None:
    refused(fill(tmp_path, "a\nb/1.png", "c/1.png"), "line break")


def test_composed_and_decomposed_names_are_one_class_across_splits(tmp_path: Path) -> None:
    splits = folder.load(fill(tmp_path, "train/caf\u00e9/1.png", "train/tea/1.png", "val/cafe\u0301/2.png"))
    assert listed(splits, "validation") == [("caf\u00e9", "2.png")]


def test_same_image_in_two_splits_is_warned_of_with_a_count(tmp_path: Path) -> None:
    fill(tmp_path, "train/a/1.png", "train/b/2.png", "val/a/3.png", "test/b/4.png")
    (tmp_path / "val/b").mkdir()
    (tmp_path / "val/b/copy.png").write_bytes((tmp_path / "train/a/1.png").read_bytes())
    splits = folder.load(tmp_path)
    assert [note for note in splits.warnings if "also in train" in note] == [
        "1 of 2 validation images are also in train: validation metrics will be optimistic."
    ]


def test_links_are_followed_and_loops_refused(tmp_path: Path) -> None:
    fill(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "linked").symlink_to(tmp_path / "b")
    splits = folder.load(tmp_path)
    assert splits.spec.classes == ("a", "b", "linked") and len(splits.train) == 3
    (tmp_path / "b/again").symlink_to(tmp_path / "b")
    refused(tmp_path, "b/again: is a link to a folder that contains it")
    (tmp_path / "b/again").unlink()
    (tmp_path / "b/self").symlink_to(tmp_path / "b/self")  # which no system call can follow
    (tmp_path / "b/twice").symlink_to(tmp_path / "a")
    assert len(folder.load(tmp_path).train) == 5  # of b also what lies in a, as of linked


def test_folder_that_may_not_be_read_is_a_storage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "a/1.png", "b/1.png")

    def refuse(path: object) -> object:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    refused(tmp_path, "Permission denied", StorageError)


def test_options_set_the_spec(tmp_path: Path) -> None:
    spec = folder.load(fill(tmp_path, "a/1.png", "b/1.png"), size=32, channels=1, crop=0.875).spec
    assert (spec.height, spec.channels, spec.mean, spec.std, spec.crop) == (32, 1, (0.5,), (0.5,), 0.875)
    with pytest.raises(UsageError):
        folder.load(tmp_path, channels=2)


def test_reading_arrays_needs_a_whole_pickle(tmp_path: Path) -> None:
    path = wheel(tmp_path, (np.arange(3),))
    packed = zipfile.ZipFile(io.BytesIO(path.read_bytes())).read(mnist.WHEEL_MEMBER)
    for part, limit in ((packed[:-20], 1 << 20), (packed, 10)):
        with pytest.raises(VerificationError, match="truncated or above"):
            pickles.arrays(part, wheel=path, sha256=digest(path), limit=limit)
    (array,) = pickles.arrays(packed, wheel=path, sha256=digest(path), limit=1 << 20)
    assert array.tolist() == [0, 1, 2]


def test_the_line_about_the_data_names_the_first_classes_and_their_number(tmp_path: Path) -> None:
    lines: list[str] = []
    fill(tmp_path, *(f"train/{name}/{number}.png" for name in "gfedcba" for number in (1, 2)), "Val/a/3.png")
    recipe = resolve("mlp", f"folder:{tmp_path}", flags={"data.size": 8}).recipe
    prepare(recipe, lines.append)
    assert "data: folder, 14 train, 1 validation; 7 classes: a, b, c, d, e, …" in lines
