"""dataset check: each kind of fault is named where it was planted, and nothing where there is none."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from corpus import IMAGES, Bad, big_png, encoded, flipped, picture
from PIL import Image
from shapes_on_disk import form

from dlkit.data import library
from dlkit.data.checks import duplicates
from dlkit.data.checks import findings as dataset_findings
from dlkit.data.checks.check import KINDS, CheckReport, check
from dlkit.data.fingerprint import FileDigest
from dlkit.data.images import decode
from dlkit.data.splits import MemoryImages
from dlkit.datasets import shapes
from dlkit.errors import DataError, UsageError
from dlkit_cli import main

COLOURS = {"blue": (40, 60, 200), "green": (40, 170, 60), "red": (200, 50, 50), "yellow": (210, 200, 40)}
TRAIN, VAL = 20, 16  # images of a class


def tinted(name: str, seed: int) -> Image.Image:
    """A picture of its own that has the colour of its class."""
    return Image.blend(picture(48, 48, seed=seed), Image.new("RGB", (48, 48), COLOURS[name]), 0.4)


@pytest.fixture(scope="module")
def _clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clean")
    for number, name in enumerate(COLOURS):
        for split, count in (("train", TRAIN), ("val", VAL)):
            (root / split / name).mkdir(parents=True)
            for place in range(count):
                data = encoded(tinted(name, seed=1000 * number + place + TRAIN * (split == "val")), "JPEG", quality=90)
                (root / split / name / f"{place}.jpg").write_bytes(data)
    return root


@pytest.fixture
def clean(_clean: Path, tmp_path: Path) -> Path:
    """A data set of four colours without a fault, to plant faults in."""
    root = tmp_path / "set"
    for path in _clean.rglob("*.jpg"):
        there = root / path.relative_to(_clean)
        there.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, there)
    return root


def put(path: Path, data: bytes) -> str:
    """Write a file that may be a link to another's bytes; returns its path."""
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return str(path)


def corrupt(root: Path) -> str:
    path = root / "train/red/3.jpg"
    return put(path, path.read_bytes()[:-200])


def byte_identical_leak(root: Path) -> str:
    return put(root / "train/red/copy.jpg", (root / "val/red/2.jpg").read_bytes())


def recompressed_and_flipped_leak(root: Path) -> str:
    with Image.open(root / "val/green/5.jpg") as image:
        turned = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return put(root / "train/green/again.jpg", encoded(turned, "JPEG", quality=70))


def class_missing_in_val(root: Path) -> str:
    for path in (root / "val/blue").iterdir():
        path.unlink()
    (root / "val/blue").rmdir()
    return str(root / "val/blue")


def empty_class(root: Path) -> str:
    (root / "train/orange").mkdir()
    return str(root / "train/orange")


def permuted_labels_of_a_class_pair(root: Path) -> str:
    (root / "val/red").rename(root / "val/x")
    (root / "val/yellow").rename(root / "val/red")
    (root / "val/x").rename(root / "val/yellow")
    return "validation"


def rgba_mix(root: Path) -> str:
    image = tinted("blue", 7777)
    image.putalpha(90)
    return put(root / "train/blue/glass.png", encoded(image, "PNG"))


def rotated_exif(root: Path) -> str:
    exif = Image.Exif()
    exif[0x0112] = 6
    return put(root / "val/red/held.jpg", encoded(tinted("red", 8888), "JPEG", exif=exif))


def one_by_one(root: Path) -> str:
    return put(root / "train/yellow/dot.png", encoded(Image.new("RGB", (1, 1), (200, 200, 10)), "PNG"))


def no_image(root: Path) -> str:
    return put(root / "train/yellow/notes.bin", b"remember to take more of these")


def wrong_extension(root: Path) -> str:
    return put(root / "val/green/really.png", encoded(tinted("green", 9999), "JPEG"))


def case_twins(root: Path) -> str:
    for split, seed in (("train", 11), ("val", 22)):
        put(root / split / "Red/1.jpg", encoded(tinted("red", seed), "JPEG"))
    return "Red"  # or red: which of them is found second is as their names are sorted


PLANTED: dict[Callable[[Path], str], str] = {
    corrupt: "corrupt", byte_identical_leak: "leak", recompressed_and_flipped_leak: "near-leak",
    class_missing_in_val: "missing-class", empty_class: "empty-class",
    permuted_labels_of_a_class_pair: "exchanged-labels", rgba_mix: "mixed-alpha", rotated_exif: "rotated",
    one_by_one: "tiny", no_image: "stray-file", wrong_extension: "wrong-extension", case_twins: "case-twins",
}  # fmt: skip
HARMLESS = (rgba_mix, rotated_exif)  # dlkit reads them right: notes


