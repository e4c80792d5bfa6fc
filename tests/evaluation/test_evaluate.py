"""eval: exact, independent of batches and workers, matched by name, written whole."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from shapes_on_disk import form, write_folder

import dlkit
from dlkit.data.splits import MemoryImages
from dlkit.errors import DataError, GateError, StorageError, UsageError
from dlkit.evaluation import evaluate as evaluate_module
from dlkit.evaluation.matching import by_name, resize_samples
from dlkit.evaluation.options import resolve_topk
from dlkit.evaluation.record import read_evaluation, write_evaluation
from dlkit.evaluation.result import Evaluation
from dlkit.evaluation.tally import single_class_warning
from dlkit.runs.run_folder import RunFolder
from dlkit.specs import ImageSpec
from dlkit.training import restore as restoring
from dlkit_cli.main import run as dlkit_command

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture
def own_run(tiny_run: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy of the tiny run, free to be changed."""
    return RunFolder(Path(shutil.copytree(tiny_run.path, tmp_path / "runs" / "tiny", symlinks=True)))


@pytest.fixture(scope="module")
def evaluation(tiny_run: RunFolder) -> Evaluation:
    return dlkit.evaluate(tiny_run, write=False)


def same_figures(one: Evaluation, other: Evaluation) -> None:
    assert (one.confusion == other.confusion).all() and one.samples == other.samples
    assert one.metrics.keys() == other.metrics.keys()
    for name, metric in one.metrics.items():
        exact = name.startswith("top")
        assert metric.value == pytest.approx(other.metrics[name].value, abs=0 if exact else 1e-6), name


@pytest.mark.parametrize("batch_size", [1, 7, 160, 1000])
def test_the_result_does_not_depend_on_the_batch_size(
    tiny_run: RunFolder, evaluation: Evaluation, batch_size: int
) -> None:
    same_figures(evaluation, dlkit.evaluate(tiny_run, batch_size=batch_size, write=False))


def test_the_result_does_not_depend_on_workers_or_on_memory_or_files(
    tiny_run: RunFolder, evaluation: Evaluation, tmp_path: Path
) -> None:
    write_folder(tmp_path, "train", count=80)
    write_folder(tmp_path, "test")
    for workers in (0, 2):
        found = dlkit.evaluate(
            tiny_run, dataset="folder", data_dir=tmp_path, workers=workers, batch_size=33, write=False
        )
        same_figures(evaluation, found)


def test_figures_agree_with_the_predictions_that_are_written(own_run: RunFolder, rendered_figures: None) -> None:
    evaluation = dlkit.evaluate(own_run, topk=3)
    lines = [json.loads(line) for line in (own_run.path / "predictions.jsonl").read_text().splitlines()]
    names = [result.name for result in evaluation.classes]
    assert [line["id"] for line in lines] == list(range(evaluation.samples)) and evaluation.samples == 160
    assert all(line["predicted"] == line["topk"][0] and len(line["topk"]) == 3 for line in lines)

    top1 = sum(line["predicted"] == line["target"] for line in lines) / len(lines)
    top3 = sum(line["target"] in line["topk"] for line in lines) / len(lines)
    assert (evaluation.metrics["top1"].value, evaluation.metrics["top3"].value) == (top1, top3)
    assert evaluation.metrics["top3_error"].value == pytest.approx(1 - top3)
    assert 0 < top1 < top3 < 1  # else the test shows nothing

    counts = [
        [sum((row, column) == (line["target"], line["predicted"]) for line in lines) for column in names]
        for row in names
    ]
    assert evaluation.confusion.tolist() == counts
    with open(own_run.path / "confusion_matrix.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header[1:] == names and [[row[0], *map(int, row[1:])] for row in rows] == [
        [name, *row] for name, row in zip(names, counts, strict=True)
    ]
    assert [result.support for result in evaluation.classes] == [sum(row) for row in counts]
    assert read_evaluation(own_run).items() >= evaluation.document().items()
    for name in ("confusion_matrix", "calibration"):
        with Image.open(own_run.path / "plots" / f"{name}.png") as picture:
            assert picture.format == "PNG" and min(picture.size) > 200


def test_validation_is_what_training_validated_on(tiny_run: RunFolder) -> None:
    line = next(line for line in reversed(tiny_run.metrics()) if "val/top1" in line)
    found = dlkit.evaluate(tiny_run, split="validation", write=False)
    assert (found.metrics["top1"].value, found.step) == (line["val/top1"], line["step"])
    assert found.metrics["loss"].value == pytest.approx(line["val/loss"], abs=1e-5)
    assert not found.warnings


