"""Packs: training sees what it sees in the folder; what is not a whole pack is refused in one line."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors
import torch
from corpus import picture
from PIL import Image
from shapes_on_disk import write_folder

import dlkit
from dlkit.config.schema import Augment, Data
from dlkit.data import library
from dlkit.data import rng as randomness
from dlkit.data.checks.check import check
from dlkit.data.images import decode, packed, resize_crop
from dlkit.data.images.pack import describe, pack, verify
from dlkit.data.images.sources import fetcher
from dlkit.data.loader import TrainingData, batches_in_order, split
from dlkit.data.splits import ImageFiles, Splits
from dlkit.datasets import shapes
from dlkit.errors import DataError, DlkitError, StorageError, UsageError, VerificationError
from dlkit.runs.run_folder import RunFolder
from dlkit.specs import ImageSpec
from dlkit_cli.main import run

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train and test folders; some images are of other sizes, gray, or turned by EXIF."""
    place = tmp_path_factory.mktemp("images") / "shapes"
    write_folder(place, "train", count=90)
    write_folder(place, "test", count=30)
    first = sorted((place / "train").iterdir())[0]
    picture().resize((50, 20)).convert("L").save(first / "wide gray.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    picture().resize((40, 70)).save(first / "turned.jpg", exif=turned)
    return place


@pytest.fixture(scope="module")
def packed_folder(folder: Path) -> Path:
    path = folder.parent / "shapes.pack"
    found = pack(data_of(folder), path, workers=2)
    assert found.sizes == {"train": len(list(folder.glob("train/*/*"))), "test": len(list(folder.glob("test/*/*")))}
    return path


def data_of(place: Path, **settings: object) -> Data:
    name = "packed" if place.suffix == ".pack" else "folder"
    others = {} if name == "packed" else {"size": 16, **settings}
    return Data.model_validate({"name": name, "dir": str(place), **others})


def both(folder: Path, packed_folder: Path) -> tuple[Splits, Splits]:
    return library.splits(data_of(folder)), library.splits(data_of(packed_folder))


def test_a_pack_gives_the_splits_and_batches_of_its_folder(folder: Path, packed_folder: Path) -> None:
    theirs, ours = both(folder, packed_folder)
    assert ours.spec == theirs.spec
    parts, packs = (split(found, 0.2, seed=3) for found in (theirs, ours))
    assert list(parts) == list(packs) == ["train", "validation", "test"]
    for name in parts:
        pairs = zip(*(batches_in_order(found[name], theirs.spec, 16, CPU) for found in (parts, packs)), strict=True)
        for one, other in pairs:
            assert torch.equal(one.inputs, other.inputs) and torch.equal(one.targets, other.targets)


def test_training_from_the_folder_and_from_its_pack_gives_byte_equal_weights(
    folder: Path, packed_folder: Path, tmp_path: Path
) -> None:
    settings = {"data.augment.crop_padding": 2, "data.augment.horizontal_flip": 0.5, "data.augment.rotation": 10.0}
    settings |= {"data.workers": 1, "model.options.hidden": "8", "data.validation": 0.2}
    settings |= {"optimizer.weight_decay": 0.0, "optimizer.lr": 0.001, "optimizer.name": "adam"}  # of photos are others
    settings |= {"schedule.name": "cosine", "train.select": "best"}

    def trained(place: Path, **others: object) -> RunFolder:
        name = data_of(place).name
        return dlkit.train("mlp", dataset=name, data_dir=place, epochs=2, batch_size=16, name=name, runs_dir=tmp_path,
                           settings={**settings, **others})  # fmt: skip

    runs = [trained(folder, **{"data.size": 16, "data.options.group": ""}), trained(packed_folder)]
    hashes = [hashlib.sha256(newest(run).read_bytes()).hexdigest() for run in runs]
    assert hashes[0] == hashes[1]
    losses = [[line["val/loss"] for line in run.metrics() if "val/loss" in line] for run in runs]
    assert losses[0] == losses[1] and len(losses[0]) == 2


def newest(run: RunFolder) -> Path:
    return max(run.checkpoints.glob("*.safetensors"))


def test_the_file_is_a_safetensors_file(packed_folder: Path) -> None:
    part = packed.opened(packed_folder).parts["train"]
    with safetensors.safe_open(packed_folder, framework="numpy") as file:
        assert (file.get_tensor("train/targets") == part.targets).all()
        assert (file.get_tensor("train/pixels") == part.pixels).all() and len(part.pixels) == len(part) * 3 * 16 * 16
        assert file.get_tensor("test/digests").shape == (len(packed.opened(packed_folder).parts["test"]), 32)


def test_equal_folders_give_equal_packs_with_any_number_of_workers(
    folder: Path, packed_folder: Path, tmp_path: Path
) -> None:
    pack(data_of(folder), tmp_path / "again.pack", workers=0)
    assert (tmp_path / "again.pack").read_bytes() == packed_folder.read_bytes()


def test_an_image_of_a_pack_is_named_and_read_like_a_file(folder: Path, packed_folder: Path) -> None:
    theirs, ours = both(folder, packed_folder)
    assert isinstance(theirs.train, ImageFiles) and isinstance(ours.train, ImageFiles)
    assert isinstance(ours.spec, ImageSpec)
    for path, source in zip(theirs.train.paths, ours.train.paths, strict=True):
        assert str(source) == str(packed_folder / Path(str(path)).relative_to(folder))
        assert isinstance(source, packed.PackedImage) and source.size == len(source.read())
        assert (decode.load(source, ours.spec) == source.part.image(source.row)).all()
    gray = ImageSpec(1, 8, 8, ours.spec.classes, (0.5,), (0.5,))  # a network that sees less than what is packed
    small = next(fetcher(ours.train, gray, CPU, 0)([np.arange(3)], 0))
    assert small.shape == (3, 1, 8, 8)


def test_an_image_of_a_pack_is_not_held_to_the_name_of_the_file_that_it_was(packed_folder: Path) -> None:
    found = check(f"packed:{packed_folder}", workers=1)
    assert found.images > 100 and not [finding for finding in found.findings if finding.kind == "wrong-extension"]


def test_a_pack_crosses_to_another_process_by_its_name(packed_folder: Path) -> None:
    source = packed.PackedImage(packed.opened(packed_folder).parts["test"], 2)
    sent = pickle.dumps([source, source])  # what a loader process is given where it is not forked
    assert len(sent) < 1000 and pickle.loads(sent)[0].read() == source.read()


def test_groups_and_a_test_split_by_ratio_are_packed_too(folder: Path, tmp_path: Path) -> None:
    options = {"options": {"group": "([0-9])[.a-z]*$|(wide|turned)", "test": 0.2}}
    place = folder / "train"
    theirs = library.splits(data_of(place, **options))
    pack(data_of(place, **options), tmp_path / "grouped.pack", workers=0)
    ours = library.splits(data_of(tmp_path / "grouped.pack"))
    assert theirs.groups is not None and ours.groups is not None and (theirs.groups == ours.groups).all()
    assert theirs.test is not None and ours.test is not None and (theirs.test.targets == ours.test.targets).all()


@pytest.mark.parametrize("crop", [1.0, 0.8])
def test_of_larger_packed_images_validation_sees_what_it_sees_of_the_files(
    folder: Path, tmp_path: Path, crop: float
) -> None:
    data = data_of(folder, options={"crop": crop})
    pack(data, tmp_path / "side.pack", side=round(16 / crop), workers=0)
    theirs, ours = library.splits(data), library.splits(data_of(tmp_path / "side.pack"))
    pairs = zip(*(batches_in_order(found.train, theirs.spec, 64, CPU) for found in (theirs, ours)), strict=True)
    assert all(torch.equal(one.inputs, other.inputs) for one, other in pairs)
    assert describe(tmp_path / "side.pack").side == round(16 / crop)


def test_random_crops_are_cut_from_the_pack_the_same_with_any_number_of_workers(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "large.pack"
    pack(data_of(folder), path, side=24, workers=0)
    found = library.splits(data_of(path))
    assert isinstance(found.spec, ImageSpec) and isinstance(found.train, ImageFiles)
    area = (0.3, 1.0)
    decoded = []
    for workers in (0, 2):
        fetch = fetcher(found.train, found.spec, CPU, workers, seed=4, resized_crop=area)
        decoded.append(torch.cat(list(fetch([np.arange(5), np.arange(5, 9)], 1))))
    assert torch.equal(*decoded)
    for index in range(9):  # by Pillow, of the part alone
        box = resize_crop.random_box(*image_of(found.train, index).size, area, randomness.numbers(4, 1, index))
        wanted = image_of(found.train, index).crop(box).resize((16, 16), Image.Resampling.BILINEAR)
        assert np.abs(decoded[0][index].numpy().astype(int) - np.asarray(wanted).transpose(2, 0, 1)).max() <= 1
    data = TrainingData(found.train, found.spec, Augment(resized_crop=area), 16, seed=4, device=CPU)
    assert len(list(data.epoch(0))) == data.steps_per_epoch


def image_of(samples: ImageFiles, index: int) -> Image.Image:
    return decode.decode(samples.paths[index], 3)


def spoiled(content: bytes, change: str) -> bytes:
    header = 8 + int.from_bytes(content[:8], "little")
    targets = header + json.loads(content[8:header])["train/targets"]["data_offsets"][0]
    changes: dict[str, Callable[[], bytes]] = {
        "empty": lambda: b"",
        "stump": lambda: content[:5],
        "cut in the header": lambda: content[:300],
        "cut in the pixels": lambda: content[:-1],
        "longer": lambda: content + b"\0",
        "header's length": lambda: (2**63).to_bytes(8, "little") + content[8:],
        "a class": lambda: content.replace(shapes.CLASSES[0].encode(), b"x" * len(shapes.CLASSES[0])),
        "shape": lambda: content.replace(b'"dtype": "I64"', b'"dtype": "I65"'),
        "offsets": lambda: content.replace(b'"data_offsets": [0,', b'"data_offsets": [8,'),
        "negative offset": lambda: content.replace(b'"data_offsets": [0,', b'"data_offsets": [-9,')[: len(content)],
        "a target": lambda: content[:targets] + b"\xff" * 8 + content[targets + 8 :],
        "another target": lambda: content[:targets] + bytes([content[targets] ^ 1]) + content[targets + 1 :],
        "a pixel": lambda: content[:-1] + bytes([content[-1] ^ 1]),
        "text": lambda: b"not a pack at all, but long enough for one",
        "picture": lambda: Path(__file__).read_bytes(),
    }
    return changes[change]()


FOREIGN = ("empty", "stump", "header's length", "text", "picture")
ALTERED = (
    "cut in the header", "cut in the pixels", "longer", "a class", "shape", "offsets", "negative offset", "a target",
    "another target", "a pixel",
)  # fmt: skip


@pytest.mark.parametrize("change", [*FOREIGN, *ALTERED])
def test_what_is_not_a_whole_pack_is_refused_in_one_line(packed_folder: Path, tmp_path: Path, change: str) -> None:
    path = tmp_path / "bad.pack"
    path.write_bytes(spoiled(packed_folder.read_bytes(), change))
    expected: type[DlkitError] = DataError if change in FOREIGN else VerificationError
    for look in (verify, lambda path: library.splits(data_of(path))):
        with pytest.raises(expected) as caught:
            look(path)
        assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_every_flipped_bit_of_a_pack_is_found(packed_folder: Path, tmp_path: Path) -> None:
    content, path = packed_folder.read_bytes(), tmp_path / "bad.pack"
    header = 8 + int.from_bytes(content[:8], "little")
    written = 8 + len(content[8:header].rstrip())
    rng = np.random.default_rng(0)
    places = [*rng.integers(0, written, 60).tolist(), *rng.integers(header, len(content), 60).tolist()]
    for place in places:
        bad = bytearray(content)
        bad[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(bad)
        with pytest.raises((DataError, VerificationError)):
            verify(path)


def test_a_folder_and_nothing_at_all_are_no_packs(folder: Path) -> None:
    with pytest.raises(DataError, match="--dataset folder"):
        packed.opened(folder)
    with pytest.raises(DataError, match="no such file"):
        packed.opened(folder / "nothing.pack")


def test_a_bad_image_is_named_and_nothing_is_left(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "images"
    for name in shapes.CLASSES[:2]:
        (place / name).mkdir(parents=True)
        picture().save(place / name / "good.png")
    (place / shapes.CLASSES[0] / "bad.png").write_text("hello")
    for workers in (0, 1):
        with pytest.raises(DataError, match=r"bad\.png"):
            pack(data_of(place), tmp_path / "out.pack", workers=workers)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images"]


def test_a_full_disk_leaves_the_old_pack_and_nothing_else(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.pack"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(StorageError, match="disk full"):
        pack(data_of(folder), path, workers=0)
    monkeypatch.undo()
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 100})())
    with pytest.raises(StorageError, match="disk full"):
        pack(data_of(folder), path, workers=0)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_packed_is_said_before_work(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder"):
        pack(data_of(folder), tmp_path)
    with pytest.raises(UsageError, match="in memory"):
        pack(Data(name="shapes"), tmp_path / "out.pack")
    with pytest.raises(UsageError, match="--side 8"):
        pack(data_of(folder), tmp_path / "out.pack", side=8)
    with pytest.raises(StorageError):
        pack(data_of(folder), tmp_path / "missing" / "out.pack")
    assert list(tmp_path.iterdir()) == []


def test_the_commands(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "out.pack"
    line = [
        "dataset",
        "pack",
        str(folder),
        "-o",
        str(path),
        "--size",
        "16",
        "-j",
        "0",
        "--set",
        "data.options.crop=0.8",
    ]
    assert run(line) == 0 and capsys.readouterr().out == f"{path}\n"
    assert run(["dataset", "info", str(path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "dlkit.pack/1" and document["height"] == 16 and document["side"] is None
    assert document["bytes"] == path.stat().st_size and document["sizes"]["test"] == len(list(folder.glob("test/*/*")))
    assert run(["dataset", "verify", str(path)]) == 0 and capsys.readouterr().out == f"{path}\n"
    content = path.read_bytes()
    path.write_bytes(spoiled(content, "a pixel"))
    assert run(["dataset", "verify", str(path)]) == 6
    assert "was altered" in capsys.readouterr().err
    path.write_bytes(spoiled(content, "text"))
    assert run(["dataset", "info", str(path)]) == 4
    assert run(["dataset", "pack", str(folder), "-o", str(path), "--set", "train.epochs=1"]) == 2
    assert run(["dataset", "pack", str(folder), "-o", str(path), "--set", "data.options.corp=0.5"]) == 2
    assert run(["dataset", "pack", "-o", str(path)]) == 2
    assert "needs the path of your data" in capsys.readouterr().err
    assert run(["dataset", "pack", "shapes", "-o", str(path)]) == 2  # a data set's name stands in a folder's place
    assert "data set 'shapes' needs no pack" in capsys.readouterr().err