def faults(report: CheckReport) -> set[tuple[str, str]]:
    return {(found.kind, found.path) for found in report.faults}


def test_clean_set_has_no_finding(clean: Path) -> None:
    report = check(str(clean))
    assert report.findings == () and report.drop == []
    assert report.images == 4 * (TRAIN + VAL) and report.splits["validation"]["red"] == VAL
    assert report.census == {"size": {"48 × 48": 144}, "mode": {"RGB": 144}, "format": {"JPEG": 144}}


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_planted_fault_is_named_and_no_other(plant: Callable[[Path], str], clean: Path) -> None:
    path = plant(clean)
    report = check(str(clean))
    found = faults(report)
    if plant in HARMLESS:
        found = {(note.kind, note.path) for note in report.findings}
        assert report.faults == [] and report.drop == []
    assert {kind for kind, _ in found} == {PLANTED[plant]}
    assert all(where.casefold().endswith(path.casefold()) for _, where in found)


def test_all_twelve_faults_at_once_are_named(clean: Path) -> None:
    rest = [plant for plant in PLANTED if plant not in (class_missing_in_val, permuted_labels_of_a_class_pair)]
    for plant in (permuted_labels_of_a_class_pair, *rest, class_missing_in_val):
        plant(clean)
    assert {found.kind for found in check(str(clean)).findings} >= set(PLANTED.values()) and len(PLANTED) == 12


