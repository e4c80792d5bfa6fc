"""Files of the first version are read as before: a run, its evaluation, exports, a pack and a bundle.

tests/fixtures/before_layout.tar.xz was written by dlkit before its packages were rearranged: an MLP trained for three
epochs on 24 random pictures of two classes, its exports, the pack of its pictures, and a bundle of a made-up MNIST.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from dlkit.data.download import bundle
from dlkit.datasets import mnist
from dlkit_cli import main

ARCHIVE = Path(__file__).parent / "fixtures" / "before_layout.tar.xz"


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder as the first version left it: photos/ and runs/old."""
    with tarfile.open(ARCHIVE) as archive:
        for member in archive.getmembers():
            archive.extract(member, tmp_path, filter="data")
    (tmp_path / "runs").mkdir()
    (tmp_path / "run").rename(tmp_path / "runs" / "old")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def document(capsys: pytest.CaptureFixture[str], line: str) -> Any:
    capsys.readouterr()
    assert main.run(line.split()) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def test_a_run_predicts_evaluates_and_resumes(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = json.loads((old / "old-predict.json").read_text())[0]["predictions"]
    now = document(capsys, "predict photos/test/owl/00.png --run old --json")[0]["predictions"]
    assert [answer["class"] for answer in now] == [answer["class"] for answer in before]
    assert [answer["probability"] for answer in now] == pytest.approx(
        [answer["probability"] for answer in before], abs=1e-5
    )

    figures = json.loads((old / "old-eval.json").read_text())["metrics"]
    again = document(capsys, "eval old --json")["metrics"]
    assert again["top1"] == pytest.approx(figures["top1"]) and again["loss"] == pytest.approx(figures["loss"], abs=1e-5)

    assert main.run(["train", "--resume", "old", "--epochs", "4", "--inexact"]) == 0
    lines = [json.loads(line) for line in (old / "runs/old/metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert main.run(["runs", "list"]) == 0 and "old" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["old.onnx", "old.safetensors"])
def test_an_export_answers_as_its_run_did(name: str, old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = json.loads((old / "old-predict.json").read_text())[0]["predictions"]
    now = document(capsys, f"predict photos/test/owl/00.png --model {name} --json")[0]["predictions"]
    assert [answer["class"] for answer in now] == [answer["class"] for answer in before]
    assert [answer["probability"] for answer in now] == pytest.approx(
        [answer["probability"] for answer in before], abs=1e-5
    )


def test_a_pack_trains(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "train mlp --dataset packed:old.dlpack --set model.options.hidden=8 --epochs 1 -b 8 -j 0 --name packed"
    assert main.run(words.split()) == 0
    assert "24 train, 8 validation" in capsys.readouterr().err


def test_a_bundle_is_unpacked_into_the_cache(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = {}
    with tarfile.open(old / "old-bundle.tar") as archive:
        for member in archive:
            if member.isfile() and member.name.endswith("-ubyte"):
                file = archive.extractfile(member)
                assert file is not None
                contents[Path(member.name).name] = (member.size, hashlib.sha256(file.read()).hexdigest())
    monkeypatch.setattr(mnist, "CONTENTS", contents)
    monkeypatch.setenv("DLKIT_HOME", str(old / "home"))
    (cached,) = bundle.unbundle(old / "old-bundle.tar")
    assert {file.name for file in cached.files} == set(contents) and len(contents) == 4
