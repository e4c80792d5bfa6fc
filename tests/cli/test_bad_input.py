"""Bad input from outside in bulk: predict goes on, training names the file, and skipping is counted.

The corpus row by row, with its exit codes, is in test_corpus.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from corpus import IMAGES, Bad, encoded, jpeg, picture
from PIL import Image

from dlkit.data.classes import class_name
from dlkit.errors import DataError
from dlkit.runs.run_folder import RunFolder
from dlkit_cli import main

FILES = [bad for bad in IMAGES if bad.name not in ("folder.jpg", "missing.png")]  # what a folder's listing shows


@pytest.fixture
def canary(tmp_path: Path) -> Callable[[], bool]:
    """A tree beside the input; called, it tells whether it is untouched."""
    (tmp_path / "canary/deep").mkdir(parents=True)
    (tmp_path / "canary/deep/bird").write_text("alive")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "canary").rglob("*")}
    return lambda: before == {path: path.stat().st_mtime_ns for path in (tmp_path / "canary").rglob("*")}


def broken_exif() -> bytes:
    block = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12\0\x03\xff\xff\xff\xff\x7f\xff\xff\xff"
    return jpeg()[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + jpeg()[2:]


def odd_images() -> dict[str, bytes]:
    """Rows 9, 11, 15 and 18 to 25: unusual, and answered."""
    turned, palette = Image.Exif(), picture(mode="P")
    turned[0x0112] = 6
    frames = [picture(seed=seed) for seed in range(5)]
    moving = {"save_all": True, "append_images": frames[1:]}
    return {
        "09-jpeg.png": jpeg(),
        "09-png.jpg": encoded(picture(), "PNG"),
        "11-dot.png": encoded(picture(1, 1), "PNG"),
        "15-deep.png": encoded(Image.fromarray(np.linspace(0, 65535, 1024).astype(np.uint16).reshape(32, 32)), "PNG"),
        "18-cmyk.jpg": encoded(picture(mode="CMYK"), "JPEG"),
        "19-clear.png": encoded(Image.new("RGBA", (9, 9), (255, 0, 0, 0)), "PNG"),
        "20-gray-clear.png": encoded(picture(mode="LA"), "PNG"),
        "20-palette.png": encoded(palette, "PNG", transparency=0),
        "21-bits.png": encoded(picture(mode="1"), "PNG"),
        "22-turned.jpg": encoded(picture(), "JPEG", exif=turned),
        "23-exif.jpg": broken_exif(),
        "24-moves.gif": encoded(frames[0], "GIF", **moving),
        "24-moves.png": encoded(frames[0], "PNG", **moving),
        "24-moves.webp": encoded(frames[0], "WEBP", **moving),
        "25-profile.png": encoded(picture(), "PNG", icc_profile=b"garbage" * 30),
    }


def test_predict_answers_the_whole_corpus_line_by_line(
    tiny_run: RunFolder, tmp_path: Path, canary: Callable[[], bool], capsys: pytest.CaptureFixture[str]
) -> None:
    good = odd_images()
    for name, data in good.items():
        (tmp_path / name).write_bytes(data)
    names = []
    for bad, name in zip(IMAGES, [*good, *good], strict=False):  # bad and good by turns
        bad.make(tmp_path / bad.name)
        names += [bad.name, name]
    paths = [str(tmp_path / name) for name in names if name != "folder.jpg"]
    assert main.run(["predict", "--run", str(tiny_run.path), "--format", "jsonl", *paths]) == 3
    out, err = capsys.readouterr()
    answers = [json.loads(line) for line in out.splitlines()]
    assert [answer["path"] for answer in answers] == paths and canary()
    for answer in answers:
        if Path(answer["path"]).name in good:
            assert answer["predictions"]
        else:
            assert answer["error"]["code"] == DataError.exit_code and answer["path"] in answer["error"]["message"]
    assert "Traceback" not in out + err


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("bad", FILES, ids=str)
def test_training_refuses_a_bad_image_by_its_path(
    bad: Bad, workers: int, tmp_path: Path, canary: Callable[[], bool], capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(60):
        path = tmp_path / f"data/{'ab'[number % 2]}/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(picture(12, 12, seed=number), "PNG"))
    path = tmp_path / "data/a" / bad.name
    bad.make(path)
    line = f"train mlp --dataset folder --data-dir {tmp_path / 'data'} --epochs 1 -b 16 -j {workers} --set data.size=8"
    code = main.run([*line.split(), "--test-split", "0", "--runs-dir", str(tmp_path / "runs")])
    err = capsys.readouterr().err
    assert code == DataError.exit_code and canary()
    assert str(path) in err.splitlines()[-1] and "Traceback" not in err


@pytest.mark.parametrize("name", ["../x", "a/../../b", "..", "..\\x", "a\nb", "a\x1bb"])
def test_a_class_name_that_is_a_way_out_or_a_command_is_refused(name: str) -> None:
    with pytest.raises(DataError, match="the class name"):
        class_name(name)
    assert class_name("AC/DC") == "AC/DC" and class_name("a..b") == "a..b"


LIMITED = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
from dlkit.data.images.decode import decode
from dlkit.errors import DataError
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        decode(path, 3)
        print("accepted", path)
    except DataError:
        print("refused")
"""