def test_orientation_0_is_no_orientation(clean: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 0
    put(clean / "val/red/zero.jpg", encoded(tinted("red", 8888), "JPEG", exif=exif))
    assert check(str(clean)).findings == ()


def test_the_fix_list_names_damaged_images_and_copies_and_nothing_else(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for plant in (recompressed_and_flipped_leak, one_by_one, no_image, rgba_mix, rotated_exif, wrong_extension):
        plant(clean)  # good files, or not for a program to judge
    put(clean / "train/red/large.png", big_png(9_400))
    put(clean / "train/red/page.png", b"%PDF-1.7\n")
    put(clean / "train/red/photo.avif", encoded(tinted("red", 77), "AVIF"))
    put(clean / "train/red/deep.tif", encoded(Image.fromarray(np.full((9, 9), 0.5, np.float32)), "TIFF"))
    put(clean / "train/blue/other.jpg", (clean / "train/red/1.jpg").read_bytes())  # of two labels: one is right
    (clean / "val/green/gone.jpg").symlink_to(tmp_path / "a drive that is not mounted.jpg")
    assert check(str(clean)).drop == []
    monkeypatch.chdir(clean.parent)
    names = [corrupt(clean), byte_identical_leak(clean), put(clean / "train/red/twice.jpg", b"no image")]
    line, broken = tmp_path / "line", put(clean / "train/red/bad\nkeep.png", b"x")
    said: list[str] = []
    check("set", fix_list=line, log=said.append)
    assert line.read_text() == "".join(f"{name}\n" for name in sorted(names))  # from the root, whatever was given
    assert any("1 names with a line break are not listed" in text for text in said)
    check("set", fix_list=line, null=True)
    assert line.read_text() == "".join(f"{name}\0" for name in sorted([*names, broken]))
    check("set", fix_list=line, ignore=("corrupt",))
    assert line.read_text() == names[1] + "\n"


def test_of_a_group_of_copies_one_is_kept_whatever_links_there_are(clean: Path) -> None:
    first = clean / "train/red/1.jpg"
    (clean / "train/red/also.jpg").symlink_to(first)
    (clean / "train/blue/linked").symlink_to(clean / "train/blue", target_is_directory=True)
    (clean / "val/yellow/linked").symlink_to(clean / "train/yellow", target_is_directory=True)
    (clean / "train/blue/linked").unlink()  # a loop, which is a fault of its own
    put(clean / "train/red/twice.jpg", first.read_bytes())
    before = {path.read_bytes() for path in clean.rglob("*.jpg")}
    drop = check(str(clean)).drop
    assert str(first) not in drop or len(drop) == 2
    for name in drop:
        os.unlink(name)
    assert {path.read_bytes() for path in clean.rglob("*.jpg")} == before
    assert len(drop) == 2 and all("/red/" in name for name in drop)


def test_what_the_fix_list_drops_leaves_a_set_without_faults(
    clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = {plant(clean) for plant in (corrupt, byte_identical_leak)}
    fixes = tmp_path / "drop.txt"
    assert main.run(["dataset", "check", str(clean), "--fix-list", str(fixes)]) == DataError.exit_code
    listed = fixes.read_text().splitlines()
    assert set(listed) == paths and listed == sorted(listed)
    for path in listed:
        os.unlink(path)
    assert main.run(["dataset", "check", str(clean), "--fix-list", str(fixes)]) == 0 and fixes.read_text() == ""
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("bad", IMAGES, ids=str)
def test_no_image_of_the_corpus_passes_or_stops_the_check(bad: Bad, clean: Path) -> None:
    if bad.name in ("folder.jpg", "missing.png"):
        pytest.skip("no file that a folder's listing shows")
    path = clean / "train/red" / bad.name
    bad.make(path)
    (found,) = check(str(clean)).faults
    kind = "corrupt" if bad.row < 12 or bad.row == 28 else "unsupported"
    assert (found.kind, found.path, found.drop) == (kind, str(path), kind == "corrupt") and bad.says in found.message


def test_a_flipped_byte_that_still_decodes_is_found_by_its_hash(clean: Path, tmp_path: Path) -> None:  # corpus row 8
    files = sorted(clean.rglob("*.jpg"))
    sums = tmp_path / "sums"
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(clean)}" for path in files]
    sums.write_text("\n".join(lines) + "\n")
    assert check(str(clean), hashes=sums).findings == ()
    data = files[5].read_bytes()
    put(files[5], flipped(data, len(data) - 60))
    decode.decode(files[5], 3)
    files[9].unlink()
    put(clean / "val/red/new.jpg", encoded(tinted("red", 4242), "JPEG"))
    found = {(finding.kind, finding.path) for finding in check(str(clean), hashes=sums).findings}
    new = str(clean / "val/red/new.jpg")
    assert found == {("altered", str(files[5])), ("gone", str(files[9])), ("unlisted", new)}
    sums.write_text("no sum\n")
    with pytest.raises(UsageError, match="sums:1: not a line of sha256sum"):
        check(str(clean), hashes=sums)


def test_one_picture_under_two_names_is_a_fault_and_twice_in_one_class_a_note(clean: Path) -> None:
    data = (clean / "train/red/1.jpg").read_bytes()
    put(clean / "train/red/twice.jpg", data)
    report = check(str(clean))
    assert report.faults == [] and [found.kind for found in report.findings] == ["duplicate"]
    assert len(report.drop) == 1
    put(clean / "train/blue/other.jpg", data)
    report = check(str(clean))
    assert {kind for kind, _ in faults(report)} == {"two-classes"} and report.drop == []


def test_what_only_a_strict_loader_refuses_is_named_too(clean: Path) -> None:
    put(clean / "val/violet/1.jpg", encoded(picture(48, 48, seed=1), "JPEG"))
    put(clean / "train/re\nd/1.jpg", encoded(picture(48, 48, seed=2), "JPEG"))
    put(clean / "train/red/photo", encoded(picture(48, 48, seed=3), "JPEG"))
    kinds = {kind for kind, _ in faults(check(str(clean)))}
    assert kinds == {"unknown-class", "class-name", "missing-class", "wrong-extension"}


def test_uneven_classes_blank_and_animated_images_are_notes(clean: Path) -> None:
    for path in list((clean / "train/red").iterdir())[1:]:
        path.unlink()
    put(clean / "train/blue/white.png", encoded(Image.new("RGB", (48, 48), "white"), "PNG"))
    frames = [tinted("blue", 300), tinted("blue", 301)]
    put(clean / "train/blue/moves.gif", encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    report = check(str(clean))
    assert [found.kind for found in report.findings] == ["blank", "forgiven", "imbalance"] and report.faults == []
    assert "from 1 images ('red') to 22 ('blue')" in report.findings[-1].message


def test_an_ignored_kind_becomes_a_note(clean: Path) -> None:
    one_by_one(clean)
    assert check(str(clean), ignore=("tiny",)).faults == []
    with pytest.raises(UsageError, match="Did you mean 'tiny'"):
        check(str(clean), ignore=("tny",))


def test_a_set_in_memory_is_checked_like_files(monkeypatch: pytest.MonkeyPatch) -> None:
    made = shapes.load(train=80, test=40)
    assert isinstance(made.train, MemoryImages) and isinstance(made.test, MemoryImages)
    made.train.images[7] = made.test.images[3]
    monkeypatch.setattr(library, "splits", lambda *_, **__: made)
    report = check("shapes")
    assert report.images == 120 and report.splits["test"] == dict.fromkeys(shapes.CLASSES, 5)
    assert report.census["format"] == {"PPM": 120}
    same = made.train.targets[7] == made.test.targets[3]
    assert faults(report) == {("leak" if same else "two-classes", path) for path in ("train[7]", "test[3]")[: 2 - same]}


def test_few_near_copies_among_many_images_are_a_note(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recompressed_and_flipped_leak(clean)
    monkeypatch.setattr(dataset_findings, "HARMLESS_LEAK", 1 / 64)  # as if there were a thousand
    report = check(str(clean))
    assert [found.kind for found in report.findings] == ["near-leak"] and report.faults == []


def test_near_copies_in_a_pool_that_dlkit_cuts_are_notes_that_name_the_option(clean: Path) -> None:
    path = recompressed_and_flipped_leak(clean)
    put(clean / "train/green/0.jpg", (clean / "train/green/1.jpg").read_bytes())
    shutil.copy(clean / "val/green/5.jpg", clean / "train/green/first.jpg")
    shutil.rmtree(clean / "val")
    report = check(str(clean))
    near = [found for found in report.findings if found.kind == "near-duplicate"]
    assert [found.path for found in near] == [path] and "flipped. data.options.group=near" in near[0].message
    assert report.faults == [] and path not in report.drop
    assert check(str(clean), ignore=("near-duplicate",)).faults == []


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    for target, error, says in (
        ("minst", UsageError, "'mnist'"), (str(tmp_path / "none"), DataError, "no such folder"),
        (str(tmp_path), DataError, "no class folders"), ("adding", UsageError, "images and texts"),
    ):  # fmt: skip
        with pytest.raises(error, match=says):
            check(target)


# The shell


@pytest.mark.parametrize("flags", [["--format", "tsv"], ["--format", "table"], ["--json"], ["--format", "jsonl"], []])
def test_the_answer_is_on_stdout_and_the_verdict_in_the_exit_code(
    flags: list[str], clean: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["dataset", "check", str(clean), *flags]) == 0
    capsys.readouterr()
    path = corrupt(clean)
    assert main.run(["dataset", "check", str(clean), *flags]) == DataError.exit_code
    out, err = capsys.readouterr()
    assert path in out and "1 fault: 1 corrupt" in err and "\n\n" not in err
    if flags in ([], ["--format", "tsv"]):
        assert out.splitlines()[0] == "level\tkind\tpath\tmessage" and len(out.splitlines()) == 2


def test_the_document_has_its_golden_form(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corrupt(clean)
    main.run(["dataset", "check", str(clean), "--json"])
    document = json.loads(capsys.readouterr().out)
    document["splits"], document["census"] = document["splits"]["train"], document["census"]["size"]
    assert form(document) == {
        "schema": "dlkit.dataset_check/1", "dataset": "str", "images": "int",
        "splits": dict.fromkeys(COLOURS, "int"), "census": {"48 × 48": "int"},
        "findings": [{"level": "str", "kind": "str", "path": "str", "message": "str", "drop": "bool"}],
        "faults": "int", "notes": "int", "drop": ["str"],
    }  # fmt: skip


def test_every_kind_of_fault_that_the_code_names_is_listed() -> None:
    folder = Path(main.__file__).parents[1] / "dlkit" / "data" / "checks"
    code = "".join((folder / f"{name}.py").read_text() for name in ("survey", "findings"))
    assert all(f'"{kind}"' in code for kind in KINDS) and set(PLANTED.values()) <= set(KINDS)


# What training finds by itself


def test_training_says_which_images_stand_twice(
    clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    byte_identical_leak(clean)
    put(clean / "train/blue/other.jpg", (clean / "train/red/1.jpg").read_bytes())
    line = f"train mlp --dataset folder --data-dir {clean} --epochs 1 -j 0 --set data.size=8"
    assert main.run([*line.split(), "--runs-dir", str(tmp_path / "runs")]) == 0
    said = [text for text in capsys.readouterr().err.splitlines() if "warning: " in text]
    assert len([text for text in said if "1 of 64 validation images are also in train" in text]) == 1
    assert any("1 images are in two classes, such as 'blue' and 'red'" in text for text in said)


def test_training_finds_copies_that_its_own_cut_puts_on_both_sides() -> None:
    listed = {
        "train": [FileDigest("a/1", "a", 1, "x"), FileDigest("b/1", "b", 1, "y")],
        "validation": [FileDigest("a/2", "a", 1, "x"), FileDigest("a/3", "a", 1, "z")],
    }
    (note,) = duplicates.duplicate_notes(listed)
    assert note == "1 of 2 validation images are also in train: validation metrics will be optimistic."
    assert duplicates.duplicate_notes({"train": listed["train"]}) == []