def test_a_model_that_predicts_one_class_for_everything_is_reported(
    tiny_run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, said = restoring.restore, list[str]()

    def constant(*arguments: Any) -> restoring.Restored:
        restored = original(*arguments)
        *_, last = (layer for layer in restored.model.modules() if isinstance(layer, torch.nn.Linear))
        torch.nn.init.zeros_(last.weight)
        torch.nn.init.zeros_(last.bias)
        last.bias.data[2] = 1.0
        return restored

    monkeypatch.setattr(restoring, "restore", constant)
    found = dlkit.evaluate(tiny_run, split="validation", write=False, say=said.append)
    counts = {name for name, row in zip(tiny_run.spec().classes, found.confusion, strict=True) if row.sum()}
    warning = (
        f"the model predicts {tiny_run.spec().classes[2]!r} for every one of {found.samples} samples, "
        f"but the targets have {len(counts)} classes."
    )
    assert found.warnings == (warning,) and f"warning: {warning}" in said
    one_class = torch.zeros(3, 3, dtype=torch.int64)
    one_class[1, 2] = 9  # every target is of one class: no fault of the model
    assert single_class_warning(one_class, ("a", "b", "c")) == ()


def test_the_document_has_the_golden_form(evaluation: Evaluation) -> None:
    assert form(evaluation.document()) == json.loads((GOLDEN / "eval.json").read_text())
    assert list(form(evaluation.document())) == list(json.loads((GOLDEN / "eval.json").read_text()))


def test_nothing_is_written_without_write(own_run: RunFolder) -> None:
    before = sorted(own_run.path.rglob("*"))
    dlkit.evaluate(own_run, write=False)
    assert sorted(own_run.path.rglob("*")) == before


def test_classes_are_matched_by_name_not_by_place(tiny_run: RunFolder, evaluation: Evaluation, tmp_path: Path) -> None:
    some = ("star", "ring", "cross")
    for split in ("train", "test"):
        write_folder(tmp_path, split, some)
    found = dlkit.evaluate(tiny_run, dataset="folder", data_dir=tmp_path, write=False)
    kept = [place for place, result in enumerate(evaluation.classes) if result.name in some]
    expected = np.zeros_like(evaluation.confusion)
    expected[kept] = evaluation.confusion[kept]
    assert (found.confusion == expected).all() and expected.any()
    assert any("no sample of" in warning for warning in found.warnings)


def test_a_class_the_model_does_not_know_is_refused(tiny_run: RunFolder, tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_folder(tmp_path, split, ("star", "ring"))
        (tmp_path / split / "star").rename(tmp_path / split / "pentagram")
    with pytest.raises(DataError, match="'pentagram'"):
        dlkit.evaluate(tiny_run, dataset="folder", data_dir=tmp_path, write=False)


def test_a_class_that_no_sample_has_does_no_harm() -> None:
    samples = MemoryImages(np.zeros((2, 1, 2, 2), np.uint8), np.array([1, 1]))
    assert by_name(samples, ("x", "b"), ("a", "b"), "set").targets.tolist() == [1, 1]
    with pytest.raises(DataError, match="'x'"):
        by_name(replace(samples, targets=np.array([0, 1])), ("x", "b"), ("a", "b"), "set")


def test_images_of_another_size_are_brought_to_the_models() -> None:
    spec = ImageSpec(3, 4, 4, ("a",), (0.5,) * 3, (0.5,) * 3)
    gray = MemoryImages(np.full((2, 1, 8, 8), 7, np.uint8), np.array([0, 0]))
    resized = resize_samples(gray, spec)
    assert isinstance(resized, MemoryImages) and resized.images.shape == (2, 3, 4, 4) and (resized.images == 7).all()


def test_the_default_topk_stays_below_the_number_of_classes() -> None:
    said: list[str] = []
    assert [resolve_topk(None, classes, said.append) for classes in (10, 6, 5, 3, 2)] == [5, 5, 4, 2, 1]
    assert len(said) == 3 and "top-4" in said[0]
    for topk in (0, -1, 10, 11):
        with pytest.raises(UsageError, match=f"--topk {topk}"):
            resolve_topk(topk, 10, said.append)


def test_changed_data_are_warned_of_and_recorded(own_run: RunFolder) -> None:
    info = own_run.info()
    info["data"]["train"]["sha256"] = "0" * 64
    own_run.update(data=info["data"])
    said: list[str] = []
    found = dlkit.evaluate(own_run, split="train", say=said.append)
    assert "has changed since training" in found.warnings[0] and found.document()["warnings"] == list(found.warnings)
    assert f"warning: {found.warnings[0]}" in said
    assert not dlkit.evaluate(own_run, split="test", write=False).warnings


def test_a_test_split_that_changed_since_the_last_evaluation_is_warned_of(own_run: RunFolder) -> None:
    dlkit.evaluate(own_run)
    document = read_evaluation(own_run) | {"fingerprint": "0" * 64}
    write_evaluation(own_run, document, document["predictions_sha256"])
    assert "last evaluation" in dlkit.evaluate(own_run, write=False).warnings[0]


def test_the_newest_run_is_taken_and_said(own_run: RunFolder) -> None:
    said: list[str] = []
    found = dlkit.evaluate(runs_dir=own_run.path.parent, write=False, say=said.append)
    assert found.run.name == "tiny" and any("tiny" in line for line in said)


@pytest.mark.parametrize(
    ("option", "error"), [({"split": "tset"}, UsageError), ({"batch_size": 0}, UsageError), ({"topk": 8}, UsageError)]
)
def test_what_cannot_be_done_is_refused(tiny_run: RunFolder, option: dict[str, int], error: type[Exception]) -> None:
    with pytest.raises(error):
        dlkit.evaluate(tiny_run, write=False, **option)  # type: ignore[arg-type]


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(
    own_run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate_module.os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(StorageError, match="--no-write"):
        dlkit.evaluate(own_run)


# -- the command


def command(*arguments: str) -> int:
    return dlkit_command(["eval", *arguments])


def test_the_command_prints_one_document(own_run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(str(own_run.path), "--json", "--topk", "2") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "dlkit.eval/1" and document["topk"] == 2
    assert read_evaluation(own_run).items() >= document.items()


@pytest.mark.parametrize("format", ["csv", "tsv", "table", "jsonl"])
def test_every_format_shows_the_accuracy(
    tiny_run: RunFolder, evaluation: Evaluation, format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(str(tiny_run.path), "--no-write", "--format", format) == 0
    out = capsys.readouterr().out
    top1 = evaluation.metrics["top1"].value
    assert (f"{top1:.4g}" if format == "table" else str(top1)) in out and "star" in out


def test_a_gate_that_is_missed_ends_with_12_after_the_answer(
    tiny_run: RunFolder, evaluation: Evaluation, capsys: pytest.CaptureFixture[str]
) -> None:
    top1 = evaluation.metrics["top1"].value
    assert command(str(tiny_run.path), "--no-write", "--fail-under", f"top1={top1}", "--fail-under", "macro_f1=0") == 0
    capsys.readouterr()
    assert command(str(tiny_run.path), "--no-write", "--fail-under", f"top1={top1 + 1e-6}") == GateError.exit_code
    out, err = capsys.readouterr()
    assert "top1" in out and f"{top1:.6g}" in err and len(err.strip().splitlines()) == 1


def test_a_ceiling_is_a_gate_too_and_every_format_holds_the_verdict(
    tiny_run: RunFolder, evaluation: Evaluation, capsys: pytest.CaptureFixture[str]
) -> None:
    loss, ece = evaluation.metrics["loss"].value, evaluation.metrics["ece"].value
    quiet = ["-q", "eval", str(tiny_run.path), "--no-write"]
    passing = [*quiet, "--fail-over", f"loss={loss + 1e-6},ece={ece + 1e-6}", "--fail-under", "top1=0.01"]
    for format in ("table", "csv", "tsv", "json"):
        assert dlkit_command([*passing, "--format", format]) == 0
        out = capsys.readouterr().out
        assert "gate top1 >= 0.01" in out if format != "json" else len(json.loads(out)["gates"]) == 3
    assert dlkit_command([*quiet, "--fail-over", f"loss={loss - 1e-6}", "--json"]) == GateError.exit_code
    out, err = capsys.readouterr()
    (gate,) = json.loads(out)["gates"]
    assert (gate["metric"], gate["fail"], gate["met"]) == ("loss", "over", False) and "loss is" in err
    for wrong in ("top1=0.5", "loss=-1", "loss=nan", "loss=inf", "los=1"):
        assert dlkit_command([*quiet, "--fail-over", wrong]) == UsageError.exit_code


@pytest.mark.parametrize("gate", ["tpo1=0.9", "loss=0.1", "top1", "top1=98", "top1=nan", "=0.5"])
def test_a_gate_that_cannot_be_read_is_refused(
    tiny_run: RunFolder, gate: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(str(tiny_run.path), "--no-write", "--fail-under", gate) == UsageError.exit_code
    out, err = capsys.readouterr()
    assert not out and gate in err
    assert gate != "tpo1=0.9" or "'top1'" in err