def test_no_image_of_the_corpus_takes_more_than_two_gigabytes(tmp_path: Path) -> None:
    for bad in FILES:
        bad.make(tmp_path / bad.name)
    done = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout == "refused\n" * len(FILES), done


def three_hundred(root: Path, bad: int) -> list[Path]:
    """Three hundred images of two classes, of which the first few are text."""
    paths = [root / "ab"[number % 2] / f"{number:03}.png" for number in range(300)]
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"hello" if number < bad else encoded(picture(12, 12, seed=number), "PNG"))
    return paths[:bad]


def test_a_bad_image_is_left_out_where_that_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bad,) = three_hundred(tmp_path / "data", 1)
    line = ["train", "mlp", "--dataset", "folder", "--data-dir", str(tmp_path / "data"), "--epochs", "1", "-j", "0"]
    line += ["--set", "data.size=8", "--validation", "0.9", "--test-split", "0"]
    line += ["--runs-dir", str(tmp_path / "runs"), "--on-bad-image"]
    assert main.run([*line, "error"]) == DataError.exit_code
    assert main.run([*line, "skip", "--name", "skipped"]) == 0
    info = json.loads((tmp_path / "runs/skipped/run.json").read_text())
    assert list(info["left_out"]) == [str(bad)] and "not an image" in info["left_out"][str(bad)]
    assert sum(part["samples"] for part in info["data"].values()) == 299
    assert f"such as {bad}" in capsys.readouterr().err
    of_run = ["eval", str(tmp_path / "runs/skipped"), "--format", "json", "--split"]
    found, codes = [], []
    for split in ("train", "validation"):
        assert main.run([*of_run, split]) == 0
        found.append(json.loads(capsys.readouterr().out))
        codes.append(main.run([*of_run, split, "--on-bad-image", "error"]))
        assert str(bad) in capsys.readouterr().err or not codes[-1]
    assert sum(document["samples"] for document in found) == 299
    assert [path for document in found for path in document.get("left_out", ())] == [str(bad)]
    assert sorted(codes) == [0, DataError.exit_code] and not any(document["warnings"] for document in found)
    exported = str(tmp_path / "m.safetensors")
    assert main.run(["export", str(tmp_path / "runs/skipped"), "--to", "safetensors", "-o", exported]) == 0
    assert "left out 1 of" in capsys.readouterr().err
    three_hundred(tmp_path / "data", 4)
    assert main.run([*line, "skip"]) == DataError.exit_code and "more than 1%" in capsys.readouterr().err
    assert main.run([*line, "ignore"]) == 2
